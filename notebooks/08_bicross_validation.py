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
# # How many latent dimensions do the data support?
#
# A model with more dimensions fits the data it has learned from better, always. So the question is
# put to data that it has *not* seen. But which? This notebook shows on one matrix why holding out
# rows does not answer it, three schemes that do, and how a dimension is chosen from their scores.
# Then the same is done for spike trains, with one call.

# %%
import os
import tempfile
import warnings

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from sklearn.datasets import load_wine

from seqvae import EM, NeuralData, crossvalidate
from seqvae.crossvalidation import choose, gabriel_errors
from seqvae.data.folds import entry_folds, neuron_folds, trial_folds
from seqvae.data.sources import Arrays, SimulatedLinearDynamics
from seqvae.models import FactorAnalysis, LinearDynamics
from seqvae.plotting import dimension_curve

warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
small = "SEQVAE_SMALL" in os.environ  # the tests run a reduced version
scratch = tempfile.mkdtemp()

# %% [markdown]
# ## One matrix, of known rank
#
# 300 rows (time bins) of 40 neurons: four components and noise. The weakest component is twice as
# strong as the faintest one that could be found at all.

# %%
generator = np.random.default_rng(1)
num_rows, num_neurons, rank = 300, 40, 4
left = np.linalg.qr(generator.normal(size=(num_rows, rank)))[0]
right = np.linalg.qr(generator.normal(size=(num_neurons, rank)))[0]
strength = np.linspace(2.0, 3.5, rank) * (num_rows * num_neurons) ** 0.25
matrix = (left * strength) @ right.T + generator.normal(size=(num_rows, num_neurons))

# %% [markdown]
# ## Three ways to hold out
#
# - **fold-in** (co-smoothing): learn from some rows, all neurons. Of the other rows see some
#   neurons, and predict the others.
# - **Gabriel** (Owen & Perry 2009): learn from some rows *and* some neurons, the block D below;
#   predict the opposite block A from B and C.
# - **speckled** (Wold 1978): hide single entries everywhere; learn from, and predict, the rest.
#
# In all of them a held-out entry is predicted from *other neurons* of the same row. Holding out
# rows alone, and then projecting each on the components, uses the very entries that are scored.

# %%
row_fold = trial_folds(5, condition=np.zeros(num_rows), seed=0)
neuron_fold = neuron_folds(5, mean=matrix.mean(axis=0), seed=0)
rows, columns = np.argsort(row_fold, kind="stable"), np.argsort(neuron_fold, kind="stable")
out_rows, out_columns = row_fold[rows] == 0, neuron_fold[columns] == 0

# 0: learned from, 1: seen only when predicting, 2: predicted
fold_in = np.zeros(matrix.shape)
fold_in[out_rows] = 1
fold_in[np.ix_(out_rows, out_columns)] = 2
gabriel = np.zeros(matrix.shape)
gabriel[out_rows] = gabriel[:, out_columns] = 1
gabriel[np.ix_(out_rows, out_columns)] = 2
speckled = np.where(entry_folds(5, shape=(num_rows, 1, num_neurons), seed=0)[:, 0] == 0, 2, 0)

schemes = {"fold-in": fold_in, "Gabriel": gabriel, "speckled": speckled}
colors = ListedColormap(["#dddddd", "#56B4E9", "#D55E00"])
figure, axes = plt.subplots(1, 3, figsize=(8, 2.8), layout="constrained")
for ax, (title, mask) in zip(axes, schemes.items(), strict=True):
    ax.imshow(mask, aspect="auto", cmap=colors, vmin=0, vmax=2, interpolation="nearest")
    ax.set(title=title, xlabel="neuron", ylabel="row")
axes[1].text(3.5, 30, "A", ha="center", va="center", color="white")
axes[1].text(24, 30, "B", ha="center", va="center")
axes[1].text(3.5, 180, "C", ha="center", va="center")
axes[1].text(24, 180, "D", ha="center", va="center")
plt.show()

# %% [markdown]
# Grey is learned from, blue is seen when predicting, red is predicted and scored.
#
# ## Why rows alone do not answer
#
# The error of held-out rows on their own projections falls with every component, for *every*
# matrix. Gabriel's error has a minimum.

# %%
dims = list(range(11))
naive, cells = np.zeros(len(dims)), []
for fold in range(5):
    train, test = matrix[row_fold != fold], matrix[row_fold == fold]
    center = train.mean(axis=0)
    components = np.linalg.svd(train - center, full_matrices=False)[2]
    for k in dims:
        kept = components[:k].T @ components[:k]
        naive[k] += ((test - center - (test - center) @ kept) ** 2).sum()
    for columns_out in range(5):
        heldout = np.flatnonzero(neuron_fold == columns_out).tolist()
        cells.append(gabriel_errors(train, test, heldout=heldout, dims=dims))
