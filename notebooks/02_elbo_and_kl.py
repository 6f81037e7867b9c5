# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The evidence lower bound, and what it costs to be wrong
#
# A latent variable model says how data $x$ come from a hidden cause $z$: $p(x, z) = p(x \mid z)\,
# p(z)$. To learn and to compare models one needs the **evidence** $p(x) = \int p(x, z)\, dz$, to
# understand a trial the **posterior** $p(z \mid x) = p(x, z) / p(x)$. For most models neither can
# be computed. Variational inference puts a simple distribution $q(z)$ in place of the posterior,
# and then one number serves both ends:
#
# $$ \log p(x) = \underbrace{\mathbb{E}_q\!\left[\log \frac{p(x, z)}{q(z)}\right]}_{\text{ELBO}} +
#    \mathrm{KL}\big(q(z)\, \|\, p(z \mid x)\big). $$
#
# The KL divergence is never negative, so the ELBO is never above $\log p(x)$: a lower bound on the
# evidence. To raise it is to bring $q$ closer to the posterior. Here it is taken apart on a model
# where the truth is known, so that every claim can be checked.

# %%
import os
import warnings
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Ellipse
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from seqvae import VAE, NeuralData
from seqvae.analysis import refine
from seqvae.data.sources import Arrays
from seqvae.distributions import kl, log_ratio, multivariate_gaussian_kl
from seqvae.encoders import FreeGaussian
from seqvae.objectives import (
    bound,
    evidence_minus_kl,
    importance_weighted_bound,
    joint_plus_entropy,
    log_weights,
)
from seqvae.observations import Gaussian
from seqvae.types import Latent

warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
small = "SEQVAE_SMALL" in os.environ  # the tests run a reduced version
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
BLUE, RED, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#8A8A8A", "#222222"

# %% [markdown]
# ## A model whose truth is known
#
# Two latents, five neurons, everything linear and Gaussian:
#
# $$ z \sim \mathcal{N}(0, I), \qquad x = C z + b + \varepsilon, \qquad
#    \varepsilon_n \sim \mathcal{N}(0, \sigma_n^2). $$
#
# Then $p(x) = \mathcal{N}(b,\, C C^\top + \Sigma)$, and the posterior is Gaussian with precision
# $\Lambda = I + C^\top \Sigma^{-1} C$ and mean $\Lambda^{-1} C^\top \Sigma^{-1} (x - b)$. In
# the framework this is a `VAE` with a decoder that does nothing. Most neurons read the *sum* of the
# two latents: so the data say much about the sum and little about the difference, and in the
# posterior the latents are correlated.

# %%
num_trials = 4
loadings = torch.tensor([[1.0, 0.9], [0.8, 1.0], [1.2, 1.0], [0.9, 1.1], [0.3, -0.2]])
noise_std = torch.tensor([0.8, 1.0, 0.9, 1.1, 0.7])
latents = torch.randn(num_trials, 1, 2)
activity = latents @ loadings.T + noise_std * torch.randn(num_trials, 1, 5)

data = NeuralData(Arrays(activity.numpy(), bin_width=0.02), val_fraction=0.0)
batch = data.batch(data.trials("train")).to(torch.float64)


def linear_model(covariance):
    model = VAE(data.spec, latent_dim=2, factor_dim=2, dropout=0.0,
                encoder=partial(FreeGaussian, covariance=covariance),
                observation=partial(Gaussian, min_std=0.0))  # fmt: skip
    model.decoder = torch.nn.Identity()
    with torch.no_grad():
        model.observation.readout.weight.copy_(loadings)
        model.observation.readout.bias.zero_()
        model.observation.log_std.copy_(noise_std.log())
    model.make_room(num_trials, 1)
    return model.eval().requires_grad_(False)


