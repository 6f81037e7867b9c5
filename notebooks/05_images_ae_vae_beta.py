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
# # Autoencoder, VAE, beta-VAE: one model, one setting
#
# All of them squeeze a picture through a few numbers and rebuild it. They differ in what they ask
# of these numbers. The loss is
#
# $$ -\,\mathbb{E}_{q(z \mid x)}[\log p(x \mid z)] + \beta\, \mathrm{KL}\big(q(z \mid x) \,\|\,
#    p(z)\big). $$
#
# - **Autoencoder**: $q$ is a point, there is no KL. The pictures are rebuilt as well as possible,
#   and nothing says where in the latent space they lie.
# - $\beta = 0$: a point in all but name. There is noise, and nothing that keeps it from vanishing.
# - **VAE**, $\beta = 1$: minus the loss is a lower bound on $\log p(x)$. The only $\beta$ for which
#   the model is fitted as a model *of the data*.
# - **beta-VAE**, $\beta > 1$: each nat of information about the picture costs more than it is worth
#   in likelihood. The code is coarser and closer to the prior.
#
# Pictures: handwritten digits of 8 x 8 black or white pixels, 1438 to learn from and 359 new ones.
# The decoder is 2-64-256-64, the latent a plane, so that everything can be looked at.

# %%
import os
import tempfile
import warnings
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from pytorch_lightning import Trainer
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from seqvae import VAE, GradientLearner, NeuralData, evaluate, fit, infer
from seqvae.data.sources import Digits
from seqvae.encoders import MLP, DeltaHead
from seqvae.objectives import Objective, bound
from seqvae.observations import Bernoulli
from seqvae.plotting import (
    aggregate_posterior,
    image_grid,
    image_manifold,
    latent_scatter,
    reconstructions,
)

warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
small = "SEQVAE_SMALL" in os.environ  # the tests run a reduced version
scratch = tempfile.mkdtemp()
torch.set_num_threads(1)  # faster for models of this size

data = NeuralData(Digits(), batch_size=128)
data.setup()
new = data.trials("val")
pixels = data.recording.activity[new][:, 0]
num_epochs = 1 if small else 80

figure, axes = plt.subplots(1, 12, figsize=(7, 0.8), layout="constrained")
for ax, image, digit in zip(axes, pixels, data.recording.condition[new], strict=False):
    ax.imshow(image.reshape(8, 8), cmap="gray")
    ax.set(xticks=[], yticks=[])
    ax.set_title(int(digit), fontsize=8)
plt.show()


# %%
def train(name, objective, *, head=None, seed=0):
    encoder = partial(MLP, hidden_dims=(64,))
    model = partial(
        VAE,
        latent_dim=2,
        decoder_dims=(64,),
        factor_dim=256,
        dropout=0.0,
        encoder=encoder if head is None else partial(encoder, head=head),
        observation=Bernoulli,
        objective=objective,
        optimizer=partial(Adam, lr=3e-3),
        schedule=partial(CosineAnnealingLR, T_max=num_epochs),
    )
    # no validation, which would pick the weights of the best bound: here all learn equally long
    trainer = partial(Trainer, max_epochs=num_epochs, limit_val_batches=0, accelerator="cpu")
    learner = GradientLearner(trainer, select="val/log_likelihood", patience=None, progress=False)
    return fit(data, model, learner, seed=seed, run_dir=f"{scratch}/{name}_{seed}")


# %% [markdown]
# ## The variational autoencoder
#
# First $\beta = 1$. What it makes of new pictures:

# %%
vae = train("vae", Objective())
answered = infer(vae, split="val")
reconstructions(pixels, answered["mean"].values[:, 0], image_shape=(8, 8))

# %% [markdown]
# The latent plane: every new picture is put where the mean of its posterior lies, coloured by its
# digit. The model was never told the digits.

# %%
latent_scatter(answered["latent_mean"].values[:, 0], labels=data.recording.condition[new])

# %% [markdown]
# The same plane, decoded: the **manifold** of pictures. The grid is that of the prior's quantiles,
# so that each picture stands for the same share of what the model thinks there is.

# %%
model = vae.model()
side = torch.special.ndtri(torch.linspace(0.02, 0.98, 12))
second, first = torch.meshgrid(side, side, indexing="ij")
with torch.no_grad():
    manifold = model.decode(torch.stack([first, second], dim=-1)).mean.reshape(12, 12, 8, 8)
image_manifold(manifold.numpy(), first=side.numpy(), second=side.numpy())

# %% [markdown]
# New pictures from nothing: draw $z$ from the prior and decode it (the probability of each pixel).

# %%
torch.manual_seed(0)
with torch.no_grad():
    drawn = model.sample(45).emission.mean[0, :, 0].reshape(45, 8, 8)
