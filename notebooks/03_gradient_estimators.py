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
# # Two ways to a gradient
#
# The bound is an expectation under the posterior, $\mathbb{E}_{q_\phi(z)}[F(z)]$ with
# $F(z) = \log p(x \mid z) + \log p(z) - \log q_\phi(z)$. To raise it one needs its gradient with
# respect to $\phi$, which sits in the very distribution that is averaged over. There are two ways:
#
# - **Reparameterise.** Write the sample as a function of noise that does not depend on $\phi$, for
#   a Gaussian $z = \mu_\phi + \sigma_\phi\, \varepsilon$, and differentiate through it:
#   $\nabla_\phi\, \mathbb{E}_q[F] = \mathbb{E}_\varepsilon[\nabla_\phi F(\mu_\phi + \sigma_\phi
#   \varepsilon)]$. It needs a continuous $z$ and a decoder that can be differentiated.
# - **Score function** (REINFORCE, black-box variational inference). Because $\nabla q = q \nabla
#   \log q$, it is $\nabla_\phi\, \mathbb{E}_q[F] = \mathbb{E}_q[F(z)\, \nabla_\phi \log
#   q_\phi(z)]$. On the way to $\phi$ the decoder is only evaluated, never differentiated: any $z$
#   will do, also a discrete one.
#
# Both are unbiased. They differ in variance, and that decides what can be learned in reasonable
# time. In the score function a **baseline** $b$ may be subtracted from $F$, because
# $\mathbb{E}_q[b\, \nabla \log q] = 0$. A good one is the mean of $F$ over the *other* samples of
# the same trial ("leave one out"): it costs nothing and does not depend on the sample it is
# compared with, so it adds no bias.

# %%
import os
import tempfile
import warnings
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.distributions import Bernoulli as Coin
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from seqvae import VAE, GradientLearner, InputError, NeuralData, evaluate, fit
from seqvae.analysis import measure_gradient_noise
from seqvae.data.sources import Arrays, Digits
from seqvae.encoders import MLP, Head
from seqvae.objectives import Objective, training_loss
from seqvae.observations import Bernoulli, Gaussian, Poisson
from seqvae.priors import Prior

warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
small = "SEQVAE_SMALL" in os.environ  # the tests run a reduced version
scratch = tempfile.mkdtemp()
torch.set_num_threads(1)  # faster for models of this size
COLORS = {"reparameterised": "#0072B2", "leave one out": "#009E73", "no baseline": "#D55E00"}

# %% [markdown]
# ## One parameter, many estimates
#
# A small VAE of spike counts, and the gradient of its loss by one bias of the encoder, estimated
# again and again from eight posterior samples. The estimator is a setting of `Objective`.


# %%
def estimators(num_samples):
    base = Objective(beta_steps=0, num_samples=num_samples)
    score = replace(base, gradient="score_function")
    return {
        "reparameterised": base,
        "leave one out": score,
        "no baseline": replace(score, baseline="none"),
    }


def small_vae(observation):
    counts = np.random.default_rng(0).poisson(1.0, (8, 5, 6)).astype(float)
    data = NeuralData(Arrays(counts, bin_width=0.02), val_fraction=0.0)
    torch.manual_seed(0)
    model = VAE(data.spec, latent_dim=2, factor_dim=8, dropout=0.0,
                encoder=partial(MLP, hidden_dims=(8,)), observation=observation)  # fmt: skip
    model.initialize(data)
    return model.eval(), data.batch(data.trials("train"))


model, batch = small_vae(Poisson)
bias = model.encoder.head.linear.bias  # of the mean of each latent, then of its spread
estimates = {}
for name, objective in estimators(8).items():
    model.objective = objective
    estimates[name] = np.array([
        float(torch.autograd.grad(
            training_loss(objective, model(batch, 8), batch, step=0).value, bias
        )[0][0])
        for _ in range(100 if small else 2000)
    ])  # fmt: skip

figure, axes = plt.subplots(3, 1, figsize=(6, 3.8), sharex=True, layout="constrained")
reach = 3.5 * estimates["no baseline"].std()
middle = estimates["reparameterised"].mean()
for ax, (name, values) in zip(axes, estimates.items(), strict=True):
    ax.hist(values, bins=np.linspace(middle - reach, middle + reach, 181), color=COLORS[name])
    ax.axvline(middle, color="#222222", linewidth=0.8, linestyle="--")
    ax.set_yticks([])
    ax.set_title(f"{name}: {values.mean():.3f} +- {values.std() / len(values) ** 0.5:.3f}, "
                 f"standard deviation {values.std():.3f}", fontsize=9)  # fmt: skip
axes[-1].set_xlabel("estimate of one derivative (nats)")
plt.show()