model = linear_model("diagonal")
weighted = loadings.T / noise_std**2
precision = torch.eye(2) + weighted @ loadings
marginal = MultivariateNormal(torch.zeros(5), loadings @ loadings.T + torch.diag(noise_std**2))
log_evidence = marginal.log_prob(batch.target).sum(1)
mean = batch.target @ torch.linalg.solve(precision, weighted).T
print("log p(x) of each trial, nats:", np.round(log_evidence.numpy(), 3))

# %% [markdown]
# ## One number in three forms
#
# The same ELBO can be written as
#
# 1. **evidence minus KL to the true posterior**: $\log p(x) - \mathrm{KL}(q \,\|\, p(z \mid x))$.
#    It says *why* it is a bound. It takes the truth to compute.
# 2. **likelihood minus KL to the prior**: $\mathbb{E}_q[\log p(x \mid z)] - \mathrm{KL}(q \,\|\,
#    p(z))$. It says what is traded: reconstruct the data, but say no more about $z$ than needed.
#    This is what the framework trains.
# 3. **joint plus entropy**: $\mathbb{E}_q[\log p(x, z)] + H(q)$. Find the likely $z$, but stay as
#    broad as possible.
#
# Four posteriors: the prior itself; one that is off and too broad; the best with *independent*
# latents, the **mean field**; and the true one, with full covariance. The expectations are taken
# over samples, so forms 2 and 3 come with a standard error.

# %%
num_draws = 1000 if small else 20000
many = batch[[0] * num_draws]  # the first trial, once for each draw


def gaussian(mean, covariance):
    return MultivariateNormal(mean.expand(1, 1, 2), covariance.expand(1, 1, 2, 2))


true_covariance = torch.linalg.inv(precision)
truth = gaussian(mean[0], true_covariance)
posteriors = {
    "prior": gaussian(torch.zeros(2), torch.eye(2)),
    "off, too broad": gaussian(mean[0] + 0.2, 0.6**2 * torch.eye(2)),
    "mean field": gaussian(mean[0], torch.diag(1 / precision.diagonal())),
    "full covariance": truth,
}


def told(values):
    return f"{values.mean():14.3f} +- {values.std() / len(values) ** 0.5:.3f}"


print(f"{'':16}{'1: exact':>9}{'2: by draws':>23}{'3: by draws':>23}{'sd of log weights':>19}")
for name, posterior in posteriors.items():
    form_1 = float(evidence_minus_kl(log_evidence[:1], posterior, truth))
    output = model.answer({"latent": posterior.expand((num_draws, 1))}, many)
    form_2, form_3 = bound(output, many).elbo(), joint_plus_entropy(output, many)
    spread = log_weights(output, many).std()
    print(f"{name:16}{form_1:9.3f}{told(form_2)}{told(form_3)}{spread:19.1e}")
print(f"{'log p(x)':16}{log_evidence[0]:9.3f}")

# %% [markdown]
# The three forms agree up to two or three standard errors, and the order is that of the theory: the
# freer the family, the higher the bound, and with the true posterior it *is* the evidence. The last
# column is the standard deviation of the log-weights $\log p(x, z) / q(z)$ between draws. With the
# true posterior it is zero up to rounding: $p(x, z) / p(z \mid x) = p(x)$ whatever $z$. So noise in
# the log-weights is itself a sign of a posterior that is not right.
#
# ## What independence costs
#
# Which factorised Gaussian is the best depends on what it is to be good at:
#
# - variational inference makes $\mathrm{KL}(q \,\|\, p)$ small ("reverse"). The optimum has the
#   variances $1 / \Lambda_{ii}$, those of each latent *with the other one held fixed*;
# - the least $\mathrm{KL}(p \,\|\, q)$ ("forward") has the *marginal* variances,
#   $(\Lambda^{-1})_{ii}$.
#
# The encoder `FreeGaussian` has a mean and a covariance of its own for every trial, and `refine`
# climbs the bound from the prior on, without any knowledge of the formulas above. It should find
# the mean field with a diagonal covariance, and the truth with a full one. What mean field loses
# is known, too: $\frac12 \left(\sum_i \log \Lambda_{ii} - \log \det \Lambda\right)$.

