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
# # A first fit
#
# From spike counts to rates, latents and a score, in four calls. The data are simulated, so that
# the truth is known: 50 neurons whose log-rates follow the Lorenz attractor.

# %%
import os
import tempfile
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from pytorch_lightning import Trainer

from seqvae import EM, FLDS, GradientLearner, LinearDynamics, NeuralData, evaluate, fit, infer
from seqvae.data.sources import Lorenz
from seqvae.plotting import latents, rasters_and_rates

small = "SEQVAE_SMALL" in os.environ  # the tests run a reduced version
scratch = tempfile.mkdtemp()

# %% [markdown]
# ## 1. Data
#
# `NeuralData` says where the recording comes from, which trials are for what, and which neurons
# inference never sees. Your own counts, an array (trial, time, neuron), would be
# `NeuralData(Arrays(counts, bin_width=0.01), heldout=0.2)`.

# %%
data = NeuralData(Lorenz(num_trials=40 if small else 200, num_val=10 if small else 50),
                  batch_size=50)  # fmt: skip
data.setup()
print(data.recording.activity.shape, "counts;", data.spec.num_heldin, "neurons held in")
figure, ax = plt.subplots(figsize=(6, 2.2), layout="constrained")
ax.imshow(data.recording.activity[0].T, aspect="auto", cmap="Greys", interpolation="nearest")
ax.set(xlabel="time bin", ylabel="neuron", title="one trial")
plt.show()

# %% [markdown]
# ## 2. Fit
#
# Two models of the same size: linear dynamics, learned by expectation maximisation, and the same
# dynamics read out by a network (`FLDS`), learned by gradients. `fit` leaves everything about a run
# in its folder.

# %%
linear = fit(
    data, partial(LinearDynamics, latent_dim=3), EM(progress=False), run_dir=f"{scratch}/linear"
)
learner = GradientLearner(
    partial(Trainer, max_epochs=3 if small else 80, check_val_every_n_epoch=2), patience=20,
    progress=False,
)  # fmt: skip
nonlinear = fit(data, partial(FLDS, latent_dim=3), learner, run_dir=f"{scratch}/flds")
print(sorted(path.name for path in nonlinear.folder.iterdir()))

# %% [markdown]
# ## 3. Score
#
# `co_bps` is the score to look at: bits per spike, gained over the mean rate, on neurons that the
# model never saw. The last columns are what anybody gets without a model, and what the true rates
# themselves score.

# %%
tables = {"linear": evaluate(linear), "flds": evaluate(nonlinear)}
baselines = tables["linear"]["baselines"]
columns = {**tables, **{name: baselines[name] for name in ("smoothing_glm", "true_rates")}}
print(f"{'':10}" + "".join(f"{name:>15}" for name in columns))
for score in ("co_bps", "rates_r2"):
    print(f"{score:10}" + "".join(f"{column[score]:15.4f}" for column in columns.values()))

# %% [markdown]
# ## 4. Infer
#
# An `xarray.Dataset` with rates, factors and latents of every trial: posterior mean and standard
# deviation, labelled by trial, time and neuron.

# %%
posterior = infer(nonlinear, split="val")
posterior

# %%
posterior["true_rates"] = posterior.rates.dims, data.recording.rates[data.trials("val")]
rasters_and_rates(posterior)

# %% [markdown]
# The factors have found the attractor; nobody told the model of it.

# %%
latents(posterior)

# %% [markdown]
# How well are the rates known? The posterior says so itself: the standard deviation of each rate
# should be about as large as its error.

# %%
truth = posterior.true_rates.values
error = np.abs(posterior.rates.values - truth)
within = (error < 2 * posterior.rates_sd.values).mean()
print(f"true rate within two posterior standard deviations: {within:.0%} of all bins and neurons")
