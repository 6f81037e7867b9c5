from __future__ import annotations

import ast
import hashlib
import warnings
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seqvae
from seqvae.data import Recording
from seqvae.data.pieces import pieces
from seqvae.errors import InputError


def counts(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).poisson(2.0, shape)


def test_counts_of_any_numeric_type_become_float32():
    for kind in (np.uint8, np.int16, np.int64, np.float64):
        recording = Recording(counts(4, 5, 3).astype(kind), 0.01)
        assert recording.activity.dtype == np.float32
        np.testing.assert_array_equal(recording.activity, counts(4, 5, 3))


def test_arrays_are_copied_and_read_only():
    own = counts(4, 5, 3).astype(np.float32)
    recording = Recording(own, 0.01, condition=np.arange(4))
    own[0] = 99
    assert recording.activity.max() < 99
    for array in (recording.activity, recording.condition, recording.neuron_ids):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    num_neurons=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_unequal_trials_keep_their_lengths_and_values(lengths, num_neurons, seed):
    generator = np.random.default_rng(seed)
    trials = [generator.normal(size=(length, num_neurons)) for length in lengths]
    inputs = [generator.normal(size=(length, 2)) for length in lengths]
    recording = Recording.from_trials(trials, 0.01, inputs=inputs)
    assert recording.lengths.tolist() == lengths
    assert recording.activity.shape == (len(lengths), max(lengths), num_neurons)
    for row, trial, length in zip(recording.activity, trials, lengths, strict=True):
        np.testing.assert_array_equal(row[:length], trial.astype(np.float32))
        assert np.isnan(row[length:]).all()


def test_missing_entries_inside_a_trial_are_not_padding():
    activity = counts(2, 6, 3).astype(float)
    activity[0, 2:4] = np.nan
    activity[0, 5] = np.nan
    activity[1, 5, 1] = np.nan
    assert Recording(activity, 0.01).lengths.tolist() == [5, 6]


def test_selecting_keeps_trials_together_and_allows_a_silent_trial(toy_recording):
    activity = toy_recording.activity.copy()
    activity[5] = 0
    recording = replace(toy_recording, activity=activity)
    chosen = recording.select([5, 2])
    assert chosen.trial_ids.tolist() == [5, 2]
    assert recording.select([5]).activity.sum() == 0
    for name in ("activity", "inputs", "behavior", "condition", "rates"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(recording, name)[[5, 2]])


@pytest.mark.parametrize("trials", [[], [24], [-1]])
def test_selecting_trials_that_are_not_there_is_refused(toy_recording, trials):
    with pytest.raises(InputError, match=r"trials: got .* 0 to 23"):
        toy_recording.select(trials)


def test_checksum_hangs_on_every_field(toy_recording):
    assert replace(toy_recording).checksum == toy_recording.checksum
    activity = toy_recording.activity.copy()
    activity[0, 0, 0] += 1
    for change in (
        {"activity": activity},
        {"bin_width": 0.01},
        {"behavior": None},
        {"condition": np.arange(24) % 3},
        {"split": np.repeat(["train", "val"], 12)},
        {"heldin": np.arange(4)},
        {"num_encoded_bins": 10},
    ):
        assert replace(toy_recording, **change).checksum != toy_recording.checksum


def test_heldin_is_kept_in_order_of_the_neurons():
    assert Recording(counts(4, 5, 3), 0.01, heldin=np.array([2, 0])).heldin.tolist() == [0, 2]


BAD_FIELDS = {
    "activity .* has shape \\(0, 5, 3\\)": {"activity": counts(0, 5, 3)},
    "activity must be \\(trial, time, channel\\)": {"activity": counts(4, 5)},
    "activity must hold real numbers": {"activity": np.full((4, 5, 3), "x")},
    "activity\\[1, 2, 0\\] is infinite": {
        "activity": np.where(np.arange(60).reshape(4, 5, 3) == 21, np.inf, 1.0)
    },
    "activity\\[0, 0, 0\\] is infinite \\(or above": {"activity": np.full((4, 5, 3), 1e300)},
    "activity\\[2\\] is missing": {
        "activity": np.where(np.arange(4)[:, None, None] == 2, np.nan, counts(4, 5, 3))
    },
    "activity is 0 in all 4 trials": {"activity": np.zeros((4, 5, 3))},
    "seconds, got 20; did you mean 0.02": {"bin_width": 20.0},
    "seconds, got 5; did you mean 0.005": {"bin_width": 5.0},
    "positive number of seconds, got -1": {"bin_width": -1.0},
    "positive number of seconds, got nan": {"bin_width": float("nan")},
    "inputs has shape \\(4, 6, 1\\)": {"inputs": np.zeros((4, 6, 1))},
    "inputs\\[0, 3, 1\\] is NaN": {
        "inputs": np.where(np.arange(40).reshape(4, 5, 2) == 7, np.nan, 0.0)
    },
    "behavior has shape \\(3, 5, 2\\)": {"behavior": np.zeros((3, 5, 2))},
    "rates has shape \\(4, 5, 2\\)": {"rates": np.zeros((4, 5, 2))},
    "rates\\[0, 0, 0\\] is negative": {"rates": -np.ones((4, 5, 3))},
    "condition has shape \\(3,\\)": {"condition": np.arange(3)},
    "neuron_ids has shape \\(4,\\).*3 neurons": {"neuron_ids": np.arange(4)},
    "trial_ids has shape \\(2,\\).*4 trials": {"trial_ids": np.array(["a", "b"])},
    "split\\[1\\] is 'valid'; did you mean 'val'": {
        "split": np.array(["train", "valid", "val", "val"])
    },
    "heldin names neuron 3, but the 3 neurons": {"heldin": np.array([0, 3])},
    "heldin names neuron 1 twice": {"heldin": np.array([1, 1])},
    "heldin must be a list of indices": {"heldin": np.array([], dtype=int)},
    "num_encoded_bins must be from 1 to 5, got 6": {"num_encoded_bins": 6},
}


