"""Planted leaks are found, and fits without one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from seqvae import EM, FLDS, VAE, FactorAnalysis, InputError, LinearDynamics, NeuralData, leakcheck
from seqvae.analysis.leaks import altered, hidden_in
from seqvae.data import Recording
from seqvae.data.chopping import chop
from seqvae.data.sources import Arrays
from seqvae.data.transforms import Transform, ZScore
from seqvae.learning import ClosedForm
from seqvae.observations import Gaussian
from seqvae.verbs.leakcheck import shown
from tiny import LORENZ, SVAE, in_memory, tiny_data, tiny_learner

pytestmark = pytest.mark.filterwarnings("ignore:.*(silent|never change|still improving|worse)")

SMALL = partial(VAE, latent_dim=2)
TESTED = {"val_fraction": 0.2, "test_fraction": 0.25}


def unsplit() -> Recording:
    return replace(LORENZ.load(), split=None)


def kept_apart(**settings: Any) -> NeuralData:
    """With trials kept for the test, and held-out neurons."""
    return in_memory(unsplit(), **{**TESTED, **settings})


# --- no alarm ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "model", "learner"),
    [
        (kept_apart, SMALL, tiny_learner()),
        (tiny_data, SVAE, tiny_learner()),
        (kept_apart, partial(FLDS, latent_dim=2), tiny_learner()),
        (kept_apart, partial(LinearDynamics, latent_dim=2), EM(max_iterations=2, progress=False)),
        (tiny_data, partial(FactorAnalysis, latent_dim=2), ClosedForm()),
    ],
    ids=["vae", "svae of val", "flds", "plds", "fa of val"],
)
def test_fits_without_a_leak_pass(data, model, learner):
    found = leakcheck(data(), model, learner)
    assert found["leaks"] == []
    assert [check["passed"] for check in found["checks"]] == [True] * 4
    assert "no leak was found" in shown(found, {})


def test_refit_learns_from_validation_trials_and_not_from_the_test():
    learner = tiny_learner(select="val/elbo", refit=True)
    assert leakcheck(kept_apart(), SMALL, learner)["leaks"] == []


def test_a_transform_that_learns_from_training_trials_passes():
    data = kept_apart(transforms=[ZScore()])
    real = partial(FactorAnalysis, latent_dim=1, observation=Gaussian)
    assert leakcheck(data, real, ClosedForm())["leaks"] == []


def test_windows_of_one_long_recording_pass():
    long = LORENZ.load().activity.reshape(1, -1, 6)
    data = NeuralData(Arrays(long, bin_width=0.02), val_fraction=0.3, heldout=[1], batch_size=8)
    assert leakcheck(data, SMALL, tiny_learner())["leaks"] == []


# --- planted leaks -------------------------------------------------------------------------------


class KnowsAllMeans(VAE):
    """Normalises by all trials."""

    def initialize(self, data: NeuralData) -> None:
        super().initialize(data)
        self.observed_mean.copy_(
            torch.from_numpy(data.recording.read().mean((0, 1)))[list(data.spec.heldin)]
        )


class ReadsTarget(VAE):
    """Infers from what it shall predict."""

    def forward(self, batch, num_samples=1):
        peek = batch.observed + 0.1 * batch.target.sum(-1, keepdim=True)
        return super().forward(replace(batch, observed=peek), num_samples)


@dataclass(frozen=True)
class CentredByAll(Transform):
    """Takes the mean over all trials, as if it were known."""

    def __call__(self, recording: Recording) -> Recording:
        activity = recording.read()
        return recording.changed(activity=activity - activity.mean((0, 1)))


@dataclass(frozen=True)
class LearnsFromAll(ZScore):
    """Learns from trials that it was not given."""

    def learned(self, recording, trials):
        return super().learned(recording, np.arange(recording.num_trials))


REAL = partial(SMALL, observation=Gaussian)


@pytest.mark.parametrize(
    ("data", "model", "learner", "leak"),
    [
        (kept_apart, KnowsAllMeans, tiny_learner(1), "learning"),
        (kept_apart, ReadsTarget, tiny_learner(1), "inference"),
        (tiny_data, ReadsTarget, tiny_learner(1), "inference"),
        (tiny_data, SMALL, tiny_learner(8, select="val/co_bps", average_weights=0.0), "learning"),
        (partial(kept_apart, transforms=[CentredByAll()]), REAL, tiny_learner(1), "learning"),
        (partial(kept_apart, transforms=[LearnsFromAll()]), REAL, tiny_learner(1), "learning"),
    ],
    ids=["means", "target", "target of val", "selection", "transform", "learned transform"],
)
def test_planted_leaks_are_found(data, model, learner, leak):
    found = leakcheck(data(), model, learner)
    assert leak in found["leaks"]
    (check,) = [check for check in found["checks"] if check["name"] == leak]
    assert check["sentence"] in shown(found, {})
    assert f"{leak:<10}LEAK" in shown(found, {})


def test_a_unit_that_was_sorted_twice_is_named():
    recording = unsplit()
    activity = recording.activity.copy()
    heldout = int(np.setdiff1d(np.arange(6), recording.heldin)[0])
    activity[..., heldout] = np.maximum(
        activity[..., recording.heldin[0]] - (activity[..., 5] > 3), 0
    )
    data = in_memory(recording.changed(activity=activity), **TESTED)
    found = leakcheck(data, SMALL, tiny_learner(1))
    assert found["leaks"] == ["units"]
    assert f"{recording.heldin[0]} and {heldout}" in found["checks"][2]["sentence"]


def test_windows_that_overlap_and_are_split_at_random_are_found():
    counts = np.random.default_rng(0).poisson(2.0, size=(1, 400, 8)).astype(np.float32)
    windows = chop(Arrays(counts, bin_width=0.02).load(), 20, overlap=0.5).recording
    overlapping = NeuralData(
        Arrays(windows.read(), bin_width=0.02), heldout=[0], test_fraction=0.3, batch_size=8
    )
    assert leakcheck(overlapping, SMALL, tiny_learner(1))["leaks"] == ["trials"]
    apart = NeuralData(
        Arrays(counts.reshape(20, 20, 8), bin_width=0.02), heldout=[0], test_fraction=0.3,
        batch_size=8,
    )  # fmt: skip
    assert leakcheck(apart, SMALL, tiny_learner(1))["leaks"] == []


# --- what is altered -----------------------------------------------------------------------------


def test_what_is_scored_is_altered_and_nothing_else():
    data = kept_apart()
    hidden = hidden_in(data)
    before, after = data.recording.read(), altered(data, hidden.whole).recording.read()
    is_test = data.split == "test"
    np.testing.assert_array_equal(after[~is_test], before[~is_test])
    assert (after[is_test] != before[is_test]).all()
    assert hidden.heldout.sum() == is_test.sum() * 10 * len(data.spec.heldout)
    assert (altered(data, hidden.whole).split == data.split).all()
    assert altered(data, hidden.whole).spec == data.spec
    np.testing.assert_array_equal(data.recording.read(), before)


def test_missing_entries_stay_missing():
    recording = unsplit()
    activity = recording.activity.copy()
    activity[:, 7:, 2] = np.nan
    data = in_memory(recording.changed(activity=activity), **TESTED)
    after = altered(data, hidden_in(data).whole).recording.read()
    np.testing.assert_array_equal(np.isnan(after), np.isnan(activity))


def test_nothing_held_out_is_refused():
    counts = np.random.default_rng(0).poisson(1.0, size=(12, 6, 4))
    with pytest.raises(InputError, match="nothing is held out"):
        leakcheck(counts, SMALL, tiny_learner(1), bin_width=0.02)
    with pytest.raises(InputError, match="num_samples must be at least 1"):
        leakcheck(counts, SMALL, tiny_learner(1), bin_width=0.02, num_samples=0)
