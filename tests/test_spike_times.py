"""Times of spikes, from whatever holds them, in bins that are closed on their left."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.io

from seqvae import NeuralData, Recording, check
from seqvae.console.main import main
from seqvae.data.sources import MAT, Npz, SpikeTimes
from seqvae.errors import InputError

GENERATOR = np.random.default_rng(3)
TIMES = [GENERATOR.permutation(GENERATOR.uniform(1.0, 9.0, n)) for n in (40, 1, 25)]
SPAN = (0.5, 9.5)
WIDTH = 0.05


def histogram(times, start: float, num_bins: int, width: float = WIDTH) -> np.ndarray:
    """Counts by numpy alone; one bin more, as its last one is closed on both sides."""
    edges = start + width * np.arange(num_bins + 2)
    return np.histogram(np.asarray(times), edges)[0][:-1]


def quietly(source: SpikeTimes | MAT | Npz) -> Recording:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return source.load()


def expected() -> np.ndarray:
    return np.stack([histogram(times, 0.5, 180) for times in TIMES], axis=1)[None]


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    order = GENERATOR.permutation(66)
    units = np.repeat(np.arange(3), [40, 1, 25])
    return {"spike_times": np.concatenate(TIMES)[order], "neuron_ids": units[order]}


def test_every_container_gives_the_counts_of_an_independent_histogram(columns, tmp_path):
    np.savez(tmp_path / "a.npz", **columns)
    for times in (TIMES, dict(enumerate(TIMES)), columns, str(tmp_path / "a.npz")):
        recording = SpikeTimes(times, WIDTH, SPAN).load()
        np.testing.assert_array_equal(recording.activity, expected())
        assert recording.start_times.tolist() == [0.5]


def test_pynapple_groups_keep_their_names_and_support():
    nap = pytest.importorskip("pynapple")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        support = nap.IntervalSet(*SPAN)
        group = nap.TsGroup(
            {7 + n: nap.Ts(np.sort(t)) for n, t in enumerate(TIMES)}, time_support=support
        )
        recording = NeuralData(group, bin_width=WIDTH, val_fraction=0.0).recording
        pairs = nap.IntervalSet([1.0, 4.0], [3.0, 5.0])
        trials = SpikeTimes(group, WIDTH, pairs, unit_ids=[9, 7]).load()
    np.testing.assert_array_equal(recording.activity, expected())
    assert recording.neuron_ids.tolist() == [7, 8, 9]
    assert trials.neuron_ids.tolist() == [9, 7]
    assert trials.lengths.tolist() == [40, 20]
    np.testing.assert_array_equal(trials.activity[1, :20, 0], histogram(TIMES[2], 4.0, 20))
    assert np.isnan(trials.activity[1, 20:]).all()


@pytest.mark.filterwarnings("ignore:1 of 3 neurons are silent")
def test_neo_units_are_respected_and_segments_are_trials():
    neo, pq = pytest.importorskip("neo"), pytest.importorskip("quantities")

    def trains() -> list:
        span = {"t_start": 0.5 * pq.s, "t_stop": 9.5 * pq.s}
        return [neo.SpikeTrain(times * 1000 * pq.ms, **span) for times in TIMES]

    np.testing.assert_array_equal(SpikeTimes(trains(), WIDTH).load().activity, expected())
    block = neo.Block()
    for _ in range(2):
        segment = neo.Segment()
        segment.spiketrains.extend(trains())
        block.segments.append(segment)
    assert SpikeTimes(block, WIDTH).load().activity.shape == (2, 180, 3)
    epoch = neo.Epoch(times=[1000.0, 4000.0] * pq.ms, durations=[2.0, 2.0] * pq.s)
    two = SpikeTimes(trains(), WIDTH, epoch).load()
    np.testing.assert_array_equal(two.activity[1, :, 0], histogram(TIMES[0], 4.0, 40))
    block.segments[1].spiketrains.append(trains()[0])
    with pytest.raises(InputError, match="trial 1 has 4 neurons, but trial 0 has 3"):
        SpikeTimes(block, WIDTH).load()


def test_spikes_on_edges_stand_in_the_bin_that_begins_there():
    times = [0.1 * np.arange(10), np.array([0.0, 0.3, 0.6 + 1e-18, 1.0])]
    counts = SpikeTimes(times, 0.1, (0.0, 1.0)).load().activity[0]
    np.testing.assert_array_equal(counts[:, 0], np.ones(10))
    assert np.flatnonzero(counts[:, 1]).tolist() == [0, 3, 6]


def test_spikes_outside_or_in_no_order_change_nothing_and_doubled_ones_are_told():
    late = [np.append(times, [-3.0, 0.1, 11.0]) for times in TIMES]
    np.testing.assert_array_equal(SpikeTimes(late, WIDTH, SPAN).load().activity, expected())
    doubled = [np.append(TIMES[0], TIMES[0][0]), *TIMES[1:]]
    with pytest.warns(UserWarning, match="units 0 have spikes at the very same time"):
        counts = SpikeTimes(doubled, WIDTH, SPAN).load().activity
    assert counts.sum() == expected().sum() + 1


def test_a_unit_without_spikes_keeps_its_place(columns):
    source = SpikeTimes(columns, WIDTH, SPAN, unit_ids=[0, 1, 2, 5])
    with pytest.warns(UserWarning, match="silent"):
        recording = source.load()
    assert recording.neuron_ids.tolist() == [0, 1, 2, 5]
    assert not recording.activity[..., 3].any()


def test_without_intervals_a_warning_tells_the_window():
    with pytest.warns(UserWarning, match="intervals: none are given"):
        recording = SpikeTimes(TIMES, WIDTH).load()
    assert recording.activity.sum() == 66
    assert recording.start_times[0] == pytest.approx(min(map(min, TIMES)), abs=WIDTH)


def test_times_of_trials_are_their_own():
    trials = [[times[times < 4], times[times >= 4]] for times in TIMES[::2]]
    recording = SpikeTimes(trials, WIDTH, (0.0, 10.0)).load()
    np.testing.assert_array_equal(recording.activity[1, :, 1], histogram(trials[1][1], 0.0, 200))
    absolute = [[np.array([1.0 + 10 * k, 2.0 + 10 * k])] for k in range(4)]
    with pytest.raises(InputError, match="each trial needs begin and end"):
        SpikeTimes(absolute, WIDTH).load()


@pytest.mark.parametrize(
    ("times", "options", "sentence"),
    [
        (TIMES, {"intervals": (3.0, 2.0)}, "its end must come after its begin"),
        (TIMES, {"intervals": (20.0, 22.0)}, "none of the spikes"),
        (TIMES, {"intervals": (1.0, 1.01)}, "less than one bin"),
        (TIMES, {"intervals": [[1.0, 2.0, 3.0]]}, "give begin and end"),
        (TIMES, {"unit_ids": [1, 1, 2]}, r"neuron_ids\[1\] is '1'"),
        ({"a": TIMES[0]}, {"unit_ids": ["b"]}, "unit_ids names 'b'"),
        ([np.array([np.inf])], {}, "infinite"),
        ([np.zeros(0)], {}, "no spikes at all"),
        ([[TIMES[0]], [TIMES[0], TIMES[1]]], {}, "trial 1 has 2 neurons, but trial 0 has 1"),
        ({"spike_times": TIMES[0], "neuron_ids": [1]}, {}, "give one for each spike"),
        (3, {}, "times is an int"),
        ("nowhere.npz", {}, "does not exist"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_a_sentence(times, options, sentence):
    with pytest.raises(InputError, match=sentence):
        SpikeTimes(times, WIDTH, **options).load()
    with pytest.raises(InputError, match="in seconds"):
        SpikeTimes(TIMES, 20.0).load()


@pytest.mark.filterwarnings("ignore:intervals")
def test_columns_in_an_archive_are_read_from_the_command_line(columns, tmp_path, capsys):
    path = tmp_path / "a.npz"
    np.savez(path, **columns, trial_ids=np.arange(66) % 6)
    flags = ["--data.source.path", str(path), "--data.source.bin_width", "0.05"]
    assert main(["check", *flags]) == 0
    assert "bin width (s): 0.05" in capsys.readouterr().out
    flags = ["--data.source", "SpikeTimes", "--data.source.times", str(path)]
    assert main(["check", *flags, "--data.source.bin_width", "0.05"]) == 0
    with pytest.raises(InputError, match="bin_width is required"):
        Npz(path).load()
    with pytest.raises(InputError, match="bin_width is required"):
        check(TIMES)


def test_times_in_cells_of_matlab_are_counted(tmp_path):
    cells = np.empty((1, 3), dtype=object)
    cells[0] = [times[:, None] for times in map(np.sort, TIMES)]
    scipy.io.savemat(tmp_path / "a.mat", {"spikes": cells, "window": np.array([[0.5, 9.5]])})
    keys = {"activity": "spikes", "intervals": "window"}
    recording = quietly(MAT(tmp_path / "a.mat", keys, bin_width=WIDTH))
    np.testing.assert_array_equal(recording.activity, expected())
    milliseconds = MAT(tmp_path / "a.mat", keys, ["neuron"], 50e-6, sample_width=0.001)
    with pytest.raises(InputError, match="none of the spikes"):
        milliseconds.load()
