from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import xarray as xr

from seqvae import FactorAnalysis, check, crossvalidate, evaluate, fit, infer
from seqvae.config import from_config, to_config
from seqvae.config.arguments import InConfig
from seqvae.config.signatures import parameters
from seqvae.data import NeuralData, Recording, as_data
from seqvae.data.front import BinWidth, DataLike
from seqvae.data.sources import HDF5, Images, Lorenz, Npz, as_source, write_npz
from seqvae.errors import InputError

COUNTS = np.random.default_rng(0).poisson(1.0, (6, 8, 3)).astype(np.float32)
TIME = 0.02 * np.arange(8)


def labelled(**coords) -> xr.DataArray:
    return xr.DataArray(COUNTS, dims=("trial", "time", "neuron"), coords=coords)


@pytest.mark.parametrize(
    "thing",
    [
        COUNTS,
        COUNTS.astype(np.int16),
        torch.from_numpy(COUNTS),
        list(COUNTS),
        tuple(torch.from_numpy(COUNTS)),
        labelled(),
        labelled().transpose("neuron", "trial", "time"),
    ],
    ids=["array", "integers", "tensor", "list", "tensors", "DataArray", "transposed"],
)
def test_every_kind_of_array_holds_the_same_recording(thing):
    data = NeuralData(thing, bin_width=0.02)
    assert data.recording.checksum == Recording(COUNTS, 0.02).checksum
    assert to_config(data)["init_args"]["source"] is None


def test_recordings_sources_and_paths_are_taken_as_they_are(tmp_path):
    recording = Recording(COUNTS, 0.02)
    assert NeuralData(recording).recording is recording
    assert NeuralData(Lorenz(seed=3)).source == Lorenz(seed=3)
    write_npz(recording, tmp_path / "a.npz")
    assert NeuralData(tmp_path / "a.npz").recording.checksum == recording.checksum
    assert as_source("b.h5", 0.01) == HDF5("b.h5", bin_width=0.01)
    assert as_source("b.npz") == Npz("b.npz")
    assert as_source("t10k-images-idx3-ubyte") == Images("t10k-images-idx3-ubyte")


def test_coordinates_name_neurons_and_trials_and_tell_the_bin_width():
    names, trials = ["a", "b", "c"], np.arange(10, 16)
    array = labelled(time=TIME + 0.4, neuron=names, trial=trials)
    recording = as_source(array).load()
    assert recording.bin_width == 0.02
    assert recording.neuron_ids.tolist() == names
    assert recording.trial_ids.tolist() == trials.tolist()
    assert as_source(array, 0.05).load().bin_width == 0.05
    nanoseconds = (TIME * 1e9).astype("timedelta64[ns]")
    assert as_source(labelled(time=nanoseconds)).load().bin_width == 0.02
    long = array.isel(trial=0, drop=True)
    assert as_source(long).load().activity.shape == (1, 8, 3)


@pytest.mark.parametrize(
    ("thing", "bin_width", "sentence"),
    [
        (COUNTS[0], None, r"\(8, 3\) may be .*\[counts\]"),
        (pd.DataFrame(COUNTS[0]), None, r"a DataFrame of shape \(8, 3\) may be .*\[counts\]"),
        (xr.Dataset({"x": labelled()}), None, r"a Dataset; .*dataset\['counts'\]"),
        (scipy.sparse.eye(3), None, r"a dia_matrix .* may be .*\[counts\]"),
        (type("TsGroup", (), {})(), None, "a TsGroup; count the spikes in bins"),
        ({"activity": COUNTS}, None, r"a dict; .*Arrays\(\*\*fields\)"),
        (iter(COUNTS), None, "an?.*iterator; .*np.asarray"),
        (None, None, "a NoneType"),
        ([COUNTS[0], "b"], None, "trial 1 of the list is a str"),
        ("counts.csv", None, "ends in '.csv'"),
        ("t10k-images-idx3-ubyte", 0.02, "holds images, which have no bins"),
        (Lorenz(), 0.02, "Lorenz has its own"),
        (Recording(COUNTS), 0.02, "Recording has its own"),
        (labelled().rename(neuron="unit"), None, "got trial, time, unit; rename"),
        (labelled().isel(time=0), None, "got trial, neuron; rename"),
        (labelled(time=TIME**2), None, "bins must be of one width"),
        (labelled(time=("time", TIME, {"units": "ms"})), None, "time is in 'ms'"),
        (labelled(time=list("abcdefgh")), None, "time holds <U1"),
    ],
)
def test_what_holds_no_recording_is_refused_with_a_cure(thing, bin_width, sentence):
    with pytest.raises(InputError, match=sentence):
        NeuralData(thing, bin_width=bin_width)


