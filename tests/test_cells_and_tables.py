from __future__ import annotations

import math

import numpy as np
import pytest

from seqvae import EM, InputError, LinearDynamics, crossvalidate
from seqvae.crossvalidation import gabriel_errors
from seqvae.crossvalidation.division import Division
from seqvae.crossvalidation.table import scores_table, summarize
from tiny import LORENZ, tiny_data

pytestmark = pytest.mark.filterwarnings("ignore:.*largest of the grid")


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """A whole cross-validation of the factorised matrix of counts."""
    return crossvalidate(
        tiny_data(), dims=[1, 2], scheme="gabriel", trial_folds=2, neuron_folds=2, progress=False,
        out_dir=str(tmp_path_factory.mktemp("matrix") / "cv"),
    )  # fmt: skip


def test_a_whole_grid_misses_no_cell(matrix):
    assert matrix.num_missing == 0
    assert matrix.summary is not None


def test_counts_of_a_matrix_are_scored_by_their_square_root(matrix):
    division = Division.of(
        LORENZ.load(), scheme="gabriel", rows="auto", trial_folds=2, neuron_folds=2, gap=None,
        seed=0,
    )  # fmt: skip
    for _, row in matrix.scores[matrix.scores["dim"] > 0].iterrows():
        fold = int(row["trial_fold"])
        train, test = (
            np.sqrt(part.activity.reshape(-1, 6).astype(np.float64))
            for part in (division.train(fold), division.test(fold))
        )
        unit = train.std(0)
        hidden = np.flatnonzero(division.neuron_fold == row["neuron_fold"]).tolist()
        null, own = gabriel_errors(
            train / unit, test / unit, heldout=hidden, dims=[0, int(row["dim"])]
        )
        assert row["score"] == pytest.approx(1 - own / null, rel=1e-9)
        assert row["gain_sum"] == pytest.approx(null - own, rel=1e-9)
        assert row["entries"] == len(test) * len(hidden)


def test_a_model_is_learned_by_the_learner_it_was_given(tmp_path):
    class Refusing(EM):
        def check(self, model, data):
            raise InputError("this learner was asked")

    with pytest.raises(InputError, match=r"models\.lds: this learner was asked"):
        crossvalidate(
            tiny_data(), {"lds": LinearDynamics}, {"lds": Refusing()}, dims=[1], trial_folds=2,
            neuron_folds=2, progress=False, out_dir=str(tmp_path / "cv"),
        )  # fmt: skip


def test_components_past_an_exact_rank_change_nothing_of_rows_outside_it():
    """A neuron that copies another adds no component, though no test row need follow it."""
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=(60, 10)), generator.normal(size=(20, 10))
    train[:, 5:8] = train[:, 2:5]  # of the 8 columns that are held in, 5 tell something
    errors = gabriel_errors(train, test, heldout=[0, 1], dims=[0, 5, 6, 7, 8])
    mean = train.mean(0)
    inner, outer = train[:, 2:] - mean[2:], train[:, :2] - mean[:2]
    weights = np.linalg.lstsq(inner, outer, rcond=1e-10)[0]
    left = test[:, :2] - mean[:2] - (test[:, 2:] - mean[2:]) @ weights
    np.testing.assert_allclose(errors[1:], (left**2).sum(), rtol=1e-9)


def results(gain: np.ndarray, spikes: np.ndarray) -> list[dict]:
    """Results of cells: the mean rate, and a model of sizes 1 and 2 with gains (cell, size)."""
    told = []
    for fold, own in enumerate(gain):
        for dim in range(3):
            name = "mean_rate" if dim == 0 else "model"
            row = {
                "neuron_fold": 0, "log_likelihood": -100.0, "gain": own[dim - 1] if dim else 0.0,
                "spikes": spikes[fold], "entries": 50, "left_out": 0,
                "k_shot_gain": own[dim - 1] / 4 if dim else 0.0,
            }  # fmt: skip
            cell = {"model": name, "dim": dim, "trial_fold": fold, "neuron_fold": None, "seed": 0}
            told.append({"cell": cell, "seconds": 1.0, "status": "done", "rows": [row]})
    return told


def test_few_shot_scores_of_a_summary_are_ratios_of_sums_by_dimension():
    gain = np.array([[2.0, 3.0], [4.0, 9.0], [-1.0, 1.0], [6.0, 5.0]])
    spikes = np.array([10.0, 20.0, 30.0, 40.0])
    table = scores_table(results(gain, spikes), unit="bits_per_spike", k_shot=True)
    told = summarize(
        table, ["model"], rule="min", unit="bits_per_spike", k_shot=True,
        swept={"model": "dimension"},
    )  # fmt: skip
    expected = [0.0, *(gain.sum(0) / (math.log(2) * spikes.sum()))]
    assert told["models"]["model"]["mean"] == pytest.approx(expected)
    assert told["models"]["model"]["k_shot"] == pytest.approx([value / 4 for value in expected])