# %% [markdown]
# All three are centred at the same value (the dashed line is the mean of the first). But a single
# estimate without a baseline says next to nothing: the sign is a toss of a coin.
#
# ## Bias and variance, measured
#
# `measure_gradient_noise` does this for all parameters at once, against the mean of many
# reparameterised gradients with 100 samples. `bias / error` is the distance of the means in units
# of what it would be without bias, so about 1; `within` is the share of the parameters whose mean
# is within three standard errors of the reference, expected 0.997.

# %%
numbers = (2, 8, 32)
variance = {}
print(f"{'decoder':10}{'estimator':17}{'samples':>7}{'bias / error':>14}{'within':>8}"
      f"{'variance':>11}{'ratio':>9}")  # fmt: skip
for observation in (Gaussian, Poisson):
    model, batch = small_vae(observation)
    for num_samples in numbers:
        rows = measure_gradient_noise(
            model,
            batch,
            estimators(num_samples),
            num_repeats=50 if small else 1000,
            reference_repeats=50 if small else 1000,
            parameters=model.encoder.parameters(),
        )
        for row in rows:
            variance[observation.__name__, row.name, num_samples] = row.variance
            print(f"{observation.__name__:10}{row.name:17}{num_samples:7}"
                  f"{row.bias / row.standard_error:14.2f}{row.within_three_errors:8.3f}"
                  f"{row.variance:11.3g}{row.variance / rows[0].variance:9.1f}")  # fmt: skip

figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), sharey=True, layout="constrained")
for ax, kind in zip(axes, ("Gaussian", "Poisson"), strict=True):
    for name, color in COLORS.items():
        ax.plot(numbers, [variance[kind, name, n] for n in numbers], "-o", color=color, label=name)
    ax.set(xscale="log", yscale="log", xlabel="posterior samples", title=f"{kind} decoder")
    ax.set_xticks(numbers, numbers)
    ax.minorticks_off()
axes[0].set_ylabel("variance of the gradient")
axes[1].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# The estimators agree in the mean. The variance of the score function is some twenty to forty times
# that of the reparameterised gradient with the baseline, and tens of thousands of times without.
# All fall as one over the number of samples, that with the baseline at first a little faster,
# because more samples also make a better baseline.
#
# ## A discrete latent
#
# No sample of a coin can be differentiated. The score function does not mind. To show it, here is a
# new kind of posterior and of prior, written against the framework's families in some lines each,
# and a VAE whose decoder passes the latent on to a linear readout. Everything else stays as it is.
#
# The data: 30 neurons in five *assemblies*. In each bin each assembly is on with probability 1/4,
# and then its neurons fire ten times as much. Five bits should find the assemblies.


# %%
class BitsHead(Head):
    """q(z | x): a coin for each bit."""

    def __init__(self, feature_dim, latent_dim):
        super().__init__()
        self.linear = nn.Linear(feature_dim, latent_dim)

    def forward(self, features):
        return Coin(logits=self.linear(features), validate_args=False)


class Coins(Prior):
    """p(z): each bit is on with probability 1/4."""

    def __init__(self, latent_dim):
        super().__init__()

    def forward(self, event_shape, bin_width=None):
        return Coin(torch.full(event_shape, 0.25), validate_args=False)


class LinearVAE(VAE):
    """The readout sees the latent itself, and at the start every bit excites every neuron."""

    def __init__(self, spec, *, latent_dim, **options):
        super().__init__(spec, latent_dim=latent_dim, factor_dim=latent_dim, **options)
        self.decoder = nn.Identity()
        with torch.no_grad():
            self.observation.readout.weight.abs_()


generator = np.random.default_rng(0)
membership = np.repeat(np.eye(5), 6, axis=0)
membership[generator.random(membership.shape) < 0.05] = 0.5  # some neurons are half in
is_on = generator.random((2000, 5)) < 0.25
counts = generator.poisson(0.3 + 2.7 * is_on @ membership.T).astype(float)
assemblies = NeuralData(Arrays(counts[:, None], bin_width=0.1), batch_size=100)


def learner(num_epochs):
    trainer = partial(Trainer, max_epochs=num_epochs, check_val_every_n_epoch=2, accelerator="cpu")
    return GradientLearner(trainer, patience=None, progress=False)


num_epochs = 5 if small else 60
bits_vae = partial(
    LinearVAE,
    latent_dim=5,
    dropout=0.0,
    encoder=partial(MLP, hidden_dims=(64,), head=BitsHead),
    prior=Coins,
    optimizer=partial(Adam, lr=2e-2),
    schedule=partial(CosineAnnealingLR, T_max=num_epochs),
)
try:
    fit(assemblies, partial(bits_vae, objective=Objective()), learner(1),
        run_dir=f"{scratch}/refused")  # fmt: skip
