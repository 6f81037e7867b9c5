from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

from seqvae.analysis.posterior_file import PosteriorWriter
from seqvae.errors import InputError

TRIALS, TIME, NEURONS, FACTORS = 7, 5, 4, 2


def values(num_trials: int = TRIALS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "rates": (TIME, NEURONS),
        "rates_sd": (TIME, NEURONS),
        "factors": (TIME, FACTORS),
        "factors_sd": (TIME, FACTORS),
        "initial_condition_mean": (3,),
        "initial_condition_sd": (3,),
        "inferred_inputs_mean": (TIME, 1),
        "inferred_inputs_sd": (TIME, 1),
        "elbo": (),
    }
    return {name: rng.gamma(1.0, size=(num_trials, *shape)) for name, shape in shapes.items()}


def writer(path: Path | None, *, num_trials: int = TRIALS, **others) -> PosteriorWriter:
    labels = {
        "heldin": ("neuron", np.arange(NEURONS) < 3),
        "condition": ("trial", np.arange(num_trials) % 2),
        "split": ("trial", np.array(["train", "val"])[np.arange(num_trials) % 2]),
    }
    arguments = {
        "trial": np.arange(num_trials) + 10,
        "neuron": np.array([f"unit {n}" for n in range(NEURONS)]),
        "num_time_bins": TIME,
        "bin_width": 0.02,
        "coordinates": labels,
        "attributes": {"model": "seqvae.models.VAE", "run": "3f2a"},
    }
    return PosteriorWriter(path, **(arguments | others))


def write_part_and_raise(path: Path, error: BaseException) -> None:
    with writer(path) as out:
        out.write({name: array[:3] for name, array in values().items()})
        raise error


def write(
    path: Path | None, *, chunk: int = 3, lengths: np.ndarray | None = None, **others
) -> xr.Dataset:
    everything = values()
    with writer(path, **others) as out:
        for start in range(0, TRIALS, chunk):
            part = slice(start, start + chunk)
            out.write(
                {name: array[part] for name, array in everything.items()},
                lengths=None if lengths is None else lengths[part],
            )
    return out.dataset()


@pytest.mark.parametrize(
    ("name", "bin_width"), [("a.nc", 0.02), ("a.nc", None), ("a.zarr", 0.02), ("a.zarr", None)]
)
def test_streamed_file_equals_memory(tmp_path, name, bin_width):
    lengths = np.array([5, 4, 5, 1, 3, 5, 2])
    memory = write(None, lengths=lengths, bin_width=bin_width)
    with write(tmp_path / name, lengths=lengths, bin_width=bin_width) as file:
        xr.testing.assert_identical(file, memory)
        assert {name: file[name].dtype for name in file} == {
            name: memory[name].dtype for name in memory
        }
        assert file.heldin.dtype == memory.heldin.dtype == bool


def test_chunk_size_changes_nothing():
    xr.testing.assert_identical(write(None, chunk=2), write(None, chunk=100))


def test_values_arrive_in_trial_order_with_dims_and_units():
    data = write(None)
    for name, array in values().items():
        np.testing.assert_allclose(data[name], array, rtol=1e-6)
    assert data.rates.dims == ("trial", "time", "neuron")
    assert data.factors_sd.dims == ("trial", "time", "factor")
    assert data.initial_condition_mean.dims == ("trial", "initial_condition_dim")
    assert data.inferred_inputs_sd.dims == ("trial", "time", "inferred_inputs_dim")
    assert data.elbo.dims == ("trial",)
    assert data.rates.units == data.rates_sd.units == "Hz"
    assert data.elbo.units == "nats"
    assert all(data[name].attrs.keys() == {"units", "long_name"} for name in data)
    assert data.attrs == {"model": "seqvae.models.VAE", "run": "3f2a", "bin_width": 0.02}
    np.testing.assert_array_equal(data.trial, np.arange(TRIALS) + 10)
    np.testing.assert_allclose(data.time, [0.0, 0.02, 0.04, 0.06, 0.08])
    assert data.time.units == "s"


def test_time_is_the_bin_index_without_a_bin_width():
    data = write(None, bin_width=None)
    np.testing.assert_array_equal(data.time, np.arange(TIME))
    assert data.time.units == "1"
    assert "bin_width" not in data.attrs


