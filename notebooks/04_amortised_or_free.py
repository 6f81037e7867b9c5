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
# # Amortised or free?
#
# The bound wants a good posterior $q(z)$ for every trial. There are three ways to get one:
#
# - **free**: every trial has a mean and a covariance of its own, found by climbing its bound (mean
#   field variational inference, the encoder `FreeGaussian`). The best of its family, but a new
#   trial starts from nothing.
# - **amortised**: a network reads the trial and answers at once, $q_\phi(z \mid x)$. Its weights
#   are shared by all trials, which is what makes it fast, and what makes it worse for each one.
# - **semi-amortised**: the network answers, and some steps of climbing improve on it (`refine`).
#
# What is lost in all falls into parts (Cremer et al. 2018):
#
# $$ \log p(x) - \mathrm{ELBO}(\text{encoder}) =
#    \underbrace{\log p(x) - \max_{q \in Q} \mathrm{ELBO}(q)}_{\text{of the family } Q} +
#    \underbrace{\max_{q \in Q} \mathrm{ELBO}(q) - \mathrm{ELBO}(\text{encoder})}_{
#    \text{amortisation gap}}. $$
#
# With pictures of digits and a latent *plane* all of it can be seen: a trial is one picture of
# 8 x 8 pixels, and the true posterior can be drawn. Spike trains go the same way.

# %%
import os
import tempfile
import warnings
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Ellipse
from pytorch_lightning import Trainer
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from seqvae import VAE, GradientLearner, NeuralData, evaluate, fit
from seqvae.analysis import refine
from seqvae.data.sources import Arrays, Digits
from seqvae.encoders import MLP, FreeGaussian
from seqvae.objectives import Objective
from seqvae.observations import Bernoulli

warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
small = "SEQVAE_SMALL" in os.environ  # the tests run a reduced version
scratch = tempfile.mkdtemp()
torch.set_num_threads(1)  # faster for models of this size
BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8A8A8A"


def pictures(num_train=None):
    """The digits, the same 359 to validate, and as many to learn from."""
    everything = NeuralData(Digits())
    everything.setup()
    kept = everything.trials("train")[:num_train]
    trials = np.concatenate([kept, everything.trials("val")])
    split = np.repeat(["train", "val"], [len(kept), len(trials) - len(kept)])
    return NeuralData(Arrays(everything.recording.select(trials), split=split), batch_size=128)


def vae(encoder, *, num_epochs, learning_rate=3e-3):
    return partial(
        VAE,
        latent_dim=2,
        decoder_dims=(32,),
        factor_dim=64,
        dropout=0.0,
        encoder=encoder,
        observation=Bernoulli,
        objective=Objective(num_samples=4),
        optimizer=partial(Adam, lr=learning_rate),
        schedule=partial(CosineAnnealingLR, T_max=num_epochs),
    )


def learner(num_epochs, **options):
    trainer = partial(Trainer, max_epochs=num_epochs, check_val_every_n_epoch=2, accelerator="cpu",
                      **options)  # fmt: skip
    return GradientLearner(trainer, patience=None, progress=False)


num_epochs = 2 if small else 120
data = pictures()
network = partial(MLP, hidden_dims=(64,))
run = fit(data, vae(network, num_epochs=num_epochs), learner(num_epochs), run_dir=f"{scratch}/mlp")
model = run.model()
batch = data.batch(data.trials("val"))

# %% [markdown]
# ## The truth, and three approximations
#
# The posterior over the plane is computed on a grid: prior times likelihood, divided by their sum,
# and the sum is the evidence. Three Gaussians are compared with it, all for the *same* decoder: the
# encoder's answer, the same answer refined (diagonal covariance), and a free posterior with full
# covariance. The last is a second model with the same decoder and `FreeGaussian` for an encoder.

# %%
steps = 20 if small else 400
by_steps = {"diagonal": refine(model, batch, num_steps=steps, score_samples=500)}

full = vae(partial(FreeGaussian, covariance="full"), num_epochs=1)(data.spec)
full.initialize(data)
full.decoder, full.observation = model.decoder, model.observation
with torch.no_grad():  # begin where the diagonal one has ended
    best = by_steps["diagonal"].encoding["latent"]
    full.encoder.mean[batch.trial] = best.mean
    full.encoder.log_root[batch.trial] = torch.diag_embed(best.stddev.log())
by_steps["full"] = refine(full, batch, num_steps=steps, score_samples=500)

