"""Files that MATLAB 7.3 has written: HDF5 with the axes the other way round."""

import h5py
import numpy as np

from seqvae import check
from seqvae.data.sources import HDF5


def test_axes_and_labels_are_those_of_matlab(tmp_path):
    counts = np.random.default_rng(0).poisson(2.0, (6, 5, 4)).astype(float)
    fields = {
        "spikes": (counts, "double"),
        "condition": (np.arange(6.0)[None], "double"),
        "neuron_ids": (np.array([[*map(ord, word)] for word in ("a ", "bb", "c ", "d ")]), "char"),
        "bin_width": (np.array([[0.02]]), "double"),
    }
    with h5py.File(tmp_path / "a.mat", "w") as file:
        for name, (array, kind) in fields.items():
            file[name] = np.uint16(array.T) if kind == "char" else array.T
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
    recording = HDF5(tmp_path / "a.mat", keys={"activity": "spikes"}).load()
    np.testing.assert_array_equal(recording.activity, counts)
    assert recording.condition.tolist() == [0, 1, 2, 3, 4, 5]
    assert recording.neuron_ids.tolist() == ["a", "bb", "c", "d"]
    assert recording.bin_width == 0.02
    assert check(HDF5(tmp_path / "a.mat", keys={"activity": "spikes"}))["axes"] == (
        "in MATLAB's order (7.3)"
    )