def test_padded_bins_are_nan_in_every_variable_with_time():
    lengths = np.array([5, 4, 5, 1, 3, 5, 2])
    data = write(None, lengths=lengths)
    padded = np.arange(TIME) >= lengths[:, None]
    for name in data:
        if "time" in data[name].dims:
            np.testing.assert_array_equal(np.isnan(data[name]).any(data[name].dims[-1]), padded)
            np.testing.assert_array_equal(np.isnan(data[name]).all(data[name].dims[-1]), padded)
        else:
            assert np.isfinite(data[name]).all()


def test_data_units_go_by_the_name_mean():
    with writer(None) as out:
        out.write({"mean": np.zeros((TRIALS, TIME, NEURONS))})
    assert out.dataset()["mean"].units == "data units"


@pytest.mark.parametrize("name", ["posterior.nc", "posterior.zarr"])
def test_a_failure_leaves_no_file(tmp_path, name):
    with pytest.raises(KeyboardInterrupt):
        write_part_and_raise(tmp_path / name, KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "posterior.nc"
    path.write_bytes(b"older")
    with pytest.raises(RuntimeError, match="stop"):
        write_part_and_raise(path, RuntimeError("stop"))
    assert path.read_bytes() == b"older"
    with writer(path) as out:
        out.write(values())
        assert path.read_bytes() == b"older"
    assert h5py.is_hdf5(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_zarr_store_takes_the_place_of_an_older_one_only_when_whole(tmp_path):
    path = tmp_path / "posterior.zarr"
    write(path, chunk=2)
    with pytest.raises(RuntimeError, match="stop"):
        write_part_and_raise(path, RuntimeError("stop"))
    assert zarr.open_group(str(path), mode="r")["rates"].chunks == (2, TIME, NEURONS)
    newer = write(path, bin_width=0.01)
    assert newer.rates.encoding["chunks"] == (3, TIME, NEURONS)
    assert not newer.rates.variable._in_memory
    assert newer.bin_width == 0.01
    assert list(tmp_path.iterdir()) == [path]
    if zarr.__version__.startswith("3."):  # which this xarray may ask for
        xr.testing.assert_identical(xr.open_dataset(path, engine="zarr"), newer)


def test_what_is_no_zarr_store_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "file.zarr").write_text("mine")
    for name in ("mine.zarr", "file.zarr"):
        with pytest.raises(InputError, match="is no zarr store"), writer(tmp_path / name):
            pass
    monkeypatch.setitem(sys.modules, "zarr", None)
    with (
        pytest.raises(InputError, match=r"pip install 'seqvae\[zarr\]'"),
        writer(tmp_path / "a.zarr"),
    ):
        pass


def test_missing_trials_are_a_defect_and_leave_no_file(tmp_path):
    with pytest.raises(AssertionError, match="3 of 7 trials"), writer(tmp_path / "a.nc") as out:
        out.write({name: array[:3] for name, array in values().items()})
    assert list(tmp_path.iterdir()) == []


def test_attributes_that_netcdf_cannot_hold_leave_no_file(tmp_path):
    with pytest.raises(TypeError), writer(tmp_path / "a.nc", attributes={"run": None}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_file_is_opened_lazily_and_the_folder_is_made(tmp_path):
    with write(tmp_path / "new" / "posterior.nc") as data:
        assert not data.rates.variable._in_memory
        assert data.rates.encoding["chunksizes"] == (3, TIME, NEURONS)


def test_a_folder_is_refused_as_file(tmp_path):
    with pytest.raises(InputError, match="is a folder"), writer(tmp_path):
        pass


def test_a_place_that_cannot_be_written_is_told_in_one_sentence(tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(InputError, match="cannot be written"), writer(tmp_path / "taken" / "a.nc"):
        pass


def test_streaming_needs_memory_for_one_chunk_only(tmp_path):
    shape = (1, 200, 500)
    bytes_per_trial = 4 * shape[1] * shape[2]
    num_trials = 100
    rates = np.ones(shape, dtype=np.float32)
    tracemalloc.start()
    with PosteriorWriter(
        tmp_path / "a.nc",
        trial=np.arange(num_trials),
        neuron=np.arange(shape[2]),
        num_time_bins=shape[1],
    ) as out:
        for _ in range(num_trials):
            out.write({"rates": rates})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * bytes_per_trial
