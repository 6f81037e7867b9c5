import numpy as np
import pytest

from seqvae.data.binning import observed_bins, warn_of_doubled_spikes
from seqvae.data.events import SpikeRows


def bin_spikes(units, starts, *, bin_width, num_bins):
    return SpikeRows([units], starts, bin_width=bin_width, num_bins=num_bins).whole()


def test_counts_equal_an_independent_histogram():
    generator = np.random.default_rng(0)
    units = [generator.uniform(-1, 21, size=size) for size in (0, 1, 3000, 5000)]
    starts = np.array([-0.5, 0.3, 7.7, 7.75, 19.9])  # before all, overlapping, past the end
    counts = bin_spikes(units, starts, bin_width=0.013, num_bins=40)
    edges = starts[:, None] + np.arange(41) * 0.013
    expected = [[np.histogram(times, row)[0] for times in units] for row in edges]
    assert np.array_equal(counts, np.swapaxes(expected, 1, 2))
    assert counts.dtype == np.uint8


@pytest.mark.parametrize("bin_width", [1, 5, 20, 30])
def test_spikes_on_edges_are_counted_in_the_bin_that_begins_there(bin_width):
    # whole milliseconds: the histogram is one of integers, in which nothing is rounded
    generator = np.random.default_rng(1)
    times = generator.integers(0, 100_000, size=20_000)
    starts = np.array([0, 7, 1234, 90_000])
    counts = bin_spikes([times / 1000], starts / 1000, bin_width=bin_width / 1000, num_bins=300)
    for trial, start in enumerate(starts):
        edges = start + np.arange(301) * bin_width
        inside = times[(times >= edges[0]) & (times < edges[-1])]
        assert np.array_equal(counts[trial, :, 0], np.histogram(inside, edges)[0])


def test_bins_are_closed_on_the_left_and_open_on_the_right():
    times = np.array([0.1, 0.2, 0.3, 0.1 + 0.2, np.nextafter(0.3, 0)])
    counts = bin_spikes([times], np.array([0.0]), bin_width=0.1, num_bins=3)
    assert counts[0, :, 0].tolist() == [0, 1, 1]
    assert bin_spikes([times], np.array([0.3]), bin_width=0.1, num_bins=1).sum() == 3


def test_unsorted_doubled_and_missing_times_are_counted_as_they_stand():
    times = np.array([0.5, np.nan, 0.1, 0.5, np.inf, -3.0, -np.inf])
    counts = bin_spikes([times], np.array([0.0]), bin_width=0.25, num_bins=4)
    assert counts[0, :, 0].tolist() == [1, 0, 2, 0]
    with pytest.warns(UserWarning, match="units b have spikes at the very same time"):
        warn_of_doubled_spikes([times[2:3], times], np.array(["a", "b"]))


def test_counts_are_of_the_smallest_type_that_holds_them():
    def largest(count):
        return bin_spikes([np.zeros(count)], np.zeros(1), bin_width=1.0, num_bins=1)

    assert largest(255).dtype == np.uint8
    assert largest(256).dtype == np.uint16
    assert largest(70_000).item() == 70_000


def test_bins_are_observed_where_they_lie_wholly_within_intervals():
    intervals = np.array([[0.5, 0.6], [0.0, 0.3], [0.3, 0.35], [0.1, 0.2]])
    observed = observed_bins(intervals, np.array([0.0, 0.05]), bin_width=0.1, num_bins=7)
    assert observed[0].tolist() == [True, True, True, False, False, True, False]
    assert observed[1].tolist() == [True, True, True, False, False, False, False]
    none = observed_bins(np.zeros((0, 2)), np.zeros(1), bin_width=0.1, num_bins=2)
    assert not none.any()
