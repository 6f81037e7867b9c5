"""Counts in a file are read batch by batch, and are the same as those read at once."""

from __future__ import annotations

import os
import pickle

import h5py
import numpy as np
import pytest

import seqvae.data.sizes
from seqvae import InputError, NeuralData
from seqvae.data import Recording
from seqvae.data.lazy import LazyActivity
from seqvae.data.sources import HDF5, Npy
from seqvae.data.sources.archives import mended
from seqvae.data.sources.npy_file import npy_leaf
from seqvae.data.survey import outlook
from seqvae.data.transforms import Rebin

STORED = [{}, {"chunks": (1, 100, 5)}, {"compression": "gzip"}]


@pytest.fixture(params=STORED, ids=["in one piece", "in chunks", "compressed"])
def path(request, tmp_path, monkeypatch):
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 1000)
    counts = np.random.default_rng(0).poisson(0.4, (1, 2000, 10)).astype(np.uint16)
    with h5py.File(tmp_path / "long.h5", "w") as file:
        file.create_dataset("activity", data=counts, **request.param)
        file["behavior"] = np.random.default_rng(1).normal(size=(1, 2000, 2))
        file.attrs["bin_width"] = 0.001
    return tmp_path / "long.h5"


def test_a_file_is_read_batch_by_batch(path, monkeypatch):
    lazy = HDF5(path).load()
    assert isinstance(lazy.activity, LazyActivity)
    data = NeuralData(str(path), transforms=[Rebin(0.005)], window_bins=40)
    batches = list(data.batches("train"))
    pickled = pickle.loads(pickle.dumps(lazy))
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 10**9)
    whole = HDF5(path).load()
    assert not isinstance(whole.activity, LazyActivity)
    assert whole.checksum == lazy.checksum == pickled.checksum
    again = NeuralData(str(path), transforms=[Rebin(0.005)], window_bins=40)
    assert again.recording.checksum == data.recording.checksum
    for one, other in zip(batches, again.batches("train"), strict=True):
        assert (one.target == other.target).all()


def test_a_file_that_changes_while_it_is_read_is_refused(path):
    recording = HDF5(path).load()
    with h5py.File(path, "a") as file:
        file["activity"][0, 0] = 7
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="was changed while it was read"):
        recording.read([0])
    path.unlink()
    with pytest.raises(InputError, match="was changed while it was read"):
        recording.read([0])


def test_a_damaged_chunk_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 1000)
    path, counts = tmp_path / "long.h5", np.random.default_rng(0).poisson(0.4, (1, 2000, 10))
    with h5py.File(path, "w") as file:
        place = file.create_dataset("activity", data=counts.astype(np.uint8), compression="gzip")
        chunk = place.id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or damaged"):
        HDF5(path).load()


def test_a_size_that_no_file_holds_is_refused_before_it_is_walked(tmp_path):
    path = tmp_path / "huge.h5"
    with h5py.File(path, "w") as file:
        place = file.create_dataset("activity", (1, 10**11, 10), np.uint8, chunks=(1, 1000, 10))
        place[0, :1000] = 1
    with pytest.raises(InputError, match="claims 1e\\+03 GB, which a file of"):
        HDF5(path).load()


def test_large_counts_in_memory_are_not_copied(monkeypatch):
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 1000)
    counts = np.random.default_rng(0).poisson(0.4, (1, 2000, 10)).astype(np.uint8)
    recording = Recording(counts, 0.001)
    assert np.shares_memory(recording.activity._rows, counts)


def test_a_mapped_array_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 1000)
    counts = np.random.default_rng(0).poisson(0.4, (1, 2000, 10)).astype(np.uint16)
    np.save(tmp_path / "long.npy", counts)
    mapped = np.load(tmp_path / "long.npy", mmap_mode="r")
    data = NeuralData(mapped, bin_width=0.001, transforms=[Rebin(0.005)])
    assert isinstance(data.recording.activity, LazyActivity)
    assert np.shares_memory(NeuralData(mapped, bin_width=0.001).raw().activity._rows, mapped)


