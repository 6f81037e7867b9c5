from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from seqvae.analysis.evaluation import evaluate_model
from seqvae.models import LinearDynamics
from tiny import LORENZ, in_memory


def test_true_rates_of_zero_are_scored_as_bits_per_spike_are():
    """Such a bin has the least rate, 1e-9 counts, so that a stray spike there scores finite."""
    recording = LORENZ.load()
    rates, activity = recording.rates.copy(), recording.activity.copy()
    rates[:, :3], activity[:, :3] = 0.0, 0.0
    train, val = (np.flatnonzero(recording.split == word) for word in ("train", "val"))
    hidden = np.setdiff1d(np.arange(6), recording.heldin)
    activity[val[0], 0, hidden[0]] = 1.0
    data = in_memory(replace(recording, rates=rates, activity=activity, behavior=None))
    data.setup()
    torch.manual_seed(0)
    model = LinearDynamics(data.spec, latent_dim=1)
    model.initialize(data)
    found = evaluate_model(model, data, split="val", num_samples=2, seed=0)
    true = found["baselines"]["true_rates"]
    x = activity[val][..., hidden].astype(np.float64)
    mean = np.maximum(rates[val][..., hidden].astype(np.float64) * recording.bin_width, 1e-9)
    null = activity[train].mean((0, 1), dtype=np.float64)[hidden]
    gain = (x * np.log(mean / null) - (mean - null)).sum()
    assert true["co_bps"] == pytest.approx(gain / (math.log(2) * x.sum()), rel=1e-4)
    assert math.isfinite(true["log_likelihood"])
    assert math.isfinite(found["gain"]["true_rates"]["mean"])
    assert true["rates_r2"] == pytest.approx(1.0, abs=1e-6)
    assert found["rates_r2"] < 1.0
