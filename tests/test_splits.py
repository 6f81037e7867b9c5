from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqvae.config import to_config
from seqvae.data import NeuralData, Recording
from seqvae.data.splits import choose_heldin, split_trials
from seqvae.errors import InputError


def recording_of(num_trials: int, num_neurons: int = 2, condition=None) -> Recording:
    activity = np.random.default_rng(0).normal(size=(num_trials, 3, num_neurons))
    return Recording(activity, 0.01, condition=condition)


@settings(deadline=None, max_examples=50)
@given(
    conditions=st.lists(st.integers(0, 3), min_size=10, max_size=60),
    val_fraction=st.floats(0, 0.4),
    test_fraction=st.floats(0, 0.4),
    seed=st.integers(0, 1000),
)
def test_splits_have_the_asked_sizes_in_proportion_to_conditions(
    conditions, val_fraction, test_fraction, seed
):
    recording = recording_of(len(conditions), condition=np.array(conditions))
    split = split_trials(
        recording, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed
    )
    for word, fraction in (("val", val_fraction), ("test", test_fraction)):
        expected = max(1, round(fraction * len(conditions))) if fraction > 0 else 0
        assert (split == word).sum() == expected
        for condition in set(conditions):
            members = np.array(conditions) == condition
            share = (split[members] == word).sum()
            assert abs(share - expected / len(conditions) * members.sum()) <= 2


def test_a_seed_gives_the_same_split_and_another_seed_another(toy_recording):
    def draw(seed: int) -> list[str]:
        return split_trials(
            toy_recording, val_fraction=0.25, test_fraction=0.25, seed=seed
        ).tolist()

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_the_split_of_the_file_wins(toy_recording):
    own = np.repeat(["val", "train", "test"], 8)
    recording = replace(toy_recording, split=own)
    split = split_trials(recording, val_fraction=0.5, test_fraction=0.0, seed=3)
    np.testing.assert_array_equal(split, own)


@pytest.mark.parametrize(
    ("val_fraction", "test_fraction", "sentence"),
    [
        (1.0, 0.0, "val_fraction must be at least 0 and below 1, got 1"),
        (0.2, -0.1, "test_fraction must be at least 0 and below 1, got -0.1"),
        (0.6, 0.5, "leave none of the 24 trials"),
    ],
)
def test_fractions_out_of_range_are_refused(toy_recording, val_fraction, test_fraction, sentence):
    with pytest.raises(InputError, match=sentence):
        split_trials(toy_recording, val_fraction=val_fraction, test_fraction=test_fraction, seed=0)


def test_heldout_neurons_by_list_fraction_and_file(toy_recording):
    assert choose_heldin(toy_recording, None, seed=0) == (0, 1, 2, 3, 4, 5)
    assert choose_heldin(toy_recording, [4, 1], seed=0) == (0, 2, 3, 5)
    assert choose_heldin(toy_recording, [], seed=0) == (0, 1, 2, 3, 4, 5)
    assert choose_heldin(toy_recording, 0.0, seed=0) == (0, 1, 2, 3, 4, 5)
    by_fraction = choose_heldin(toy_recording, 0.5, seed=0)
    assert len(by_fraction) == 3
    assert by_fraction == choose_heldin(toy_recording, 0.5, seed=0)
    assert len({choose_heldin(toy_recording, 0.5, seed=seed) for seed in range(9)}) > 1
    stated = replace(toy_recording, heldin=np.array([1, 3]))
    assert choose_heldin(stated, None, seed=0) == (1, 3)
    assert choose_heldin(stated, [0], seed=0) == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("heldout", "sentence"),
    [
        ([6], "heldout names neuron 6, but the 6 neurons are 0 to 5"),
        ([-1], "heldout names neuron -1"),
        ([2, 2], "heldout names neuron 2 twice"),
        (list(range(6)), "heldout holds out all 6 neurons"),
        (0.99, "heldout holds out all 6 neurons"),
        (1.0, "heldout must be a fraction"),
        (-0.1, "heldout must be a fraction"),
    ],
)
def test_heldout_neurons_out_of_range_are_refused(toy_recording, heldout, sentence):
    with pytest.raises(InputError, match=sentence):
        choose_heldin(toy_recording, heldout, seed=0)


@pytest.mark.parametrize("neurons", [[0], [4, 1]])
def test_heldout_neurons_are_given_by_an_array_too(toy_recording, neurons):
    """The truth value of an array [0] would hold out nothing."""
    data = NeuralData(toy_recording, heldout=np.array(neurons))
    assert data.spec.heldout == tuple(sorted(neurons))
    assert to_config(data)["init_args"]["heldout"] == neurons
