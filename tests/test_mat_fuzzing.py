"""Damaged MATLAB files: each is read, or refused in one sentence."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from layouts import LAYOUTS, WIDTH
from seqvae.data import Recording
from seqvae.data.sources import MAT, as_source
from seqvae.errors import InputError

CLAIMS = (0, 1, 7, 14, 200_000, 10**9, 2**31 - 1)


def flipped(content: bytearray, generator: np.random.Generator) -> bytearray:
    for place in generator.integers(0, len(content), 4):
        content[place] = generator.integers(256)
    return content


def cut(content: bytearray, generator: np.random.Generator) -> bytearray:
    return content[: generator.integers(1, len(content))]


def overclaimed(content: bytearray, generator: np.random.Generator) -> bytearray:
    """Change numbers in the first element of a MATLAB 5 file, within its compression, too."""
    kind, size = struct.unpack("<II", content[128:136])
    inner = bytearray(content[136 : 136 + size])
    inner = bytearray(zlib.decompress(inner)) if kind == 15 else inner
    for place in generator.integers(0, min(len(inner), 200) // 4, 3):
        inner[4 * place : 4 * place + 4] = struct.pack("<I", generator.choice(CLAIMS))
    packed = zlib.compress(inner) if kind == 15 else inner
    head = content[:132] + struct.pack("<I", len(packed))
    return bytearray(head + packed + content[136 + size :])


@pytest.mark.parametrize("damage", [flipped, cut, overclaimed])
@pytest.mark.parametrize("name", [name for name in LAYOUTS if name.startswith("MATLAB")])
def test_a_damaged_file_is_read_or_refused(
    name: str, damage: Callable[..., bytearray], tmp_path: Path
) -> None:
    if "7.3" in name and damage is overclaimed:
        pytest.skip("has no elements of MATLAB 5")
    content = Path(LAYOUTS[name].write(tmp_path)).read_bytes()
    generator, file = np.random.default_rng(0), tmp_path / "damaged.mat"
    for _ in range(12):
        file.write_bytes(damage(bytearray(content), generator))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses are told
            answer = read(file)
        assert isinstance(answer, Recording) or "\n" not in str(answer)


def read(file: Path) -> Recording | InputError:
    try:
        return MAT(file, bin_width=WIDTH).load()
    except InputError as error:
        return error


def test_a_sparse_matrix_whose_indices_point_beyond_it_is_refused(tmp_path: Path) -> None:
    import scipy.sparse

    file = tmp_path / "beyond.npz"
    matrix = scipy.sparse.csr_array(np.eye(4))
    matrix.indices[2] = 1000
    np.savez(
        file, data=matrix.data, indices=matrix.indices, indptr=matrix.indptr,
        shape=np.array(matrix.shape), format=np.array(b"csr"),
    )  # fmt: skip
    with pytest.raises(InputError, match="damaged"):
        as_source(file, WIDTH).load()
