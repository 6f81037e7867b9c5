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
# # The sequential VAE
#
# LFADS (Pandarinath et al. 2018) in its parts. An encoder reads a whole trial and answers with a
# posterior of the *initial condition* of a recurrent generator. The generator runs, and its state
# is read out as factors, the factors as rates. What autonomous dynamics cannot explain comes from
# *inferred inputs*: a controller sees the encoder and the last factors, and infers an input in
# every bin. Everything is trained to raise one number, the evidence lower bound, in nats per trial.

# %%
import os
import tempfile
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer

from seqvae import GradientLearner, NeuralData, SequentialVAE, evaluate, fit, infer
from seqvae.data import CoordinatedDropout
from seqvae.data.sources import Lorenz
from seqvae.plotting import inferred_inputs, latents, rasters_and_rates, rate_traces

small = "SEQVAE_SMALL" in os.environ  # the tests run a reduced version
scratch = tempfile.mkdtemp()
torch.set_num_threads(1)  # faster for models of this size

# %% [markdown]
# ## Data, and what the encoder sees of them
#
# Simulated spikes driven by the Lorenz attractor. 13 of 50 neurons are held out and the last 15
# bins of each trial are forecast: the encoder never sees either, and both are scored. *Coordinated
# dropout* hides a random share of the entries from the encoder while learning and scores only
# those, so that the model cannot learn to copy its input.

# %%
data = NeuralData(
    Lorenz(num_trials=40 if small else 200, num_val=10 if small else 50),
    forecast_bins=15,
    batch_size=50,
    coordinated_dropout=CoordinatedDropout(0.3),
)
model = partial(
    SequentialVAE,
    factor_dim=3,
    generator_dim=40,
    initial_condition_dim=20,
    inferred_input_dim=1,
    controller_dim=20,
    controller_encoder_dim=20,
)
learner = GradientLearner(
    partial(Trainer, max_epochs=3 if small else 150, check_val_every_n_epoch=3, accelerator="cpu"),
    progress=False,
)
run = fit(data, model, learner, run_dir=f"{scratch}/svae")

# %% [markdown]
# ## The bound and its terms, as they were learned
#
# `beta` weighs the KL divergences and rises to 1 while learning begins; validation always has
# `beta = 1`. The best weights are those of the best validation bound of the held-in neurons.

# %%
history = pd.read_csv(run.files.history)
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
terms = (["val/elbo"], ["val/kl/initial_condition", "val/kl/inferred_inputs"])
for ax, names in zip(axes, terms, strict=True):
    history.dropna(subset=names).plot("epoch", names, ax=ax, ylabel="nats per trial")
    ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## Scores
#
# `co_bps`: neurons that the model never saw. `fp_bps`: bins that it never saw, all neurons; the
# generator runs on, its inputs drawn from their prior.

# %%
scores = evaluate(run)
columns = {"model": scores, **scores["baselines"]}
print(f"{'':16}" + "".join(f"{name:>15}" for name in columns))
for score in ("bits_per_spike", "co_bps", "fp_bps", "rates_r2"):
    shown = [columns[name].get(score, np.nan) for name in columns]
    print(f"{score:16}" + "".join(f"{value:15.4f}" for value in shown))

# %% [markdown]
# ## Trials: counts, inferred rates, true rates
#
# In the last 15 bins (from 0.85 s on) there is only the forecast.

# %%
posterior = infer(run, split="val", num_samples=20)
posterior["true_rates"] = posterior.rates.dims, data.recording.rates[data.trials("val")]
rasters_and_rates(posterior)

# %%
rate_traces(posterior)

# %% [markdown]
# ## Latents
#
# The factors in three dimensions, and the input that the controller infers. The Lorenz system is
# autonomous, and yet this model leans on its input (its KL is the larger one above): it corrects a
# small generator that has not learned the attractor exactly. In the forecast the input is drawn
# from the prior, and dies away. `inferred_input_dim=0` does without.

# %%
latents(posterior)

# %%
inferred_inputs(posterior)

# %% [markdown]
# ## New trials
#
# The model is generative: initial conditions and inputs from their priors, run through the
# generator, make trials that nobody has recorded.

# %%
with torch.no_grad():
    dreamed = run.model().sample(3)
figure, axes = plt.subplots(1, 3, figsize=(7, 2), layout="constrained", sharey=True)
for ax, rates in zip(axes, dreamed.emission.mean[0] / data.spec.bin_width, strict=True):
    ax.imshow(rates.T, aspect="auto", interpolation="nearest", vmin=0)
    ax.set_xlabel("time bin")
axes[0].set_ylabel("neuron")
plt.show()