except InputError as error:
    print("refused:", error)
run = fit(
    assemblies,
    partial(bits_vae, objective=Objective(num_samples=16, gradient="score_function")),
    learner(num_epochs),
    run_dir=f"{scratch}/bits",
)

# %% [markdown]
# What has each bit come to mean? The factor by which it multiplies each neuron's rate (bits sorted
# by their assembly), beside the truth; and in new trials the probability that the encoder gives to
# each bit, beside what was really on.

# %%
model = run.model()
new = assemblies.trials("val")[:60]
with torch.no_grad():
    factor = model.observation.readout.weight.exp().numpy()
    probability = model.encode(assemblies.batch(new))["latent"].mean[:, 0].numpy()
order = np.argsort(factor.reshape(5, 6, 5).mean(1).argmax(0))

figure = plt.figure(figsize=(7.4, 3.6), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1, 2))
for ax, picture, title in zip(
    left.subplots(1, 2, sharey=True), (1 + 9 * membership, factor[:, order]), ("truth", "learned"),
    strict=True,
):  # fmt: skip
    shown = ax.imshow(picture, aspect="auto", cmap="Blues", vmin=1, vmax=10)
    ax.set(title=title, xticks=range(5))
    ax.set_xlabel("assembly" if title == "truth" else "bit")
left.axes[0].set_ylabel("neuron")
left.colorbar(shown, ax=left.axes, label="rate is multiplied by", location="bottom")
axes = right.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
for ax, picture, title in zip(
    axes, (counts[new], is_on[new], probability[:, order]),
    ("counts of new trials", "assemblies that are on", "q(bit = 1 | counts)"), strict=True,
):  # fmt: skip
    ax.imshow(picture.T, aspect="auto", cmap="Greys", interpolation="nearest")
    ax.set_title(title, fontsize=9)
for ax in axes[1:]:
    ax.set_yticks(range(0, 5, 2))
axes[-1].set_xlabel("trial")
plt.show()
# %% [markdown]
# Trained by the score function alone, the bits are the assemblies, and the posterior of new trials
# is nearly always right and sure of it. (It need not be: with another start two bits may share
# two assemblies in another way, a local optimum, whatever the gradient.)
#
# ## REINFORCE alone trains a VAE
#
# Handwritten digits of 8 x 8 pixels, a latent plane, 16 posterior samples for each picture and
# step. The three runs differ in the estimator alone: same start, same batches, same number of
# samples. The curves are the bound on pictures that were not learned from.

# %%
num_epochs = 6 if small else 150
digits = NeuralData(Digits(), batch_size=128)
curves, final = {}, {}
for name, objective in estimators(16).items():
    model = partial(
        VAE,
        latent_dim=2,
        decoder_dims=(32,),
        factor_dim=64,
        dropout=0.0,
        encoder=partial(MLP, hidden_dims=(64,)),
        observation=Bernoulli,
        objective=objective,
        optimizer=partial(Adam, lr=3e-3),
        schedule=partial(CosineAnnealingLR, T_max=num_epochs),
    )
    run = fit(digits, model, learner(num_epochs), run_dir=f"{scratch}/{name}")
    curves[name] = pd.read_csv(run.files.history).dropna(subset=["val/elbo"])
    final[name] = {split: evaluate(run, split=split)["elbo"] for split in ("train", "val")}

figure, ax = plt.subplots(figsize=(5.5, 3), layout="constrained")
for name, curve in curves.items():
    ax.plot(curve["epoch"], curve["val/elbo"], color=COLORS[name], label=name)
ax.set(xlabel="epoch", ylabel="bound (nats per picture)", ylim=(-26, None))
ax.legend(frameon=False, fontsize=8)
plt.show()
best = final["reparameterised"]
print(f"{'':17}{'learned':>9}{'new':>9}{'new, against reparameterised':>31}")
for name, found in final.items():
    percent = 100 * (found["val"] - best["val"]) / abs(best["val"])
    print(f"{name:17}{found['train']:9.2f}{found['val']:9.2f}{percent:29.1f} %")

# %% [markdown]
# With the baseline the score function climbs as fast as the reparameterised gradient and ends
# within 2 % of its bound; the sixteen samples average its noise away, and the small rest is a
# matter of the random numbers. Without a baseline it takes several times as many steps. All three
# see the same decoder gradient, which needs neither trick: only the encoder's differs.
#
# **When to use which.** A continuous latent and a decoder that can be differentiated:
# reparameterise, one sample is enough. A discrete latent, or a simulator for a decoder: the score
# function, with its baseline and as many samples as are affordable.