@pytest.mark.parametrize("sentence", BAD_FIELDS)
def test_bad_fields_are_refused_in_one_sentence(sentence):
    arguments = {"activity": counts(4, 5, 3), "bin_width": 0.01, **BAD_FIELDS[sentence]}
    with pytest.raises(InputError, match=sentence) as refused:
        Recording(**arguments)
    assert "\n" not in str(refused.value)


def test_trials_with_other_neurons_or_lengths_are_refused():
    with pytest.raises(InputError, match=r"activity\[1\] has shape \(4, 2\), expected \(4, 3\)"):
        Recording.from_trials([counts(5, 3), counts(4, 2)])
    with pytest.raises(InputError, match=r"behavior\[0\] has shape \(4, 1\), expected \(5, 1\)"):
        Recording.from_trials([counts(5, 3)], behavior=[np.zeros((4, 1))])
    with pytest.raises(InputError, match="inputs has 2 trials, but activity has 1"):
        Recording.from_trials([counts(5, 3)], inputs=[np.zeros((5, 1))] * 2)
    with pytest.raises(InputError, match="zero trials"):
        Recording.from_trials([])


def test_a_bin_of_one_second_is_fine_for_one_bin_and_doubtful_for_many():
    assert Recording(counts(9, 1, 3), 1.0).bin_width == 1.0
    with pytest.warns(UserWarning, match=r"bin_width is 2 s; if you meant 2 ms, write 0\.002"):
        Recording(counts(9, 5, 3), 2.0)


def test_silent_and_duplicated_neurons_are_named():
    activity = counts(6, 5, 4)
    activity[:, :, 1] = 0
    with pytest.warns(UserWarning, match="1 of 4 neurons are silent, the first is neuron 1"):
        Recording(activity, 0.01)
    activity[:, :, 1] = activity[:, :, 3]
    with pytest.warns(UserWarning, match="neurons 1 and 3 are identical"):
        Recording(activity, 0.01)


def test_dark_pixels_of_pictures_are_no_reason_to_warn():
    pixels = np.zeros((5, 1, 9))
    pixels[:, 0, 4] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Recording(pixels)


def test_a_neuron_that_was_never_recorded_is_not_silent():
    activity = counts(6, 5, 4).astype(float)
    activity[:, :, [0, 2]] = np.nan
    assert Recording(activity, 0.01).num_neurons == 4


def test_reading_gives_the_trials_that_are_asked_for(toy_recording):
    np.testing.assert_array_equal(toy_recording.read([3, 1]), toy_recording.activity[[3, 1]])
    np.testing.assert_array_equal(toy_recording.read(), toy_recording.activity)
    assert toy_recording.shape == (24, 12, 6)
    trials = np.concatenate([piece.trials for piece in pieces(toy_recording)])
    assert trials.tolist() == list(range(24))


def test_checksum_is_that_of_all_bytes_at_once_however_they_are_read(toy_recording, monkeypatch):
    digest = hashlib.sha256()
    for field in fields(toy_recording)[:12]:  # later ones count where they are
        value = getattr(toy_recording, field.name)
        if isinstance(value, np.ndarray):
            digest.update(f"{field.name} {value.dtype.str} {value.shape}".encode())
            digest.update(value.tobytes())
        else:
            digest.update(f"{field.name} {value!r}".encode())
    assert toy_recording.checksum == digest.hexdigest()
    monkeypatch.setattr("seqvae.data.lazy_checks._NUMBERS_AT_ONCE", 7)
    assert toy_recording.checksum == digest.hexdigest()


def test_a_recording_is_printed_in_one_line(toy_recording):
    there = "inputs, behavior, condition, rates"
    sizes = "24 trials, 12 bins of 0.02 s, 6 neurons"
    assert repr(toy_recording) == f"Recording({sizes}, with {there})"
    assert repr(Recording(np.ones((1, 1, 4)))) == "Recording(1 trials, 1 bins, 4 neurons)"


def test_activity_is_read_outside_data_by_read_alone():
    package = Path(seqvae.__file__).parent
    readers = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in package.rglob("*.py")
        if path.parts[len(package.parts)] != "data"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "activity"
    ]
    assert not readers


@pytest.mark.parametrize("trials", [[1.7], [[0, 1]], [True, False], ["a"], [-1], [100]])
def test_only_indices_of_trials_are_read(toy_recording, trials):
    """Whoever reads or selects; a mask or a fraction would be taken for other trials."""
    with pytest.raises(InputError, match=r"trials: got .*; give indices from 0 to 23"):
        toy_recording._index(np.array(trials))


def test_trials_are_read_in_the_given_order(toy_recording):
    read = toy_recording.read([5, 0, 5])
    np.testing.assert_array_equal(read, toy_recording.activity[[5, 0, 5]])