def test_verbs_take_data_or_what_they_are_made_of():
    data = NeuralData(COUNTS)
    assert as_data(data) is data
    assert as_data(COUNTS, 0.02).recording.bin_width == 0.02
    with pytest.raises(InputError, match="NeuralData have their own"):
        as_data(data, 0.02)
    with pytest.raises(InputError, match="got a SimpleNamespace"):
        as_data(SimpleNamespace())


def verb(data: DataLike | None = None, *, bin_width: BinWidth = None) -> None:
    """Stand for a verb."""


class Later:
    def __init__(
        self, size: int, steps: Annotated[int | None, InConfig(tells_default=False)] = None
    ) -> None:
        self.size, self.steps = size, steps


def test_a_config_gives_a_source_and_no_bin_width():
    known = parameters(NeuralData)
    assert "bin_width" not in known
    assert not isinstance(from_config({"source": "Lorenz"}, NeuralData).source, str)
    assert list(parameters(verb)) == ["data"]
    data = from_config({"source": "Lorenz"}, parameters(verb)["data"].annotation, key="data")
    assert isinstance(data, NeuralData)


def test_a_later_argument_stands_in_a_config_only_where_it_was_set():
    assert to_config(Later(2))["init_args"] == {"size": 2}
    assert to_config(Later(2, 5))["init_args"] == {"size": 2, "steps": 5}
    written = to_config(NeuralData(Lorenz()))["init_args"]
    assert not {"window_bins", "bin_width"} & set(written)
    again = from_config({"source": "Lorenz", "window_bins": 7}, NeuralData)
    assert to_config(again)["init_args"]["window_bins"] == 7


def test_every_verb_takes_counts(tmp_path):
    run = fit(
        COUNTS,
        partial(FactorAnalysis, latent_dim=1),
        bin_width=0.02,
        run_dir=str(tmp_path / "run"),
    )
    assert run.spec.bin_width == 0.02
    assert check(list(COUNTS), bin_width=0.02)["checksum"] == Recording(COUNTS, 0.02).checksum
    assert infer(run, COUNTS, bin_width=0.02, num_samples=2).sizes["trial"] == 6
    assert "bits_per_spike" in evaluate(run, COUNTS, bin_width=0.02, num_samples=2)
    found = crossvalidate(
        COUNTS, bin_width=0.02, scheme="gabriel", dims=[1], trial_folds=2, neuron_folds=2,
        out_dir=str(tmp_path / "cv"), progress=False,
    )  # fmt: skip
    assert found.chosen_dim("pca") in (0, 1)
    with pytest.raises(InputError, match="NeuralData have their own"):
        infer(run, bin_width=0.02)


def test_a_long_recording_is_inferred_in_windows_as_long_as_the_trials_of_the_run(tmp_path):
    long = np.random.default_rng(1).poisson(1.0, (30, 3)).astype(np.float32)
    run = fit(COUNTS, partial(FactorAnalysis, latent_dim=1), run_dir=str(tmp_path / "run"))
    results = infer(run, [long], num_samples=2)
    assert (results.sizes["trial"], results.sizes["time"]) == (4, 8)
    one_trial = infer(run, [long[:8]], num_samples=2)
    assert (one_trial.sizes["trial"], one_trial.sizes["time"]) == (1, 8)
