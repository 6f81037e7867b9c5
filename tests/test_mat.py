"""MATLAB's files: structs, cells, references; axes as MATLAB shows them."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from layouts import matlab
from seqvae import Recording
from seqvae.data.sources import HDF5, MAT, from_path
from seqvae.data.sources.holdings import opened
from seqvae.errors import InputError

COUNTS = np.random.default_rng(0).poisson(2.0, (6, 5, 4)).astype(np.uint8)  # trial, time, neuron
LABS = Path(__file__).resolve().parents[2] / "shared" / "data" / "labs"


def cells(items: list) -> np.ndarray:
    row = np.empty((1, len(items)), dtype=object)
    row[0] = items
    return row


def old(path: Path, **variables) -> Path:
    scipy.io.savemat(path, variables)
    return path


def new(path: Path, **variables) -> Path:
    with h5py.File(path, "w", userblock_size=512) as h:
        for name, value in variables.items():
            matlab(h, name, value)
    return path


def of_cells(write, items):
    return cells(items) if write is old else items


def quietly(source: MAT) -> Recording:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return source.load()


@pytest.mark.parametrize("write", [old, new])
def test_dims_bring_every_order_of_axes_into_that_of_a_recording(write, tmp_path):
    for dims in ([2, 1, 0], [0, 1, 2], [1, 2, 0]):
        names = [("trial", "time", "neuron")[axis] for axis in dims]
        path = write(tmp_path / "a.mat", s={"x": COUNTS.transpose(dims).astype(float)})
        recording = MAT(path, {"activity": "s.x"}, names, 0.02).load()
        np.testing.assert_array_equal(recording.activity, COUNTS)
    path = write(tmp_path / "a.mat", x=COUNTS[:, 0].T.astype(float))
    recording = MAT(path, {"activity": "x"}, ["neuron", "trial"]).load()
    np.testing.assert_array_equal(recording.activity, COUNTS[:, :1])


@pytest.mark.parametrize("write", [old, new])
def test_cells_are_unequal_trials_and_what_stands_beside_them_follows(write, tmp_path):
    lengths = [5, 3, 4, 5, 2, 1]
    trials = [COUNTS[i, :n].T.astype(float) for i, n in enumerate(lengths)]
    hand = [np.arange(2.0 * n).reshape(2, n) for n in lengths]
    path = write(
        tmp_path / "a.mat",
        D={"data": of_cells(write, trials), "hand": of_cells(write, hand), "angle": np.arange(6.0)},
        chans=of_cells(write, ["a1", "a2", "b1", "b2"]),
    )
    keys = {"activity": "D.data", "behavior": "D.hand", "condition": "D.angle",
            "neuron_ids": "chans"}  # fmt: skip
    recording = MAT(path, keys, ["trial", "neuron", "time"], 0.02).load()
    assert recording.lengths.tolist() == lengths
    for i, n in enumerate(lengths):
        np.testing.assert_array_equal(recording.activity[i, :n], COUNTS[i, :n])
        np.testing.assert_array_equal(recording.behavior[i, :n], hand[i].T)
    assert recording.condition.tolist() == list(range(6))
    assert recording.neuron_ids.tolist() == ["a1", "a2", "b1", "b2"]


@pytest.mark.parametrize("write", [old, new])
def test_samples_are_added_up_to_bins_and_series_beside_averaged(write, tmp_path):
    rng = np.random.default_rng(0)
    counts, speed = rng.poisson(0.5, (4, 47)).astype(float), rng.normal(size=(1, 47))
    path = write(tmp_path / "a.mat", spikes=counts, speed=speed)
    keys = {"activity": "spikes", "behavior": "speed"}
    recording = MAT(path, keys, ["neuron", "time"], 0.01, sample_width=0.002).load()
    np.testing.assert_array_equal(recording.activity[0], counts[:, :45].reshape(4, 9, 5).sum(2).T)
    np.testing.assert_allclose(
        recording.behavior[0, :, 0], speed[0, :45].reshape(9, 5).mean(1), rtol=1e-6
    )
    with pytest.raises(InputError, match="give a whole number of samples"):
        MAT(path, keys, ["neuron", "time"], 0.009, sample_width=0.002).load()


def test_masks_and_indices_of_neurons_count_as_matlab_does(tmp_path):
    for hidden in (np.array([False, True, False, True]), np.array([2.0, 4.0])):
        path = old(tmp_path / "a.mat", x=COUNTS, hidden=hidden)
        keys = {"activity": "x", "heldout": "hidden"}
        assert MAT(path, keys, ["trial", "time", "neuron"]).load().heldin.tolist() == [0, 2]


def test_sparse_matrices_are_read_in_both_versions(tmp_path):
    matrix = scipy.sparse.csc_array(COUNTS[0].astype(float))
    path = old(tmp_path / "a.mat", x=matrix)
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as h:
        group = h.create_group("x")
        group.attrs["MATLAB_sparse"] = np.uint64(5)
        group.attrs["MATLAB_class"] = np.bytes_("double")
        group["data"], group["ir"] = matrix.data, matrix.indices.astype(np.uint64)
        group["jc"] = matrix.indptr.astype(np.uint64)
        matlab(h, "rate", 30.0)
    for file in (path, tmp_path / "b.mat"):
        recording = MAT(file, {"activity": "x"}, ["time", "neuron"], 0.02).load()
        np.testing.assert_array_equal(recording.activity[0], COUNTS[0])


def test_hdf5_that_only_its_first_block_calls_matlab_is_turned_round_too(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as h:
        h["x"] = COUNTS.T
    with pytest.raises(InputError, match="MATLAB has not written"):
        MAT(tmp_path / "a.mat", {"activity": "x"}).load()
    with (tmp_path / "a.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    for source in (
        MAT(tmp_path / "a.mat", {"activity": "x"}, ["trial", "time", "neuron"]),
        HDF5(tmp_path / "a.mat", {"activity": "x"}),
    ):
        np.testing.assert_array_equal(source.load().activity, COUNTS)


@pytest.mark.parametrize(
    ("variables", "options", "sentence"),
    [
        ({"D": {"data": COUNTS}}, {"keys": {"activity": "D.dta"}}, "mean 'D.data'"),
        ({"D": {"data": COUNTS}}, {"keys": {"activity": "D"}}, "is a struct.*'D.data'"),
        ({"x": COUNTS}, {"keys": {"actvity": "x"}}, "mean 'activity'"),
        ({"x": COUNTS}, {"dims": ["time", "neuron"]}, "names 2 axes, but 'x' has 6 x 5 x 4"),
        ({"x": COUNTS}, {"dims": ["time", "time", "trial"]}, "names an axis twice"),
        ({"x": COUNTS}, {"dims": ["time", "unit", "trial"]}, "'unit' is no axis"),
        ({"x": COUNTS}, {}, r"dims: nothing tells which axis of 6 x 5 x 4"),
        ({"name": "J"}, {}, "nothing that looks like an activity"),
        (
            {"x": cells([np.ones((4, 5)), np.ones((3, 5))])},
            {"dims": ["trial", "neuron", "time"]},
            "unequal numbers of neurons",
        ),
        (
            {"x": cells([cells([np.array([1.0, 2.0])] * n) for n in (2, 3)])},
            {"dims": ["trial", "neuron"], "bin_width": 0.1},
            "trial 1 has 3 neurons, but trial 0 has 2",
        ),
        ({"x": COUNTS, "c": np.arange(5.0)}, {"keys": {"activity": "x", "condition": "c"},
          "dims": ["trial", "time", "neuron"]}, "c' has 5 entries, but the activity has 6"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_a_sentence(variables, options, sentence, tmp_path):
    path = old(tmp_path / "a.mat", **variables)
    with pytest.raises(InputError, match=sentence) as refusal:
        quietly(MAT(path, **options))
    assert "\n" not in str(refusal.value)


def test_of_many_names_the_nearest_are_told_at_most_ten(tmp_path):
    path = old(tmp_path / "a.mat", D={f"unit{i:03d}": np.ones((3, 4)) for i in range(600)})
    with pytest.raises(InputError, match="not in the file") as refusal:
        MAT(path, {"activity": "D.unit"}).load()
    assert str(refusal.value).count("'D.unit") == 11


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = old(tmp_path / "a.mat", x=COUNTS)

    def read() -> None:
        with opened(path):
            os.utime(path, ns=(1, 1))

    with pytest.raises(InputError, match="has changed while it was read"):
        read()


REAL = {
    "counts_pkg_sample_dat.mat": ({}, (974, 1, 155)),
    "communication_subspace_sample_data.mat": (
        {"keys": {"activity": "X"}, "bin_width": 0.1}, (400, 10, 79)
    ),
    "nelpy_linear_track_spikes.mat": ({"bin_width": 0.05}, (1, 39363, 31)),
    "bci_learning_exampleData.mat": (
        {"keys": {"activity": "beforeLearning.clouds.spikes"}}, (8, 69, 86)
    ),
}  # fmt: skip


@pytest.mark.skipif(not LABS.is_dir(), reason="the example files are not here")
@pytest.mark.parametrize("name", REAL)
def test_files_of_labs_need_one_setting_beside_path_and_bin_width(name):
    options, shape = REAL[name]
    path = LABS / name
    assert from_path(path) == MAT(path)
    assert quietly(MAT(path, **options)).shape == shape


def test_a_field_whose_name_holds_a_separator_is_not_looked_for_without_end(tmp_path) -> None:
    from seqvae.data.sources.leaves import Leaf, leaf_names

    odd = {"a": {"b.c": Leaf.of(np.zeros(3)), "d": Leaf.of(np.ones(2))}}
    assert list(leaf_names(odd, ".")) == ["a.d"]