errors = np.array(cells)
assert (np.diff(naive) < 0).all()

figure, ax = plt.subplots(figsize=(4.5, 2.8), layout="constrained")
ax.plot(dims, naive / naive[0], "-o", color="#8A8A8A", markersize=3, label="rows held out")
ax.plot(dims, errors.sum(axis=0) / errors.sum(axis=0)[0], "-o", color="#0072B2", markersize=3,
        label="Gabriel")  # fmt: skip
ax.axvline(rank, color="#D55E00", linewidth=0.8, linestyle="--")
ax.set(xlabel="components", ylabel="error / error of the mean")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## From scores to a choice
#
# The dimension of least error is a random variable: near the minimum the curve is flat, and noise
# decides. The default rule takes the *smallest* dimension whose loss against the winner is within
# one standard error of **this difference**. Folds differ in difficulty much more than dimensions
# do; what two dimensions share on a fold cancels in their difference, so its error is small. The
# classical rule takes the error of the winner's own score, mistakes difficulty for doubt, and
# chooses too few.

# %%
for rule in ("min", "paired_1se", "1se"):
    choice = choose(-errors, dims, rule=rule)
    print(f"{rule:>10}: {choice.dim} (the truth is {rank})")

# %% [markdown]
# ## Spike trains
#
# A simulation of two planes of rotation, four latents in all, read by Poisson neurons. One call
# compares factor analysis, which takes each bin on its own, with a Poisson linear dynamical system,
# on the same folds. The score is in bits per spike; dimension 0 is each neuron at its mean rate.
# Cells that are done are kept in the folder: an interrupted grid goes on where it ended.

# %%
source = SimulatedLinearDynamics(latent_dim=4, num_trials=16 if small else 60, num_val=4,
                                 num_time_bins=40 if small else 100)  # fmt: skip
found = crossvalidate(
    NeuralData(source),
    {"fa": FactorAnalysis, "plds": LinearDynamics},
    {"plds": EM(max_iterations=3 if small else 10, progress=False)},
    dims=[1, 2, 4, 6] if small else [1, 2, 3, 4, 5, 6],
    trial_folds=2 if small else 4,
    neuron_folds=2 if small else 4,
    num_samples=10,
    k_shot=8,
    progress=False,
    out_dir=f"{scratch}/spikes",
)
for name, told in found.summary["models"].items():
    print(name, "chooses", told["chosen_dim"], "and scores", round(told["score"], 4))
dimension_curve(found.summary)

# %% [markdown]
# Right: what each dimension loses against the best of its model, magnified, with the error of that
# difference. The dotted lines are the *few-shot* score: the readout of the held-out neurons is
# learned from eight trials only. A model may carry latents that the data do not need and lose
# nothing by plain co-smoothing; few trials do not suffice to ignore them.
#
# ## Rows that remember
#
# If neighbouring rows are alike, rows drawn at random are no test: the neighbour of each held-out
# row was learned from, with its private noise. Here noise without any structure, but with memory:
# there is *nothing* to find, and random rows "find" as much as they are allowed to.

# %%
noise = generator.normal(size=(700, 20))
for t in range(1, 700):
    noise[t] = 0.9 * noise[t - 1] + np.sqrt(1 - 0.9**2) * noise[t]
long = NeuralData(Arrays(noise[None, 100:].astype(np.float32), bin_width=0.02))
for kind in ("random", "blocks"):
    answer = crossvalidate(
        long, dims=list(range(1, 9)), scheme="gabriel", rows=kind, neuron_folds=4, progress=False,
        out_dir=f"{scratch}/{kind}",
    )  # fmt: skip
    print(f"{kind:>7}: {answer.chosen_dim('pca')}")

# %% [markdown]
# With one long recording, contiguous blocks are the default, with a gap on either side as long as
# the activity remembers; whole trials are safer still.
#
# ## Real data
#
# 13 chemical measurements of 178 wines, in units of their standard deviations; nobody knows the
# truth. The error is least at one dimension, and a smaller one is as good within its error. Your
# own recording goes here: `NeuralData(HDF5("mine.h5"))`, with models as above.

# %%
wine = load_wine().data
wine = (wine - wine.mean(axis=0)) / wine.std(axis=0)
measured = crossvalidate(
    NeuralData(Arrays(wine[:, None], bin_width=1.0)),
    dims=list(range(1, 10)),
    scheme="gabriel",
    neuron_folds=4,
    out_dir=f"{scratch}/wine",
    progress=False,
)
told = measured.summary["models"]["pca"]
print("least error:", told["winner"], "  chosen:", told["chosen_dim"])
dimension_curve(measured.summary)
