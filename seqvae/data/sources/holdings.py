"""What a file holds, whatever its format: leaves and cells by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqvae.data.sources.archives import check_claim, mended, open_npz
from seqvae.data.sources.hdf5_file import open_hdf5
from seqvae.data.sources.leaves import Cells, Leaf, Tree, alike, entry, leaf_names
from seqvae.data.sources.matlab5 import read_matlab5
from seqvae.data.sources.matlab73 import open_matlab73
from seqvae.data.sources.npy_file import npy_leaf
from seqvae.data.sources.settled import existing_file, settled
from seqvae.errors import InputError, nearest

HDF5_ENDINGS = (".h5", ".hdf5", ".hdf")
SPARSE = frozenset(("data", "shape", "format"))
"""Some of the entries that scipy.sparse.save_npz writes."""
_SPARSE_PARTS = ("data", "indices", "indptr", "row", "col", "offsets")


@dataclass(frozen=True, eq=False)
class Holdings:
    """What a file, or an array, holds.

    Attributes:
        entries: leaves and cells by name; an array alone has the name "".
        is_matlab: whether it is MATLAB's, where all arrays have two axes and counting begins at 1.
        tree: of MATLAB's names, which lead through cells.
    """

    entries: Mapping[str, Leaf | Cells]
    is_matlab: bool = False
    tree: Tree | None = None

    def find(self, name: str) -> Leaf | Cells:
        """Return what lies under a name; a * stands for one group, or entry, for each trial.

        Raises:
            InputError: with the nearest names, at most ten.
        """
        if name in self.entries:
            return self.entries[name]
        if self.tree is not None:
            value: Leaf | Cells = entry(self.tree, name, ".")
            return value
        names = alike(list(self.entries), name) if "*" in name else []
        if not names:
            raise InputError(f"keys: {name!r} is not in the file{nearest(name, self.entries)}")
        return Cells((len(names),), tuple(self.entries[one] for one in names))


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Holdings]:
    """Yield what a file holds, which can be read as long as the file is open.

    Raises:
        InputError: if the file is damaged, of another format, or changed while it was read.
    """
    file = existing_file(path)
    ending = file.suffix.lower()
    with settled(file):
        if ending == ".npz":
            with open_npz(file) as archive:
                entries = {name: archive.leaf(name) for name in archive}
                yield Holdings(_sparse(file, entries) or entries)
        elif ending == ".npy":
            yield Holdings({"": npy_leaf(file)})
        elif ending == ".mat":
            with _matlab(file) as tree:
                yield Holdings(leaf_names(tree, "."), is_matlab=True, tree=tree)
        else:
            with open_hdf5(file) as groups:
                yield Holdings({name: groups.leaf(name) for name in groups})


@contextmanager
def _matlab(file: Path) -> Iterator[Tree]:
    import h5py

    if h5py.is_hdf5(file):
        with open_matlab73(file) as tree:
            yield tree
    else:
        yield read_matlab5(file)


def _sparse(file: Path, entries: Mapping[str, Leaf]) -> dict[str, Leaf | Cells] | None:
    """Return a sparse matrix of scipy as one array, if the archive is one."""
    known = SPARSE | {*_SPARSE_PARTS, "_is_array"}
    if not set(entries) >= SPARSE or not set(entries) <= known:
        return None
    import scipy.sparse

    kind, shape = entries["format"].read().item(), entries["shape"].read()
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind not in ("csr", "csc", "coo") or shape.size != 2 or (shape < 1).any():
        raise InputError(
            f"source.path: {str(file)!r} is a sparse matrix of format {kind!r} and shape "
            f"{shape.tolist()}; save one as csr, csc or coo with two axes"
        )
    num_rows, num_columns = (int(size) for size in shape)
    check_claim(file, "the sparse matrix", num_rows * num_columns)
    with mended(file):
        names = ("row", "col") if kind == "coo" else ("indices", "indptr")
        values, *places = (entries[name].read() for name in ("data", *names))
        given: Any = (values, tuple(places)) if kind == "coo" else (values, *places)
        matrix = getattr(scipy.sparse, f"{kind}_array")(given, shape=(num_rows, num_columns))
        if kind != "coo":
            matrix.check_format(full_check=True)  # else its indices may point anywhere
        return {"": Leaf.of(matrix.toarray())}