@pytest.mark.parametrize("stored", STORED, ids=["in one piece", "in chunks", "compressed"])
def test_a_long_array_without_trials_is_read_batch_by_batch(stored, tmp_path, monkeypatch):
    counts = np.random.default_rng(0).poisson(0.4, (2000, 10)).astype(np.uint8)
    heldout = np.arange(10) > 7
    with h5py.File(tmp_path / "long.h5", "w") as file:
        options = stored | ({"chunks": (100, 5)} if "chunks" in stored else {})
        file.create_dataset("spikes", data=counts, **options)
        file["heldout"], file["dt"] = heldout, 0.001
    keys = {"activity": "spikes", "heldout": "heldout", "bin_width": "dt"}
    source = HDF5(tmp_path / "long.h5", keys, dims=["time", "neuron"])
    whole = source.load()
    assert not isinstance(whole.activity, LazyActivity)
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 1000)
    lazy = source.load()
    assert isinstance(lazy.activity, LazyActivity)
    assert lazy.checksum == whole.checksum
    trials = HDF5(tmp_path / "long.h5", keys, dims=["time", "neuron"], trial_bins=50).load()
    assert isinstance(trials.activity, LazyActivity)
    np.testing.assert_array_equal(trials.read(), counts.reshape(40, 50, 10))
    assert outlook(HDF5(tmp_path / "long.h5")).source.load().checksum == whole.checksum


@pytest.mark.parametrize("keys", [None, {"activity": "activity", "lengths": "lengths"}])
def test_padded_trials_are_read_batch_by_batch(keys, tmp_path, monkeypatch):
    counts = np.random.default_rng(0).poisson(0.4, (20, 100, 10)).astype(np.uint8)
    with h5py.File(tmp_path / "trials.h5", "w") as file:
        file["activity"], file["lengths"] = counts, np.arange(70, 90)
        file["behavior"] = np.random.default_rng(1).normal(size=(20, 100, 2))
        file.attrs["bin_width"] = 0.01
    dims = keys and ["trial", "time", "neuron"]
    whole = HDF5(tmp_path / "trials.h5", keys, dims=dims).load()
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 1000)
    lazy = HDF5(tmp_path / "trials.h5", keys, dims=dims).load()
    assert isinstance(lazy.activity, LazyActivity)
    assert lazy.lengths.tolist() == list(range(70, 90))
    assert lazy.checksum == whole.checksum


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_that_is_cut_while_it_is_read_is_one_sentence(order, tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    counts = np.random.default_rng(0).poisson(0.4, (1, 20_000, 10)).astype(np.uint8)
    np.save(path, np.asarray(counts, order=order))
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 1000)
    lazy = Npy(path, 0.01, ["trial", "time", "neuron"]).load()
    np.testing.assert_array_equal(lazy.read(), counts)
    leaf = npy_leaf(path)
    np.testing.assert_array_equal(leaf.read(), counts)
    os.truncate(path, 10_000)  # a page of a map of it would be gone, and the process with it
    for read in (leaf.read, lambda: list(leaf.pieces()), lambda: npy_leaf(path)):
        with pytest.raises(InputError, match="truncated or damaged"):
            read()
    if order == "C":
        with pytest.raises(InputError, match="was changed while it was read"):
            lazy.read([0])


def test_a_filter_that_is_not_installed_is_named(tmp_path):
    path, space = tmp_path / "a.h5", h5py.h5s.create_simple((1, 20, 3))
    with h5py.File(path, "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((1, 20, 3))
        plan.set_filter(32004, h5py.h5z.FLAG_OPTIONAL, (0,))
        made = h5py.h5d.create(file.id, b"activity", h5py.h5t.STD_U8LE, space, plan)
        h5py.Dataset(made).id.write_direct_chunk((0, 0, 0), bytes(30))
    if h5py.h5z.filter_avail(32004):
        pytest.skip("the filter is installed")
    with pytest.raises(
        InputError, match=r"compressed by lz4 \(filter 32004 of HDF5\), which is not"
    ):
        HDF5(path, bin_width=0.01).load()
    words = "can't read (required filter 'blosc' is not registered)"  # of h5py, below pynwb, too
    with pytest.raises(InputError, match="by blosc, which is not installed"), mended(path):
        raise OSError(words)
