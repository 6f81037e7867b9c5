"""MATLAB files made to harm: each is refused in one sentence, before memory or time are taken."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from seqvae.data.sources import MAT, hdf5_file, matlab73
from seqvae.data.survey import outlook
from seqvae.errors import InputError

CELL, STRUCT, SPARSE, DOUBLE, FUNCTION, OPAQUE = 1, 2, 5, 6, 16, 17
HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + b"\0" * (-len(body) % 8)


def head(kind: int, dims: tuple[int, ...], name: bytes) -> bytes:
    size = struct.pack(f"<{len(dims)}i", *dims)
    return element(6, struct.pack("<II", kind, 0)) + element(5, size) + element(1, name)


def matrix(kind: int, dims: tuple[int, ...], body: bytes, name: bytes = b"x") -> bytes:
    return element(14, head(kind, dims, name) + body)


def fields(length: int, names: bytes) -> bytes:
    return element(5, struct.pack("<i", length)) + element(1, names)


NUMBER = matrix(DOUBLE, (1, 1), element(9, bytes(8)))
UNKNOWN = matrix(DOUBLE, (1, 1), element(99, bytes(8)))  # scipy crashes on it
LONG_NUMBER = element(14, NUMBER[8:] + element(9, bytes(8)))
WORDS = element(6, struct.pack("<II", OPAQUE, 0)) + element(1, b"o") * 3
EMPTY_CELLS = struct.pack("<II", 14, 0) * 400_000
SPARSE_OF_60_MB = [
    matrix(SPARSE, (1000, 7500), element(5, b"") + element(5, bytes(30004)) + element(9, b""), name)
    for name in (b"x", b"y")
]


def nested(wrap: Callable[[bytes], bytes], times: int = 3000) -> bytes:
    content = NUMBER
    for _ in range(times):
        content = wrap(content)
    packed = zlib.compress(content)
    return struct.pack("<II", 15, len(packed)) + packed


def packed(content: bytes) -> bytes:
    inner = zlib.compress(content)
    return struct.pack("<II", 15, len(inner)) + inner


MATLAB5 = {
    "a function that holds an unknown type": matrix(FUNCTION, (1, 1), UNKNOWN),
    "an object that holds an unknown type": element(14, WORDS + UNKNOWN),
    "the same in a cell": matrix(CELL, (1, 1), element(14, WORDS + UNKNOWN)),
    "what follows the numbers of a cell": matrix(CELL, (1, 2), LONG_NUMBER + NUMBER),
    "what follows the cells of a cell": matrix(
        CELL, (1, 2), matrix(CELL, (1, 1), NUMBER + UNKNOWN) + NUMBER
    ),
    "functions within functions": nested(lambda inner: matrix(FUNCTION, (1, 1), inner)),
    "objects within objects": nested(lambda inner: element(14, WORDS + inner)),
    "a class in four bytes": element(14, struct.pack("<HHI", 6, 4, 6) + NUMBER[24:]),
    "an unknown class": matrix(99, (1, 1), element(9, bytes(8))),
    "fields without names": matrix(STRUCT, (0, 0), fields(0, b"")),
    "names of negative length": matrix(STRUCT, (0, 0), fields(-3, b"abc")),
    "very many structs without fields": matrix(STRUCT, (30_000, 60_000), fields(4, b"")),
    "very many empty cells": packed(matrix(CELL, (1, 400_000), EMPTY_CELLS)),
    "sparse matrices that together take too much": b"".join(SPARSE_OF_60_MB),
}


@pytest.mark.parametrize("content", MATLAB5.values(), ids=MATLAB5)
def test_a_file_that_scipy_would_trust_is_refused(content: bytes, tmp_path: Path) -> None:
    assert_refused(write(tmp_path, HEADER + NUMBER + content))


def write(folder: Path, content: bytes) -> Path:
    file = folder / "hostile.mat"
    file.write_bytes(content)
    return file


def assert_refused(file: Path) -> None:
    for look in (MAT(file).load, lambda: outlook(MAT(file))):
        with pytest.raises(InputError) as refusal:
            look()
        assert "\n" not in str(refusal.value)
        assert "source.path" in str(refusal.value)


def test_an_empty_cell_of_a_great_length_takes_no_memory(tmp_path: Path) -> None:
    file = write(tmp_path, HEADER + matrix(CELL, (0, 2**31 - 1), b"", b"spikes"))
    with pytest.raises(InputError, match="empty"):
        MAT(file, keys={"activity": "spikes"}, dims=["neuron", "trial"], bin_width=0.1).load()


def variable4(code: int, rows: int, columns: int, numbers: object = ()) -> bytes:
    content = np.asarray(numbers, dtype="<f8").tobytes()
    return struct.pack("<5i", code, rows, columns, 0, 2) + b"a\0" + content


MATLAB4 = {
    "sizes that lead back": variable4(0, -1, 3),
    "more than there is": variable4(0, 2**31 - 1, 2**31 - 1),
    "an unknown type": variable4(70, 1, 1, [0]),
    "another machine": variable4(1000, 1, 1, [0]),
    "a sparse matrix of two columns": variable4(2, 2, 2, [1, 1, 1, 1]),
    "a sparse matrix of 1e18 numbers": variable4(2, 2, 3, [1, 1e9, 1, 1e9, 1, 0]),
    "indices beyond the matrix": variable4(2, 2, 3, [9, 3, 9, 3, 1, 0]),
    "endless variables": variable4(0, 0, 0) * 30_000,
}


@pytest.mark.parametrize("content", MATLAB4.values(), ids=MATLAB4)
def test_a_file_of_version_4_is_gone_through_before_it_is_read(
    content: bytes, tmp_path: Path
) -> None:
    assert_refused(write(tmp_path, variable4(0, 1, 1, [0]) + content))


def test_sparse_matrices_of_version_4_are_read(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(1.0, (30, 4)).astype(float)
    file = tmp_path / "four.mat"
    scipy.io.savemat(file, {"y": scipy.sparse.csc_matrix(counts)}, format="4")
    recording = MAT(file, {"activity": "y"}, ["time", "neuron"], bin_width=0.1).load()
    np.testing.assert_array_equal(recording.activity[0], counts)


def write73(folder: Path, fill: Callable[[h5py.File], object]) -> Path:
    file = folder / "hostile.mat"
    with h5py.File(file, "w", userblock_size=512) as content:
        fill(content)
    with file.open("r+b") as content:
        content.write(b"MATLAB 7.3 MAT-file")
    return file


def cells(file: h5py.File, name: str, references: list[h5py.Reference]) -> h5py.Dataset:
    data = file.create_dataset(
        name, data=np.array([references], dtype=h5py.ref_dtype), chunks=True, compression="gzip"
    )
    data.attrs["MATLAB_class"] = np.bytes_("cell")
    return data


def one_for_many(file: h5py.File) -> None:
    """Refer to the same eight megabytes a hundred times."""
    data = file.create_dataset("#refs#/a", (1, 1_000_000), "f8", chunks=True, compression="gzip")
    data[:] = 1.0
    cells(file, "y", [data.ref] * 100)


def one_small_for_many(file: h5py.File) -> None:
    data = file.create_dataset("#refs#/a", data=np.ones((1, 1)))
    cells(file, "y", [data.ref] * 3_000)


def cells_of_cells(file: h5py.File) -> None:
    """Ten cells of ten cells, and so on: 10^8 of them."""
    data = file.create_dataset("#refs#/a", data=np.ones((1, 1)))
    for level in range(8):
        data = cells(file, f"#refs#/l{level}", [data.ref] * 10)
    cells(file, "y", [data.ref])


def itself(file: h5py.File) -> None:
    data = cells(file, "y", [file.ref] * 2)
    data[0, 0] = data.ref


def itself_by_name(file: h5py.File) -> None:
    group = file.create_group("y")
    group["again"] = group


def sparse_elsewhere(file: h5py.File) -> None:
    """A sparse matrix whose numbers lie in another file."""
    group = file.create_group("y")
    group.attrs["MATLAB_sparse"] = 5
    group["jc"], group["ir"] = np.array([0, 1, 2]), np.array([0, 1])
    group["data"] = h5py.ExternalLink("other.h5", "/data")


def text_without_end(file: h5py.File) -> None:
    data = file.create_dataset("split", (1, 2_000_000), "u2", chunks=True, compression="gzip")
    data[:] = 65
    data.attrs["MATLAB_class"] = np.bytes_("char")


HOSTILE73 = [one_for_many, one_small_for_many, cells_of_cells, itself, itself_by_name,
             sparse_elsewhere]  # fmt: skip


@pytest.mark.parametrize("fill", HOSTILE73)
def test_references_stand_for_no_more_than_the_file_holds(
    fill: Callable[[h5py.File], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matlab73, "_MOST_ITEMS", 300)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = np.array([42.0, 43.0])
    assert_refused(write73(tmp_path, fill))


def test_text_without_end_is_not_read(tmp_path: Path) -> None:
    file = write73(tmp_path, text_without_end)
    with pytest.raises(InputError, match="too much text"):
        MAT(file, keys={"activity": "split"}, dims=["time"], bin_width=0.1).load()


def test_attributes_of_any_kind_and_things_of_other_kinds_are_borne(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(1.0, (4, 30)).astype(float)

    def fill(file: h5py.File) -> None:
        file["y"] = counts
        for number, kind in enumerate([3, np.arange(3), b"\xff\xfe", h5py.Empty("f4"), "cell"]):
            file[f"z{number}"] = np.ones((3, 2))
            file[f"z{number}"].attrs["MATLAB_class" if number % 2 else "MATLAB_fields"] = kind
        file["type"], file["nothing"] = np.dtype("f8"), h5py.Empty("f8")
        file["texts"] = np.array([b"a", b"b"], dtype=object)

    file = write73(tmp_path, fill)
    recording = MAT(file, {"activity": "y"}, ["time", "neuron"], bin_width=0.1).load()
    np.testing.assert_array_equal(recording.activity[0], counts.T)


def test_as_many_cells_as_fit_into_a_file_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_file, "_FEW_ENTRIES", 20)
    times = [np.sort(np.random.default_rng(n).uniform(0, 1, 3)) for n in range(60)]

    def fill(file: h5py.File) -> None:
        cells(file, "y", [file.create_dataset(f"#refs#/n{n}", data=one[None]).ref
                          for n, one in enumerate(times)])  # fmt: skip

    source = MAT(write73(tmp_path, fill), {"activity": "y"}, ["neuron"], bin_width=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no intervals are told
        assert source.load().activity.shape[2] == 60
