"""Spikes that are counted when their bins are asked for give the counts of all at once."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

import seqvae.data.sizes
from nwb_files import UNITS, nwb_file, starts, write_nwb
from seqvae import InputError, NeuralData, Recording
from seqvae.data.events import SpikeRows, Unseen
from seqvae.data.lazy import LazyActivity
from seqvae.data.sources import NWB, SpikeTimes
from seqvae.data.transforms import rebin

pytestmark = pytest.mark.filterwarnings("ignore")  # of spikes that stand twice, and short blocks
WIDTH = 0.02
# milliseconds stand on edges of bins, and some of them twice
MILLISECONDS = [np.random.default_rng(n).integers(0, 9000, 600 * n + 1) for n in range(6)]
TIMES = [times / 1000 for times in MILLISECONDS]
COLUMNS = {
    "spike_times": np.concatenate(TIMES),
    "neuron_ids": np.repeat(np.arange(6), list(map(len, TIMES))),
    "trial_ids": np.concatenate([times % 4 for times in MILLISECONDS]),
}


def both(source, monkeypatch) -> tuple[Recording, Recording, list[str]]:
    """The recording with all counts in memory, and with none; and what both warn of."""
    recordings, sentences = [], []
    for most in (10**9, 10):
        monkeypatch.setattr(seqvae.data.sizes, "LARGE", most)
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            recordings.append(source.load())
        sentences.append(sorted(str(one.message) for one in messages))
    whole, lazy = recordings
    assert isinstance(lazy.activity, LazyActivity)
    assert not isinstance(whole.activity, LazyActivity)
    assert sentences[0] == sentences[1]
    return whole, lazy, sentences[0]


def assert_same(whole: Recording, lazy: Recording) -> None:
    np.testing.assert_array_equal(lazy.read(), whole.read())
    assert lazy.lengths.tolist() == whole.lengths.tolist()
    assert lazy.checksum == whole.checksum == pickle.loads(pickle.dumps(lazy)).checksum


@pytest.mark.parametrize(
    ("times", "intervals"),
    [
        (TIMES, [0.0, 9.0]),
        (TIMES, [[0.5, 2.5], [2.0, 4.0], [2.01, 4.01], [7.0, 9.5]]),  # overlapping
        (TIMES, [[0.503, 1.0], [1.0, 4.7], [6.3, 6.32]]),  # unequal
        (COLUMNS, [[0.0, 9.0], [1.0, 3.0], [2.0, 5.5], [0.1, 8.0]]),  # of trials
    ],
)
def test_counts_are_those_of_all_at_once(times, intervals, monkeypatch):
    whole, lazy, _ = both(SpikeTimes(times, WIDTH, intervals), monkeypatch)
    assert_same(whole, lazy)
    assert_same(rebin(whole, 0.1), rebin(lazy, 0.1)) if whole.lengths.min() > 4 else None
    spans = np.round(1000 * np.atleast_2d(intervals)).astype(int)
    for trial, (first, last) in enumerate(spans):
        edges = np.arange(first, last + 1, 20)
        for unit, own in enumerate(MILLISECONDS):
            own = own[own % 4 == trial] if times is COLUMNS else own
            expected = np.histogram(own[(own >= edges[0]) & (own < edges[-1])], edges)[0]
            np.testing.assert_array_equal(lazy.read([trial])[0, : len(expected), unit], expected)


def test_any_bins_of_any_trial_are_counted_as_in_the_whole():
    generator = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e6, 1e12):  # where times are coarser than bins, too
        units = [scale * generator.uniform(-3, 30, size) for size in (0, 40, 3000)]
        begins = scale * np.array([-4.0, 0.1, 7.7, 29.9])
        for width in (0.013, 0.013 * scale):
            seen = np.sort(generator.uniform(begins[1], begins[1] + 40 * width, (3, 2)), axis=1)
            unseen = [Unseen(np.array([0, 2]), seen)]
            rows = SpikeRows([units], begins, bin_width=width, num_bins=57, unseen=unseen)
            whole = rows.whole()
            for _ in range(20):
                trial = int(generator.integers(4))
                start, stop = sorted(generator.integers(0, 58, 2).tolist())
                some = rows[trial, slice(start, stop)]
                np.testing.assert_array_equal(some, whole[trial, start:stop])


@pytest.mark.parametrize("align_to", ["move_onset_time", None])
def test_what_was_not_observed_in_a_file_is_missing_likewise(align_to, tmp_path, monkeypatch):
    spans = np.stack([starts(), starts() + 1.3], axis=1)
    file = nwb_file(intervals=[spans[unit:] for unit in range(UNITS)])
    file.trials["stop_time"].data[:] = (starts() + np.linspace(0.5, 2.5, len(starts()))).tolist()
    file.trials["move_onset_time"].data[2] = 500.0  # past the end
    path = write_nwb(tmp_path / "a.nwb", file)
    whole, lazy, sentences = both(NWB(path, WIDTH, align_to=align_to), monkeypatch)
    assert_same(whole, lazy)
    assert any("reach beyond what was recorded" in one for one in sentences)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sums = whole.read()[:, :25].reshape(len(whole.read()), 5, 5, -1).sum(axis=2)
    np.testing.assert_array_equal(rebin(lazy, 0.1).read()[:, :5], sums)


def test_batches_of_a_long_recording_are_the_same(monkeypatch):
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 10)
    lazy = NeuralData(SpikeTimes(TIMES, WIDTH, [0.0, 9.0]), window_bins=40, heldout=[1])
    batches = list(lazy.batches("train", 2))
    monkeypatch.undo()
    whole = NeuralData(SpikeTimes(TIMES, WIDTH, [0.0, 9.0]), window_bins=40, heldout=[1])
    for one, other in zip(batches, whole.batches("train", 2), strict=True):
        assert (one.target == other.target).all()
        assert (one.observed_mask == other.observed_mask).all()


def test_no_more_bins_are_made_than_anybody_goes_through(monkeypatch):
    monkeypatch.setattr("seqvae.data.spikes.MONTH", 1e11)  # else refused as no seconds
    monkeypatch.setattr("seqvae.data.spikes.SELDOM", 0.0)
    with pytest.raises(InputError, match=r"takes 3e\+12 numbers, more than 2e\+10"):
        SpikeTimes(TIMES, WIDTH, [0.0, 1e10]).load()
    rows = SpikeRows([[np.zeros(9)]], np.zeros(1), bin_width=1.0, num_bins=2)
    monkeypatch.setattr("seqvae.data.events._EXACT", 8)
    with pytest.raises(InputError, match="a bin holds 9 spikes, more than 8"):
        rows.whole()