with torch.no_grad():
    axis = torch.linspace(-4.5, 4.5, 181)
    plane = torch.cartesian_prod(axis, axis)
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(plane).sum(1)
    pixels = model.decode(plane)
    log_joint = torch.stack([pixels.log_prob(image).sum(1) for image in batch.target[:, 0]])
    log_joint = log_joint + log_prior
    log_evidence = torch.logsumexp(log_joint, 1) + 2 * torch.log(axis[1] - axis[0])
    encoded = model.encode(batch)["latent"]

gap = by_steps["diagonal"].amortisation_gap


def ellipse(ax, mean, covariance, color, label):
    """Outline of the region that holds 90 % of a Gaussian."""
    size, axes = torch.linalg.eigh(covariance)
    width, height = (2 * (size * -2 * np.log(0.1)).sqrt()).tolist()
    angle = float(torch.rad2deg(torch.atan2(axes[1, 0], axes[0, 0])))
    ax.add_patch(Ellipse(mean.tolist(), width, height, angle=angle, fill=False, color=color,
                         linewidth=1.6, label=label))  # fmt: skip


order = torch.argsort(gap)
shown = order[[20, 100, 180, 260, 330, -1]].tolist()
figure = plt.figure(figsize=(8, 5.6), layout="constrained")
for place, (ax, i) in enumerate(zip(figure.subplots(2, 3).flat, shown, strict=True)):
    mass = (log_joint[i] - log_joint[i].max()).exp().reshape(181, 181).T
    ax.contourf(axis, axis, mass, levels=np.linspace(0.02, 1, 10), cmap="Greys")
    ellipse(ax, encoded.mean[i, 0], torch.diag(encoded.variance[i, 0]), RED, "encoder")
    for kind, color, label in (("diagonal", BLUE, "refined"), ("full", GREEN, "full covariance")):
        q = by_steps[kind].encoding["latent"]
        covariance = torch.diag_embed(q.variance) if kind == "diagonal" else q.covariance_matrix
        ellipse(ax, q.mean[i, 0].detach(), covariance[i, 0].detach(), color, label)
    middle = encoded.mean[i, 0]
    ax.set(xlim=(middle[0] - 1.6, middle[0] + 1.6), ylim=(middle[1] - 1.2, middle[1] + 1.2))
    ax.set_title(f"gap {gap[i]:.2f} nats", fontsize=9)
    inset = ax.inset_axes([0.0, 0.68, 0.24, 0.32])
    inset.imshow(batch.target[i, 0].reshape(8, 8), cmap="gray")
    inset.set(xticks=[], yticks=[])
    if place == 0:
        handles = ax.get_legend_handles_labels()
figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
plt.show()

# %% [markdown]
# Grey is the truth, each line holds 90 % of a Gaussian, the pictures are sorted by their gap. For
# most of them the encoder is about right. Where it is not, it has the *place* wrong, by more than
# its own width: a picture unlike those it has learned from. Climbing puts that right. What is
# left, a tilt or a tail, is the family's, and full covariance gains a part of it.
#
# ## The account
#
# Averaged over the 359 pictures that nothing was learned from:

# %%
levels = {
    "log p(x), by the grid": log_evidence,
    "full covariance, free": by_steps["full"].elbo,
    "diagonal, refined": by_steps["diagonal"].elbo,
    "encoder": by_steps["diagonal"].amortised_elbo,
}
last = log_evidence
for name, level in levels.items():
    print(f"{name:24}{level.mean():9.3f} nats, {(last - level).mean():6.3f} below the last")
    last = level
assert (gap >= 0).all()

counts = (0, 5, 10, 20, 50, 100, 200, 400)[: 4 if small else None]
free = vae(FreeGaussian, num_epochs=1)(data.spec)
free.initialize(data)
free.decoder, free.observation = model.decoder, model.observation
figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.9), layout="constrained")
axes[0].hist(gap.numpy(), bins=np.linspace(0, np.quantile(gap, 0.99), 40), color=BLUE)
axes[0].set(xlabel="amortisation gap (nats)", ylabel="pictures")
for start, color, name in ((model, BLUE, "encoder"), (free, GREY, "prior")):
    path = []
    for count in counts:
        found = refine(start, batch, num_steps=max(count, 1), score_samples=200)
        path.append(float((found.elbo if count else found.amortised_elbo).mean()))
    axes[1].plot(counts, path, "-o", color=color, markersize=3, label=f"from the {name}")