# %%
steps = 300 if small else 1500
options = {"num_samples": 16, "learning_rate": 0.05, "score_samples": 10000}
found = {
    kind: refine(linear_model(kind), batch, num_steps=steps, **options)
    for kind in ("diagonal", "full")
}


def ellipse(ax, center, covariance, **look):
    """Outline of the region that holds 90 % of a Gaussian."""
    size, axes = torch.linalg.eigh(covariance)
    width, height = (2 * (size * -2 * np.log(0.1)).sqrt()).tolist()
    angle = float(torch.rad2deg(torch.atan2(axes[1, 0], axes[0, 0])))
    ax.add_patch(Ellipse(center.tolist(), width, height, angle=angle, fill=False, **look))


center = mean[0, 0]
line = torch.linspace(-2.0, 2.0, 200)
points = center + torch.cartesian_prod(line, line)
density = truth.log_prob(points[:, None, None]).exp().reshape(200, 200).T
figure, axes = plt.subplots(1, 2, figsize=(7.4, 4), sharex=True, sharey=True, layout="constrained")
for ax in axes:
    ax.contourf(center[0] + line, center[1] + line, density, levels=12, cmap="Greys")
    ax.set(xlabel="latent 1", aspect="equal")
reverse, forward = torch.diag(1 / precision.diagonal()), torch.diag(true_covariance.diagonal())
ellipse(axes[0], center, true_covariance, color=BLACK, label="truth")
ellipse(axes[0], center, reverse, color=BLUE, linewidth=2, label="least KL(q || p): mean field")
ellipse(axes[0], center, forward, color=RED, linewidth=2, label="least KL(p || q)")
for kind, color in (("diagonal", BLUE), ("full", GREEN)):
    q = found[kind].encoding["latent"]
    covariance = torch.diag_embed(q.variance) if kind == "diagonal" else q.covariance_matrix
    ellipse(axes[1], q.mean[0, 0], covariance[0, 0], color=color, linewidth=2, linestyle="--",
            label=f"climbed, {kind} covariance")  # fmt: skip
axes[0].set(title="by formula", ylabel="latent 2")
axes[1].set(title="by climbing the bound")
for ax in axes:
    ax.legend(frameon=False, fontsize=8, loc="lower left")
plt.show()
loss = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
print(f"log p(x), mean of the trials           {log_evidence.mean():8.3f} nats")
print(f"bound climbed with full covariance     {found['full'].elbo.mean():8.3f}")
print(f"bound climbed with diagonal covariance {found['diagonal'].elbo.mean():8.3f}")
print(f"bound of the mean field by formula     {log_evidence.mean() - loss:8.3f}")

# %% [markdown]
# Grey is the true posterior; every line holds 90 % of a Gaussian. The data pin down the sum of the
# latents and leave their difference open, so the truth is long and thin. The mean field has the
# right middle and fits *inside* the long axis: of the difference it is far too sure. The forward
# optimum has the right width along each axis and covers what is impossible. Both are wrong where it
# counts, the correlation; only the first is what one gets by raising the ELBO.
#
# ## The KL divergence between Gaussians
#
# Between $q = \mathcal{N}(m_q, S_q)$ and $p = \mathcal{N}(m_p, S_p)$ in $D$ dimensions,
#
# $$ \mathrm{KL}(q \,\|\, p) = \tfrac12 \left[ \mathrm{tr}(S_p^{-1} S_q) +
#    (m_q - m_p)^\top S_p^{-1} (m_q - m_p) - D + \log \frac{\det S_p}{\det S_q} \right]. $$
#
# Nothing is inverted to compute it. With the Cholesky factors $S = L L^\top$ the trace is the
# squared length of $L_p^{-1} L_q$, got by solving a triangular system, and each determinant is a
# product of diagonal entries. Where there is no such formula, draws from $q$ do:
# $\mathrm{KL} \approx \frac1N \sum_i \log q(z_i) - \log p(z_i)$.

