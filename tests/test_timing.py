from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from seqvae import plotting
from seqvae.analysis.posterior import posterior_dataset
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import HDF5, Arrays, Npz, write_hdf5, write_npz
from seqvae.data.transforms import align
from seqvae.errors import InputError
from seqvae.models import VAE

TRIALS, BINS = 10, 8


def recording(**fields) -> Recording:
    counts = np.random.default_rng(0).poisson(1.0, (TRIALS, BINS, 4))
    return Recording(counts, 0.02, **fields)


def timed(**fields) -> Recording:
    given = {
        "start_times": 3.0 * np.arange(TRIALS),
        "event_times": 0.05,
        "event_name": "move_onset_time",
        "segment_ids": np.arange(TRIALS) // 5,
        "session_id": "monday",
    }
    return recording(**(given | fields))


def inferred(given: Recording) -> xr.Dataset:
    data = NeuralData(given)
    data.setup()
    torch.manual_seed(0)
    model = VAE(data.spec, latent_dim=1)
    return posterior_dataset(model, data, np.arange(given.num_trials), num_samples=2)


def test_time_is_that_of_the_centres_of_the_bins_and_zero_at_the_event():
    assert timed().times.tolist() == [-0.04, -0.02, 0.0, 0.02, 0.04, 0.06, 0.08, 0.1]
    assert timed().event_times.tolist() == [0.05] * TRIALS


def test_without_one_event_for_all_trials_there_is_no_one_axis_of_time():
    assert recording().times is None
    assert recording(start_times=np.arange(TRIALS)).times is None
    assert timed(event_times=np.linspace(0.05, 0.051, TRIALS)).times is None
    assert timed(event_times=[np.nan, *[0.05] * (TRIALS - 1)]).times is None


def test_a_recording_without_times_has_the_checksum_it_had_before_there_were_any():
    counts = np.arange(24.0).reshape(2, 4, 3)
    checksum = "3da1e38b282808539c3181e2bff686d1057145bbdc2666cb04261debda438cf2"
    assert Recording(counts, 0.02).checksum == checksum
    first = {Recording(counts, 0.02).checksum}
    for name, value in (
        ("start_times", [0, 1]),
        ("event_times", 0.1),
        ("event_name", "cue"),
        ("segment_ids", ["a", "b"]),
        ("session_id", "monday"),
    ):
        first.add(Recording(counts, 0.02, **{name: value}).checksum)
    assert len(first) == 6


def test_times_go_with_their_trials():
    chosen = timed().select([7, 2])
    assert chosen.start_times.tolist() == [21, 6]
    assert chosen.segment_ids.tolist() == [1, 0]
    assert chosen.session_id == "monday"


def test_trials_cut_out_around_events_know_when_they_are():
    long = Recording(np.arange(30.0)[None, :, None], 0.1, start_times=[50.0], segment_ids=["a"])
    trials = align(long, [1.0, 2.0], (-0.2, 0.3))
    assert np.allclose(trials.start_times, [50.8, 51.8])
    assert np.allclose(trials.times, [-0.15, -0.05, 0.05, 0.15, 0.25])
    assert trials.segment_ids.tolist() == ["a", "a"]


def test_windows_begin_where_they_lie_in_the_long_recording():
    long = Recording(
        np.arange(30.0)[None, :, None],
        0.1,
        start_times=[50.0],
        event_times=1.0,
        segment_ids=["a"],
    )
    cut = long.cut([(0, 10), (10, 30)])
    assert cut.start_times.tolist() == [50, 51]
    assert cut.event_times.tolist() == [1, 0]
    assert cut.segment_ids.tolist() == ["a", "a"]
    assert replace(long, bin_width=None).cut([(0, 10), (10, 30)]).start_times is None


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("start_times", [1.0, np.nan], r"start_times\[1\] is missing"),
        ("start_times", [1.0], "start_times has shape .*each of the 2 trials"),
        ("event_times", [0.1, np.inf], r"event_times\[1\] is infinite; give NaN"),
        ("event_times", "soon", "event_times must hold real numbers"),
        ("event_name", ["a", "b"], "event_name must be one text"),
    ],
)
def test_times_that_cannot_be_are_refused(field, value, sentence):
    with pytest.raises(InputError, match=sentence):
        Recording(np.ones((2, 3, 1)) * [[1], [2], [3]], 0.1, **{field: value})


@pytest.mark.parametrize(
    ("write", "read", "name"), [(write_hdf5, HDF5, "a.h5"), (write_npz, Npz, "a.npz")]
)
def test_times_are_written_and_read_back(write, read, name, tmp_path):
    write(timed(), tmp_path / name)
    again = read(tmp_path / name).load()
    assert again.checksum == timed().checksum
    assert again.event_name == "move_onset_time"
    assert np.array_equal(again.times, timed().times)


def test_arrays_take_times_beside_a_recording():
    assert Arrays(recording(), event_times=0.1, event_name="cue").load().times[5] == 0.01


def test_a_posterior_tells_times_from_the_event_only_where_it_is_known():
    results = inferred(timed())
    assert np.array_equal(results.time.values, timed().times)
    assert results.time.attrs == {
        "units": "s",
        "long_name": "centre of the bin, 0 at move_onset_time",
        "event": "move_onset_time",
    }
    assert results.start_time.values.tolist() == timed().start_times.tolist()
    assert results.attrs["session_id"] == "monday"
    plain = inferred(recording())
    assert plain.time.attrs == {"units": "s", "long_name": "start of the bin"}
    assert np.array_equal(plain.time.values, np.arange(BINS) * 0.02)
    assert set(plain.coords) == {"trial", "time", "neuron", "heldin", "split"}
    assert np.array_equal(plain.rates.values, results.rates.values)


def test_figures_over_time_draw_the_event():
    results = inferred(timed()).drop_vars("condition", errors="ignore")
    results = results.assign(
        inferred_inputs_mean=results.latent_mean, inferred_inputs_sd=results.latent_sd
    )
    for figure in (
        plotting.rasters_and_rates(results),
        plotting.rate_traces(results),
        plotting.inferred_inputs(results),
    ):
        panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
        for axes in panels:
            (line,) = [line for line in axes.lines if line.get_label() == "event"]
            assert line.get_xdata() == [0, 0]
        assert panels[-1].get_xlabel() == "time from move onset (s)"
        assert panels[0].get_xlim()[0] <= -0.04


def test_events_that_differ_are_the_zero_of_time_in_all_trials():
    offsets = np.linspace(0.0, 0.15, TRIALS)
    figure = plotting.rate_traces(inferred(timed(event_times=offsets)), trials=[0, 4], neurons=[1])
    for axes in figure.axes:
        (line,) = [line for line in axes.lines if line.get_label() == "event"]
        assert line.get_xdata() == [0, 0]
    assert figure.axes[0].get_xlabel() == "time from move onset (s)"


def test_events_that_some_trials_do_not_have_are_drawn_where_they_are():
    offsets = np.linspace(0.0, 0.2, TRIALS)  # the last one is after the end
    results = inferred(timed(event_times=offsets))
    figure = plotting.rate_traces(results, trials=[0, 4, 9], neurons=[1])
    drawn = [
        [line.get_xdata()[0] for line in axes.lines if line.get_label() == "event"]
        for axes in figure.axes
    ]
    assert drawn == [[0.0], [offsets[4]], []]
    assert figure.axes[0].get_xlabel() == "time (s)"