image_grid(drawn.numpy(), columns=15)

# %% [markdown]
# That works as far as the codes of real pictures fill the prior. The **aggregate posterior**, the
# average of $q(z \mid x)$ over the pictures, should be the prior:

# %%
batch = data.batch(new)
with torch.no_grad():
    codes = model(batch, 100).latents["latent"].sample[:, :, 0]
aggregate_posterior(codes.numpy(), prior_mean=np.zeros(2), prior_sd=np.ones(2))

# %% [markdown]
# It nearly is: as wide as the prior, but with a peak in the middle, where the digits 3, 5, 8 and 9
# lie on top of one another, and with islands at the rim, one for each digit that keeps to itself.
#
# ## The weight of the KL
#
# Now the autoencoder and $\beta \in \{0, 0.5, 1, 4\}$: the same network, data and steps. Four
# numbers for each, on new pictures, and all in nats per picture but the last:
#
# - **error**: $-\mathbb{E}_q[\log p(x \mid z)]$, of learned and of new pictures;
# - **KL** to the prior: how much the code tells of the picture;
# - **log p(x)**: how good a model of the data. With a plane for a latent it is an integral over a
#   grid, $\log \int p(x \mid z)\, p(z)\, dz$, and needs no posterior;
# - **distance** of pictures drawn from the prior to real ones: the energy distance
#   $2\, \mathbb{E}|x - y| - \mathbb{E}|x - x'| - \mathbb{E}|y - y'|$, zero for equal distributions.


# %%
def energy_distance(one, other):
    """Distance of two distributions, from samples of each [Szekely & Rizzo 2013]."""
    n, m = len(one), len(other)
    within = torch.cdist(one, one).sum() / (n * (n - 1))
    within = within + torch.cdist(other, other).sum() / (m * (m - 1))
    return float(2 * torch.cdist(one, other).mean() - within)


@torch.no_grad()
def log_evidence(model):
    """Mean log p(x) of the new pictures."""
    axis = torch.linspace(-6.0, 6.0, 41 if small else 161)
    plane = torch.cartesian_prod(axis, axis)
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(plane).sum(1)
    decoded = model.decode(plane)
    log_joint = [decoded.log_prob(image).sum(1) + log_prior for image in batch.target[:, 0]]
    return float(torch.logsumexp(torch.stack(log_joint), 1).mean() + 2 * (axis[1] - axis[0]).log())


settings = {
    "autoencoder": (Objective(beta=0.0, beta_steps=0), DeltaHead),
    "beta 0": (Objective(beta=0.0), None),
    "beta 0.5": (Objective(beta=0.5), None),
    "beta 1": (Objective(beta=1.0), None),
    "beta 4": (Objective(beta=4.0), None),
}
settings |= {
    "free bits": (Objective(free_bits=2.5), None),
    "KL target": (Objective(beta=10.0, kl_target=2.0), None),
}


def scores(run):
    model = run.model()
    found = evaluate(run, split="val", num_samples=20)
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = model.sample(1000).emission.sample()[0, :, 0]
        error = {
            split: -float(bound(model(part, 20), part).log_likelihood.mean())
            for split in ("train", "val")
            for part in [data.batch(data.trials(split))]
        }
    return {
        "error, learned": error["train"],
        "error, new": error["val"],
        "KL": found["kl/latent"],
        "log p(x)": log_evidence(model),
        "distance": energy_distance(drawn, batch.target[:, 0]),
    }


runs = {name: train(name, objective, head=head) for name, (objective, head) in settings.items()}
table = {name: scores(run) for name, run in runs.items()}
print(f"{'':12}" + "".join(f"{column:>16}" for column in table["beta 1"]))
for name, row in table.items():
    print(f"{name:12}" + "".join(f"{value:16.3f}" for value in row.values()))

# %% [markdown]
# A point has no density: the KL of the autoencoder is infinite, it counts as 0, and there is no
# bound. Its decoder with the prior is a model of the data all the same. (The last two rows are told
# of below.)

# %%
names = list(settings)[:5]
figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.4), layout="constrained")
panels = (("error, learned", "error, new"), ("KL",), ("log p(x)",), ("distance",))
for ax, columns in zip(axes, panels, strict=True):
    for column, color in zip(columns, ("#56B4E9", "#0072B2"), strict=False):
        values = [np.nan if name == "autoencoder" and column == "KL" else table[name][column]
                  for name in names]  # fmt: skip
        ax.plot(names, values, "-o", color=color, markersize=4, label=column.split(", ")[-1])
    ax.set_title(columns[0].split(",")[0], fontsize=9)
    ax.tick_params(axis="x", rotation=60, labelsize=8)
    ax.tick_params(axis="y", labelsize=8)