# %%
dim = 6
root_q, root_p = (0.25 * torch.randn(dim, dim) + torch.eye(dim) for _ in range(2))
q = MultivariateNormal(0.5 * torch.randn(1, dim), (root_q @ root_q.T)[None])
p = MultivariateNormal(torch.zeros(1, dim), (root_p @ root_p.T)[None])

num_draws = 3000 if small else 30000
figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.8), layout="constrained")
for ax, (name, one, other) in zip(axes, (("q || p", q, p), ("p || q", p, q)), strict=True):
    exactly = float(multivariate_gaussian_kl(one.mean, one.scale_tril, other.mean,
                                             other.scale_tril))  # fmt: skip
    latent = Latent(posterior=one, prior=other, sample=one.sample((num_draws,)))
    assert torch.allclose(kl(latent), torch.tensor(exactly))  # the framework takes the formula
    ratios = log_ratio(latent)[:, 0].numpy()
    count = np.arange(1, num_draws + 1)
    running = np.cumsum(ratios) / count
    error = np.sqrt(np.cumsum((ratios - running) ** 2)) / count
    ax.fill_between(count, running - 2 * error, running + 2 * error, color=BLUE, alpha=0.2,
                    linewidth=0)  # fmt: skip
    ax.plot(count, running, color=BLUE, label="mean of the draws so far")
    ax.axhline(exactly, color=BLACK, linewidth=1, linestyle="--", label="closed form")
    ax.set(xscale="log", xlim=(10, num_draws), title=f"KL({name}) = {exactly:.3f}", xlabel="draws")
    ax.set_ylim(exactly - 4 * error[100], exactly + 4 * error[100])
axes[0].set_ylabel("nats")
axes[0].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# The band is two standard errors. The two directions are different numbers: KL is no distance.
#
# ## Forward or reverse: cover the mass, or seek a mode
#
# When $q$ cannot be $p$, the direction decides what $q$ becomes. Let $p$ have two modes, and $q$ be
# one Gaussian with full covariance.
#
# - $\mathrm{KL}(p \,\|\, q) = \mathbb{E}_p[\log p - \log q]$ punishes $q$ for being small where $p$
#   is not: $q$ must **cover** everything. The optimum has the mean and covariance of $p$.
# - $\mathrm{KL}(q \,\|\, p) = \mathbb{E}_q[\log q - \log p]$ punishes $q$ for being where $p$ is
#   not: $q$ **seeks a mode**. Which one depends on where it starts. This is the direction of the
#   ELBO, because it takes expectations under $q$, from which we can draw.

# %%
place = torch.tensor([[-1.6, -0.8], [1.6, 0.9]])
shape = torch.tensor([[[0.5, 0.3], [0.3, 0.5]], [[0.6, -0.3], [-0.3, 0.4]]])
p = MixtureSameFamily(Categorical(torch.tensor([[0.45, 0.55]])),
                      MultivariateNormal(place[None], shape[None]))  # fmt: skip


def seek_mode(start, steps):
    """Descend KL(q || p) by its reparameterised gradient."""
    middle = torch.tensor([start]).requires_grad_()
    root = torch.eye(2)[None].clone().requires_grad_()
    optimizer = torch.optim.Adam([middle, root], lr=0.02)
    for _ in range(steps):
        q = MultivariateNormal(middle, scale_tril=root.tril())
        optimizer.zero_grad()
        kl(Latent(posterior=q, prior=p, sample=q.rsample((64,)))).mean().backward()
        optimizer.step()
    return MultivariateNormal(middle.detach(), scale_tril=root.detach().tril())


