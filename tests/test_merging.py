"""Rates of overlapping windows merged onto the time of the recording."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest
import xarray as xr

from seqvae import (
    EM,
    InputError,
    LinearDynamics,
    NeuralData,
    Run,
    SwitchingEM,
    SwitchingLinearDynamics,
    fit,
    infer,
)
from seqvae.console.main import main
from seqvae.data import Recording
from seqvae.data.sources import SimulatedLinearDynamics, write_npz
from seqvae.data.transforms import Smooth, ZScore
from seqvae.plotting import rasters_and_rates, rate_traces


def one_long(num_bins: int = 1500, num_neurons: int = 20) -> Recording:
    simulated = SimulatedLinearDynamics(
        latent_dim=2,
        num_neurons=num_neurons,
        num_trials=2,
        num_val=1,
        num_heldout=0,
        num_time_bins=num_bins,
    ).load()
    return Recording(simulated.read([0]), 0.02)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("long") / "run"
    write_npz(one_long(), folder.parent / "long.npz")
    data = NeuralData(str(folder.parent / "long.npz"), window_bins=100)
    model = partial(LinearDynamics, latent_dim=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(data, model, EM(max_iterations=8), run_dir=str(folder))


def test_merged_rates_are_those_of_one_pass(long_run):
    merged = infer(long_run, merged=True, overlap=0.5)
    assert dict(merged.sizes) == {"time": 1500, "neuron": 20, "factor": 2, "latents_dim": 2}
    model = long_run.model()
    recording = one_long()
    whole = NeuralData(recording, val_fraction=0.0).adapted(long_run.spec)
    batch = whole.batch([0])
    expected = model.expectations(model(batch), batch)
    for name, one_pass in (
        ("rates", expected.mean[0] / 0.02), ("rates_sd", expected.mean_sd[0] / 0.02),
        ("factors", expected.factors[0]),
    ):  # fmt: skip
        values, one_pass = merged[name].values, one_pass.numpy()
        unexplained = ((values - one_pass) ** 2).sum() / ((one_pass - one_pass.mean(0)) ** 2).sum()
        assert 1 - unexplained > 0.995, name
    np.testing.assert_allclose(merged.time, np.arange(1500) * 0.02)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.9])
def test_any_overlap_covers_every_bin(long_run, overlap):
    merged = infer(long_run, merged=True, overlap=overlap)
    assert np.isfinite(merged["rates"].values).all()
    assert merged.attrs["overlap"] == overlap


def test_split_is_told_beside_the_bins(long_run):
    merged, apart = infer(long_run, merged=True), infer(long_run)
    train = merged["split"].values == "train"
    bins = [
        round(float(s) / 0.02) for s, w in zip(apart.start, apart.split, strict=True)
        if w == "train"
    ]  # fmt: skip
    assert train[bins].all()
    assert set(merged["split"].values) == {"train", "val", "gap"}
    new = infer(long_run, Recording(one_long().read()[:, 100:800], 0.02), merged=True)
    assert set(new["split"].values) == {"new"}


def test_bins_in_which_nothing_was_recorded_are_nan(long_run):
    values = one_long().read().copy()
    values[0, 300:650] = np.nan
    values[0, 1200, :7] = np.nan
    merged = infer(long_run, Recording(values, 0.02), merged=True)
    seen = np.isfinite(merged["rates"].values).all(axis=1)
    assert (~seen).nonzero()[0].tolist() == list(range(300, 650))
    assert np.isfinite(merged["rates_sd"].values[seen]).all()


def test_a_file_of_some_variables_in_half_precision_is_half_as_large(long_run, tmp_path):
    out, run = str(tmp_path / "merged.nc"), str(long_run.folder)
    assert main(["infer", "--run", run, "--merged", "true", "--overlap", "0.25", "--out", out,
                 "--variables", "[rates, rates_sd]", "--dtype", "float16"]) == 0  # fmt: skip
    with xr.open_dataset(out, engine="h5netcdf") as small:
        assert set(small.data_vars) == {"rates", "rates_sd"}
        assert small["rates"].dtype == np.float16
        whole = infer(long_run, merged=True, overlap=0.25)
        np.testing.assert_allclose(small["rates"].values, whole["rates"], rtol=1e-3)
        assert (small["split"].values == whole["split"].values).all()
    store = infer(long_run, merged=True, overlap=0.25, out=str(tmp_path / "merged.zarr"))
    xr.testing.assert_equal(store, whole)
    for draw in (rasters_and_rates, rate_traces):
        with pytest.raises(ValueError, match="has no trials, as windows of it were merged"):
            draw(whole)


def test_variables_and_precision_are_chosen_of_windows_too(long_run):
    whole, small = infer(long_run), infer(long_run, variables=["rates", "elbo"], dtype="float16")
    assert set(small.data_vars) == {"rates", "elbo"}
    assert small["elbo"].equals(whole["elbo"])
    np.testing.assert_allclose(small["rates"].values, whole["rates"], rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"overlap": 1.0}, "from 0 to below 1"),
        ({"split": "val"}, "leave split 'val' out"),
        ({"variables": ["rate"]}, "there is no 'rate'; did you mean 'rates'"),
    ],
)
def test_what_cannot_be_merged_is_one_sentence(long_run, tmp_path, settings, sentence):
    out = tmp_path / "merged.nc"
    with pytest.raises(InputError, match=sentence):
        infer(long_run, merged=True, out=str(out), **settings)
    assert list(tmp_path.iterdir()) == []


def test_windows_are_of_the_recording_after_all_transforms_once():
    recording = one_long(600, 6)
    for transforms in ([Smooth(0.05)], [Smooth(0.05), ZScore()]):
        data = NeuralData(recording, window_bins=50, transforms=transforms)
        _, chopped = data.chopped(50, overlap=0.5)
        merged, _ = chopped.merge(chopped.recording.read())
        pieces = zip(data.start, data.recording.lengths, data.recording.activity, strict=True)
        for start, length, values in pieces:
            there = merged[0, start : start + length]
            np.testing.assert_allclose(there, values[:length], atol=1e-6)


def test_trials_of_which_nobody_knows_the_time_are_not_merged(long_run):
    trials = Recording(one_long().read().reshape(15, 100, 20), 0.02)
    with pytest.raises(InputError, match="nobody says when the 15 trials began"):
        infer(long_run, trials, merged=True)


def test_states_are_the_likeliest_of_faded_probabilities():
    data = NeuralData(one_long(300, 6), window_bins=60)
    model = partial(SwitchingLinearDynamics, latent_dim=1, num_states=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = fit(data, model, SwitchingEM(max_iterations=1), in_memory=True)
    merged = infer(run, merged=True, overlap=0.7)
    share = merged["states_mean"].values
    np.testing.assert_allclose(share.sum(1), 1, atol=1e-5)
    assert (merged["states"].values == share.argmax(1)).all()


def test_trials_of_known_times_are_merged_onto_one_axis(long_run):
    values = one_long().read()[0]
    trials = Recording(
        np.stack([values[600:800], values[:200]]), 0.02, start_times=[100.0 + 12.0, 100.0]
    )
    merged = infer(long_run, trials, merged=True)
    np.testing.assert_allclose(merged.time[[0, 1, -1]], [100.0, 100.02, 100 + 799 * 0.02])
    seen = np.isfinite(merged["rates"].values).all(axis=1)
    assert seen.nonzero()[0].tolist() == [*range(200), *range(600, 800)]
    alone = infer(long_run, Recording(values[None, 600:800], 0.02), merged=True)
    np.testing.assert_allclose(merged["rates"].values[600:], alone["rates"], rtol=1e-4)
    near = Recording(trials.read(), 0.02, start_times=[0.0, 1.0])
    with pytest.raises(InputError, match="trials 0 and 1 overlap in time"):
        infer(long_run, near, merged=True)