axes[0].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# And as a picture. Above: the codes of the new pictures, one draw from each posterior, coloured by
# digit, with the circles that hold 50 and 95 % of the prior. Middle: new pictures and, beneath
# them, what becomes of them. Below: pictures drawn from the prior.

# %%
figure, axes = plt.subplots(3, 5, figsize=(8.4, 5), layout="constrained",
                            height_ratios=(1.15, 0.33, 1))  # fmt: skip
labels = data.recording.condition[new]


def tile(images, columns):
    """Pictures side by side, a pixel apart."""
    spaced = np.pad(images.reshape(-1, columns, 8, 8), ((0, 0), (0, 0), (0, 1), (0, 1)),
                    constant_values=0.5)  # fmt: skip
    return spaced.transpose(0, 2, 1, 3).reshape(-1, columns * 9)


for (above, middle, below), name in zip(axes.T, names, strict=True):
    model = runs[name].model()
    torch.manual_seed(0)
    with torch.no_grad():
        output = model(batch)
        drawn = model.sample(25).emission.mean[0, :, 0].numpy()
    z = output.latents["latent"].sample[0, :, 0].numpy()
    rebuilt = output.emission.mean[0, :, 0].numpy()
    above.scatter(*z.T, c=labels, cmap="tab10", s=3)
    for radius in (1.18, 2.45):
        above.add_patch(plt.Circle((0, 0), radius, fill=False, color="#222222", linewidth=0.8))
    reach = max(3.0, np.abs(z).max())
    above.set(title=name, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    above.tick_params(labelsize=7)
    middle.imshow(
        tile(np.concatenate([pixels[:6], rebuilt[:6]]), 6), cmap="gray", interpolation="nearest"
    )
    below.imshow(tile(drawn, 5), cmap="gray", interpolation="nearest")
    for ax in (middle, below):
        ax.set_axis_off()
plt.show()

# %% [markdown]
# From left to right:
#
# - Rebuilding gets worse with $\beta$ and the code tells less, as the loss says. (The autoencoder
#   and $\beta = 0$ differ by chance only.)
# - Without a KL the codes spread far beyond the prior. So the prior draws from a small patch of the
#   plane, and only the digits that happen to lie there appear: samples are far from the data. A KL
#   of half its weight is enough to put the codes where the prior expects them.
# - The *bound* of new pictures, minus error minus KL, is highest at $\beta = 1$, which trains it.
#   $\log p(x)$ itself is as high at $\beta = 0.5$ (here even a little higher: the encoder is not
#   exact, and its errors weigh less there), and some three nats lower at 0 and at 4.
# - At $\beta = 4$ the plane tells hardly half a nat, and most digits are rebuilt as the same grey
#   mean. The samples suffer again: they lie where the prior is, and are blurred.
#
# ## Asking for an amount of KL
#
# Two other ways to set the trade, in the last rows of the table. **Free bits**: each dimension of
# the latent may cost so many nats at no charge (2.5 each here), so the model has no reason to use
# less. The **KL target** asks for an amount, here 2 nats, with $\beta\, |\mathrm{KL} - C|$ in place
# of $\beta\, \mathrm{KL}$. Both got what they asked for: compare the column KL with 5 and 2. Use
# them against a latent that is ignored, or to compare models at equal information.
#
# ## More than one draw: IWAE
#
# The importance-weighted bound (see `02_elbo_and_kl`) can be what is *trained*, too. With $K = 16$
# draws it forgives a posterior that is not quite right, so that the decoder need not be simple for
# the encoder's sake. Same network and steps, two seeds each; scored by $\log p(x)$ of new pictures.

# %%
print(f"{'':12}{'log p(x), new':>16}{'ELBO, new':>12}{'KL':>8}")
for seed in (0,) if small else (0, 1):
    for name, objective in (
        ("K = 1", Objective()),
        ("K = 16", Objective(bound="iwae", num_samples=16)),
    ):
        run = train(name, objective, seed=seed)
        found = evaluate(run, split="val", num_samples=100)
        print(f"{name + f', seed {seed}':16}{log_evidence(run.model()):12.2f}"
              f"{found['elbo']:12.2f}{found['kl/latent']:8.2f}")  # fmt: skip

# %% [markdown]
# A better model of the data for the same network. The ELBO of the same models is *lower*, and the
# KL too: with sixteen draws the posterior may be broad and rely on the best of its draws. Judge
# such a model by the bound that it was trained for.
#
# The same with MNIST: `NeuralData(Images("folder/with/mnist", threshold=0.5))` in place of the
# digits, or `seqvae fit --config configs/mnist_vae.yaml`, which leaves all these figures in the run
# folder.
