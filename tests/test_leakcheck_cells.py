"""Leaks into cells, ensembles and reports are found, and what is sound passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch

from seqvae import EM, PCA, VAE, InputError, LinearDynamics, NeuralData, leakcheck
from seqvae.console.main import main
from seqvae.data import Recording
from seqvae.data.chopping import chop
from seqvae.data.sources import Arrays, write_hdf5
from seqvae.data.transforms import Transform
from seqvae.learning import ClosedForm
from seqvae.observations import Gaussian
from seqvae.testing import assert_no_leak
from seqvae.verbs.leakcheck import shown
from tiny import LORENZ, in_memory, tiny_data, tiny_learner

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(identical|silent|never change|still improving|worse|no learner reads|few trials)"
)

SMALL = partial(VAE, latent_dim=2)
FACTORS = partial(PCA, latent_dim=2, smoothing=0.04)
REAL = partial(PCA, latent_dim=2, observation=Gaussian)
FOLDS = {"trial_folds": 3, "neuron_folds": 2}


def kept_apart(**settings) -> NeuralData:
    recording = replace(LORENZ.load(), split=None)
    return in_memory(recording, **{"val_fraction": 0.2, "test_fraction": 0.25, **settings})


def whole(**settings) -> NeuralData:
    """All trials, for a cross-validation to divide."""
    return in_memory(replace(LORENZ.load(), split=None, heldin=None), **settings)


# --- no alarm ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "learner", "options"),
    [
        (SMALL, tiny_learner(1), {"scheme": "fold_in"}),
        (SMALL, tiny_learner(1), {"scheme": "speckled"}),
        (FACTORS, ClosedForm(), {"scheme": "fold_in", "members": 2}),
        (
            partial(LinearDynamics, latent_dim=2),
            EM(max_iterations=1, progress=False),
            {"scheme": "fold_in"},
        ),
        (None, None, {"scheme": "gabriel"}),
    ],
    ids=["vae", "speckled vae", "pca together", "plds", "gabriel"],
)
def test_cells_without_a_leak_pass(model, learner, options):
    result = leakcheck(whole(), model, learner, **options, **FOLDS)
    assert result["leaks"] == []
    names = [check["name"] for check in result["checks"]]
    assert names[0] == "hidden"
    assert ("learning" in names) == (options["scheme"] != "gabriel")
    assert f"scored: cells of scheme {options['scheme']}" in shown(result, {})


def test_cells_of_one_long_recording_pass():
    long = Arrays(LORENZ.load().activity.reshape(1, -1, 6), bin_width=0.02)
    data = NeuralData(long, batch_size=8)
    assert leakcheck(data, FACTORS, ClosedForm(), scheme="fold_in", **FOLDS)["leaks"] == []


def test_an_ensemble_and_a_report_pass():
    result = leakcheck(kept_apart(), SMALL, tiny_learner(1), members=2, report=True)
    assert result["leaks"] == []
    assert [check["name"] for check in result["checks"]][-2:] == ["ensemble", "report"]


# --- planted leaks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class CentredByAll(Transform):
    """Takes the mean over all trials, as if it were known."""

    def __call__(self, recording: Recording) -> Recording:
        activity = recording.read()
        return recording.changed(activity=activity - activity.mean((0, 1)))


@dataclass(frozen=True)
class SmoothedOverTrials(Transform):
    """Averages each trial with its neighbours, wherever these are."""

    def __call__(self, recording: Recording) -> Recording:
        activity = recording.read()
        around = [np.roll(activity, by, axis=0) for by in (-1, 0, 1)]
        return recording.changed(activity=np.mean(around, axis=0).astype(np.float32))


class StartsWithAll(VAE):
    """Its readout begins with the principal components of all trials."""

    def initialize(self, data: NeuralData) -> None:
        super().initialize(data)
        activity = data.recording.read().reshape(-1, data.recording.num_neurons)
        components = np.linalg.svd(activity - activity.mean(0), full_matrices=False)[2][:2]
        with torch.no_grad():
            next(self.observation.parameters()).view(-1)[:12] = torch.from_numpy(components.ravel())


class SeesForecast(VAE):
    """Infers from the bins that it shall forecast."""

    def forward(self, batch, num_samples=1):
        late = batch.target[:, batch.observed.shape[1] :].mean((1, 2))
        peek = batch.observed + late[:, None, None]
        return super().forward(replace(batch, observed=peek), num_samples)


class LearnsFromTest(ClosedForm):
    """Learns from every trial there is."""

    def learn(self, model, data, **options):
        everything = in_memory(
            replace(data.recording, split=None), val_fraction=0.0, heldout=list(data.spec.heldout)
        )
        everything.setup()
        return super().learn(model, everything, **options)


@pytest.mark.parametrize(
    ("data", "model", "learner", "leak"),
    [
        (partial(kept_apart, transforms=[SmoothedOverTrials()]), REAL, ClosedForm(), "learning"),
        (kept_apart, StartsWithAll, tiny_learner(1), "learning"),
        (partial(kept_apart, forecast_bins=3), SeesForecast, tiny_learner(1), "inference"),
        (kept_apart, FACTORS, LearnsFromTest(), "learning"),
    ],
    ids=["smoothed over the split", "principal components", "forecast", "learner"],
)
def test_leaks_into_a_fit_are_found(data, model, learner, leak):
    with pytest.raises(AssertionError, match=f"checks found a leak: .*{leak}: with other values"):
        assert_no_leak(model, data(), learner)


def test_a_model_of_ones_own_is_asked_in_a_line():
    assert_no_leak(SMALL, tiny_data(), tiny_learner(1))


@pytest.mark.parametrize("scheme", ["fold_in", "gabriel"])
@pytest.mark.parametrize("transform", [CentredByAll(), SmoothedOverTrials()])
def test_a_transform_that_knows_all_trials_is_found_in_cells(transform, scheme):
    model = None if scheme == "gabriel" else REAL
    result = leakcheck(whole(transforms=[transform]), model, scheme=scheme, **FOLDS)
    assert "hidden" in result["leaks"]


def test_a_unit_that_was_sorted_twice_is_found_in_cells():
    activity = LORENZ.load().activity
    twice = np.concatenate([activity] * 2, axis=2)
    data = in_memory(Recording(twice, 0.02))
    assert leakcheck(data, FACTORS, ClosedForm(), scheme="fold_in", **FOLDS)["leaks"] == ["units"]


def test_windows_that_overlap_are_found_in_cells():
    counts = np.random.default_rng(0).poisson(2.0, size=(1, 400, 8)).astype(np.float32)
    windows = chop(Arrays(counts, bin_width=0.02).load(), 20, overlap=0.5).recording
    data = NeuralData(Arrays(windows.read(), bin_width=0.02), batch_size=8)
    assert leakcheck(data, FACTORS, ClosedForm(), scheme="fold_in", **FOLDS)["leaks"] == ["trials"]


def test_a_factorisation_in_units_of_all_rows_is_found(monkeypatch):
    from seqvae.crossvalidation import gabriel

    errors = gabriel.gabriel_errors

    def in_units_of_all(train, test, **options):
        unit = np.concatenate([train, test]).std(axis=0) + 1e-3
        return errors(train / unit, test / unit, **options)

    monkeypatch.setattr(gabriel, "gabriel_errors", in_units_of_all)
    assert leakcheck(whole(), None, scheme="gabriel", **FOLDS)["leaks"] == ["inference"]


def test_an_ensemble_weighted_by_what_is_scored_is_found(monkeypatch):
    def by_the_test(mixture, data, **_):
        trials = data.trials("test")
        rate = float(data.recording.read(trials).mean())
        return np.array([rate, 1.0]) / (1 + rate)

    monkeypatch.setattr("seqvae.verbs.leakcheck.stacked_weights", by_the_test)
    assert leakcheck(kept_apart(), SMALL, tiny_learner(1), members=2)["leaks"] == ["ensemble"]


def test_a_report_of_baselines_that_know_the_test_is_found(monkeypatch):
    from seqvae.verbs import leakcheck as module

    evaluate_model = module.evaluate_model

    def with_all(model, data, **options):
        mean = float(data.recording.read().mean())
        return {**evaluate_model(model, data, **options), "mean_rate_of_all": mean}

    monkeypatch.setattr(module, "evaluate_model", with_all)
    result = leakcheck(kept_apart(), SMALL, tiny_learner(1), report=True)
    assert result["leaks"] == ["report"]
    assert "mean_rate_of_all of training trials" in result["checks"][-1]["sentence"]


# --- the command ---------------------------------------------------------------------------------


def test_the_exit_code_tells_of_a_leak(tmp_path, capsys):
    activity = LORENZ.load().activity
    write_hdf5(Recording(activity, 0.02), tmp_path / "once.h5")
    write_hdf5(Recording(np.concatenate([activity] * 2, axis=2), 0.02), tmp_path / "twice.h5")
    flags = ["--model", "PCA", "--scheme", "fold_in", "--trial_folds", "3", "--neuron_folds", "2"]
    assert main(["leakcheck", "--data.source.path", str(tmp_path / "once.h5"), *flags]) == 0
    assert "no leak was found" in capsys.readouterr().out
    assert main(["leakcheck", "--data.source.path", str(tmp_path / "twice.h5"), *flags]) == 3
    assert "leaks: units" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"members": 0}, "members must be at least 1, got 0"),
        ({"scheme": "fold_in", "report": True}, "report: a cross-validation has none of a fit"),
        ({"scheme": "gabriel", "members": 2}, "ensembles.ensemble: scheme 'gabriel' factorises"),
        ({"scheme": "fold_in", "dim": 0}, "dim must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        leakcheck(whole(), FACTORS, **options)
