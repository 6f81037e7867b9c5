from __future__ import annotations

import numpy as np
import pytest

from seqvae.crossvalidation.division import Division
from seqvae.data import Recording
from seqvae.errors import InputError


def recording(num_trials=12, num_bins=8, num_neurons=6, seed=0, **fields) -> Recording:
    counts = np.random.default_rng(seed).poisson(1.0, size=(num_trials, num_bins, num_neurons))
    return Recording(counts.astype(np.float32), 0.02, **fields)


def divided(data: Recording, **settings) -> Division:
    given = {"scheme": "fold_in", "rows": "auto", "trial_folds": 3, "neuron_folds": 2,
             "gap": None, "seed": 0}  # fmt: skip
    return Division.of(data, **{**given, **settings})


def values(activity: np.ndarray) -> set[float]:
    return set(activity[np.isfinite(activity)].tolist())


def numbered(num_trials=12, num_bins=8, num_neurons=6) -> Recording:
    """Every entry another number, so that it can be traced."""
    shape = (num_trials, num_bins, num_neurons)
    numbers = 1.0 + np.random.default_rng(0).permutation(int(np.prod(shape)))
    return Recording(numbers.reshape(shape), 0.02)


@pytest.mark.parametrize("rows", ["trials", "random"])
def test_every_entry_is_scored_once_and_never_seen_where_it_is(rows):
    data = numbered()
    division = divided(data, rows=rows)
    scored = []
    for trial_fold in range(3):
        for neuron_fold in range(2):
            train, part = division.train(trial_fold), division.part(trial_fold, neuron_fold)
            truth = values(part.truth)
            assert not truth & values(train.activity)
            assert not truth & values(part.seen.activity)
            assert truth | values(part.seen.activity) | values(train.activity) == values(
                data.activity
            )
            scored += sorted(truth)
    assert sorted(scored) == sorted(values(data.activity))


def test_blocks_score_every_bin_once_and_train_leaves_the_gap():
    data = numbered(1, 60, 6)
    division = divided(data, gap=3)
    assert division.rows == "blocks"
    bins = np.arange(60).repeat(6)
    bin_of = dict(zip(data.activity.ravel().tolist(), bins.tolist(), strict=True))
    scored = []
    for trial_fold in range(3):
        learned = {bin_of[value] for value in values(division.train(trial_fold).activity)}
        for neuron_fold in range(2):
            truth = values(division.part(trial_fold, neuron_fold).truth)
            tested = {bin_of[value] for value in truth}
            assert min(abs(a - b) for a in learned for b in tested) == 4
            scored += sorted(truth)
    assert sorted(scored) == sorted(values(data.activity))


def test_speckled_entries_are_hidden_from_learning_and_inference_alike():
    data = numbered()
    division = divided(data, scheme="speckled")
    scored = []
    for fold in range(3):
        part = division.part(fold, None)
        assert part.heldin == tuple(range(6))
        np.testing.assert_array_equal(part.seen.activity, division.train(fold).activity)
        assert not values(part.truth) & values(part.seen.activity)
        scored += sorted(values(part.truth))
    assert sorted(scored) == sorted(values(data.activity))


def test_forecast_bins_are_not_scored():
    division = divided(recording(num_encoded_bins=5))
    part = division.part(0, 0)
    assert np.isnan(part.truth[:, 5:]).all()
    assert np.isfinite(part.truth[:, :5]).any()


def test_file_says_nothing_of_the_folds():
    split = np.array(["train"] * 8 + ["val"] * 4)
    division = divided(recording(split=split, heldin=np.array([0, 1])))
    train = division.train(0)
    assert train.split is None
    assert train.heldin is None


def test_inputs_stay_with_their_bins():
    inputs = np.random.default_rng(0).normal(size=(12, 8, 1)).astype(np.float32)
    data = recording(inputs=inputs)
    single = divided(data, rows="random")
    for source in (single.train(0), single.part(0, 0).seen):
        assert source.inputs is not None
    activity = inputs + np.arange(1, 7, dtype=np.float32)
    traced = divided(Recording(activity, 0.02, inputs=inputs), rows="random").train(1)
    np.testing.assert_array_equal(traced.activity[..., :1], traced.inputs + 1)


def test_random_rows_of_data_that_remember_are_warned_about():
    noise = np.random.default_rng(0).normal(size=(1, 3000, 4))
    series = noise.copy()
    for t in range(1, 3000):
        series[:, t] = 0.9 * series[:, t - 1] + noise[:, t]
    with pytest.warns(UserWarning, match="no fair test"):
        divided(Recording(series, 0.02), rows="random")
    with pytest.warns(UserWarning, match="sizeable share of a block"):
        division = divided(Recording(series[:, :300], 0.02))
    assert 5 < division.gap <= 25
    assert divided(Recording(noise, 0.02)).gap <= 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"trial_folds": 20}, "trial_folds: 20 folds of 12 trials"),
        ({"neuron_folds": 7}, "neuron_folds: 7 folds of 6 neurons"),
        ({"rows": "blocks"}, "there are 12 trials, which are safer folds"),
        ({"gap": -1}, "gap must be at least 0"),
        ({"scheme": "speckled", "rows": "random"}, "speckled hold-out has no rows"),
    ],
)
def test_folds_that_do_not_fit_the_data_are_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        divided(recording(), **settings)