sample = p.sample((100000,))[:, 0]
answers = {
    "least KL(p || q)": MultivariateNormal(sample.mean(0)[None], torch.cov(sample.T)[None]),
    "KL(q || p) from the left": seek_mode([-1.0, 0.0], 100 if small else 500),
    "KL(q || p) from the right": seek_mode([1.0, 0.0], 100 if small else 500),
}
x, y = torch.linspace(-4.5, 4.5, 200), torch.linspace(-3.5, 3.5, 160)
points = torch.cartesian_prod(x, y)
density = p.log_prob(points[:, None]).exp().reshape(200, 160).T
figure, axes = plt.subplots(1, 3, figsize=(8, 2.5), sharey=True, layout="constrained")
for ax, (name, q), color in zip(axes, answers.items(), (RED, BLUE, BLUE), strict=True):
    ax.contourf(x, y, density, levels=12, cmap="Greys")
    heights = q.log_prob(points[:, None]).exp().reshape(200, 160).T
    ax.contour(x, y, heights, levels=5, colors=color, linewidths=1.2)
    forward, reverse = (
        float(log_ratio(Latent(posterior=one, prior=other, sample=one.sample((20000,)))).mean())
        for one, other in ((p, q), (q, p))
    )
    ax.set(title=f"{name}\nKL(p || q) = {forward:.2f}, KL(q || p) = {reverse:.2f}")
    ax.title.set_fontsize(8)
plt.show()

# %% [markdown]
# Grey is $p$, the lines are $q$. The forward answer puts its peak where there is next to nothing.
# Each reverse answer is an honest account of one mode and does not know of the other; it has lost
# no more than about $-\log$ of the share of its mode, $-\log 0.45 = 0.80$ and $-\log 0.55 = 0.60$
# nats.
#
# ## A tighter bound from the same posterior
#
# The ELBO takes the logarithm of one weight and averages. The **importance-weighted** bound (Burda
# et al. 2016) first averages $K$ weights, then takes the logarithm:
#
# $$ \mathcal{L}_K = \mathbb{E}\left[\log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k)}\right],
#    \qquad \mathrm{ELBO} = \mathcal{L}_1 \le \mathcal{L}_2 \le \dots \le \log p(x). $$
#
# The same draws are taken one by one, in pairs, in fours, ... Because the logarithm is concave, the
# mean over larger groups *of the same draws* can only rise, and no tolerance is needed to say so.

# %%
num_draws = 2**10 if small else 2**16
sizes = [2**i for i in range(11)]
figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for (name, posterior), color in zip(posteriors.items(), (GREY, RED, BLUE, GREEN), strict=True):
    draws = model.answer({"latent": posterior.expand((1, 1))}, batch[:1], num_draws)
    sample = draws.latents["latent"].sample
    path = []
    for size in sizes:
        # a group is a trial of its own with `size` samples
        groups = sample.reshape(num_draws // size, size, 1, 2).transpose(0, 1)
        latent = draws.latents["latent"]._replace(sample=groups)
        output = replace(draws, latents={"latent": latent}, emission=model.decode(groups))
        path.append(float(importance_weighted_bound(output, batch[[0] * groups.shape[1]]).mean()))
    assert (np.diff(path) > -1e-9).all()
    lost = float(log_evidence[0]) - np.array(path)
    print(f"{name:16} loses {lost[0]:6.3f} nats with K = 1, {lost[-1]:6.3f} with K = {sizes[-1]}")
    if name != "full covariance":
        ax.plot(sizes, lost, "-o", color=color, markersize=3, label=name)
ax.set(yscale="log", xlabel="K", ylabel="log p(x) - bound (nats)")
ax.set_xscale("log", base=2)
ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# From the true posterior one draw suffices. And there is a lesson in the other three: the mean
# field has the best ELBO of them, but with many draws the broad posterior overtakes it, and at last
# even the prior, which knows nothing of the data. The mean field is too narrow: it hardly ever
# draws from the ends of the truth, and when it does the weight is huge, so that the mean of the
# weights settles slowly. For weights, too broad is better than too narrow. (That the prior does so
# well is a matter of two dimensions; the draws it needs grow exponentially with the KL.)
#
# Every `evaluate` reports both numbers, `elbo` and `iwae`: if they are far apart, the posterior is
# not to be trusted.