axes[1].axhline(float(log_evidence.mean()), color="#222222", linestyle="--", linewidth=1,
                label="log p(x)")  # fmt: skip
axes[1].set(xscale="symlog", xlabel="steps of climbing", ylabel="bound (nats)")
axes[1].set_xlim(0)
axes[1].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Most that is lost here is lost by amortisation, in few pictures: the gap has a long tail. The
# family loses little. From the encoder's answer some fifty steps regain most of the gap; from the
# prior the same posterior takes several hundred. (In `refine` a trial keeps its first answer where
# the climb ends no higher by the same noise, so the gap is never negative.)
#
# ## How much data the encoder needs
#
# An encoder has to be learned, and what it learned has to carry over to new trials. Three models,
# learned from 50, 200 and all 1438 pictures, with an encoder or with free posteriors; scored on
# the pictures that were learned from, and on the 359 new ones, as answered and as refined.
# `evaluate(run, refine_steps=200)`, on the command line `seqvae evaluate --refine_steps 200`, does
# the refining and adds `elbo_refined` and `amortisation_gap` to its table.

# %%
sizes = (50, 200) if small else (50, 200, 1438)
names = ("encoder", "encoder, refined", "free, refined")
new, learned = {name: [] for name in names}, {name: [] for name in names[::2]}
for size in sizes:
    some = pictures(size)
    epochs = num_epochs if small else min(1000, num_epochs * 1438 // size)
    amortised = fit(some, vae(network, num_epochs=epochs), learner(epochs),
                    run_dir=f"{scratch}/mlp{size}")  # fmt: skip
    epochs = 2 if small else 400
    unamortised = fit(
        some, vae(FreeGaussian, num_epochs=epochs, learning_rate=1e-2),
        learner(epochs, limit_val_batches=0), run_dir=f"{scratch}/free{size}",
    )  # fmt: skip
    scores = {
        name: evaluate(found, split="val", refine_steps=20 if small else 400)
        for name, found in (("encoder", amortised), ("free", unamortised))
    }
    new["encoder"].append(scores["encoder"]["elbo"])
    new["encoder, refined"].append(scores["encoder"]["elbo_refined"])
    new["free, refined"].append(scores["free"]["elbo_refined"])
    learned["encoder"].append(evaluate(amortised, split="train")["elbo"])
    learned["free, refined"].append(evaluate(unamortised, split="train")["elbo"])

print(f"{'bound on new pictures (nats), learned from':44}" + "".join(f"{n:9}" for n in sizes))
for name in names:
    print(f"{name:44}" + "".join(f"{value:9.2f}" for value in new[name]))
figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.9), sharey=True, layout="constrained")
for ax, table, title in zip(axes, (learned, new), ("pictures learned from", "new pictures"),
                            strict=True):  # fmt: skip
    for name, values in table.items():
        color = {"encoder": RED, "encoder, refined": BLUE, "free, refined": GREY}[name]
        ax.plot(sizes, values, "-o", color=color, markersize=4, label=name)
    ax.set(xscale="log", xlabel="pictures to learn from", title=title)
    ax.set_xticks(sizes, sizes)
    ax.minorticks_off()
axes[0].set_ylabel("bound (nats)")
axes[1].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# - On the pictures that were learned from, free posteriors with few data are far better, and it is
#   deceptive: every one of them belongs to a picture that the decoder has learned by heart. (The
#   encoder's model keeps the weights that were best on the new pictures, which a free posterior
#   knows nothing of, so it stops in time.)
# - On new pictures refining always gains, and most for models learned from few: their encoder does
#   not carry over well.
# - With much data the encoder makes the better *model*, even when all posteriors are refined in the
#   end. All pictures teach one network, whereas a free posterior moves only when its own picture
#   comes by. Here the free one of all pictures even *collapsed*, as the warning says: while codes
#   move that slowly, a decoder that ignores them does best, and then nothing moves them any more.
#   (Other random numbers spare it, and it ends 0.6 nats below the encoder.)
#
# ## When to prefer which
#
# - **Amortised**, the default: many trials, new trials to come, answers at once.
# - **Semi-amortised**, `refine_steps`: when a number depends on the posterior of single trials, a
#   new session differs from the old, or to learn how far the encoder is off. It costs some hundred
#   steps for each batch of trials and never lowers the bound that it reports.
# - **Free**: few trials, a decoder that is known or simple, no new trials; or as the yardstick of
#   the other two. Score it on new trials only.
