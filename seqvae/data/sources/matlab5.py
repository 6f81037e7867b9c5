"""MATLAB files of the versions 4 to 7, read by scipy once their claims are checked.

scipy takes the memory that a header claims, goes as deep as a file nests, and believes types that
it does not know. So the elements are walked through first, in just the steps that scipy takes:
each must lie within the one around it, fill it, and hold what it says it holds.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.data.sizes import check_memory
from seqvae.data.sources.archives import check_claim, mended
from seqvae.data.sources.leaves import EMPTY, Cells, Leaf, Tree
from seqvae.data.sources.matlab4 import check_matlab4
from seqvae.errors import InputError

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _OBJECT, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 5, 16, 17
_NUMBERS = frozenset(range(4, 16)) - {_SPARSE}
_VALUES = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}  # types of numbers and text
_COMPLEX = 0x800  # a flag: an imaginary part follows
_DEEPEST, _MOST_AXES = 24, 32
_FEW_FIELDLESS = 1_000  # elements of a struct array that take no bytes
_COPIES = 2  # of the variables that are held at a time, at most
_MOST_CELLS = 2_000_000
_FEW_CELLS = 100_000  # that any file may have, beside one for each of its bytes


def read_matlab5(path: Path) -> Tree:
    """Return the variables of a file: leaves, cells, and mappings of structs.

    Raises:
        InputError: if the file is damaged, or claims more than it holds.
    """
    import scipy.io

    with mended(path):
        content = path.read_bytes()
        if 0 in content[:4]:
            check_matlab4(path, content)
        else:
            content = content[: _Walk(path, content).end()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that stand twice, of which the last is taken
            variables = scipy.io.loadmat(io.BytesIO(content), mat_dtype=False)
        values = _Values(path)
        return {
            name: value
            for name, item in variables.items()
            if not name.startswith("__") and (value := values.of(item)) is not None
        }


class _Values:
    """What scipy makes of variables, as leaves, cells and mappings."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dense = 0  # bytes of all sparse matrices, which few bytes may stand for

    def of(self, item: Any) -> Any:
        """Return an item as a leaf, cells or mapping; None for functions and objects of MATLAB."""
        if hasattr(item, "toarray"):
            self._dense += math.prod(item.shape) * item.dtype.itemsize
            check_claim(self._path, "sparse matrices", self._dense)
            columns = item.tocsc()
            columns.check_format(full_check=True)  # else its indices may point anywhere
            return Leaf.of(columns.toarray())
        if type(item).__name__ in ("MatlabFunction", "MatlabOpaque") or not isinstance(
            item, np.ndarray
        ):
            return None
        if item.dtype.names:
            structs = [
                {
                    name: value
                    for name in item.dtype.names or ()
                    if (value := self.of(one[name])) is not None
                }
                for one in item.ravel()
            ]
            return structs[0] if item.size == 1 else Cells(item.shape, tuple(structs))
        if item.dtype.kind == "O":
            cells = [self.of(one) for one in item.ravel()]
            return Cells(item.shape, tuple(EMPTY if cell is None else cell for cell in cells))
        if item.dtype.kind not in "biufU":
            return None
        return EMPTY if item.shape == (0, 0) else Leaf.of(item)


class _Walk:
    """Goes through the elements of a file of version 5."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        self._content = content
        self._order = {b"IM": "<", b"MI": ">"}.get(content[126:128], "")
        self._left = min(_MOST_CELLS, _FEW_CELLS + len(content))
        if not self._order:
            raise self._damaged("has no header of a MATLAB file")

    def end(self) -> int:
        """Check all elements, inflated; return where the last one ends."""
        place, total = _HEADER, 0
        while place + 8 <= len(self._content):
            kind, size = struct.unpack_from(f"{self._order}II", self._content, place)
            end = place + 8 + size
            if len(self._content) < end:
                raise self._damaged("ends in the middle of a variable")
            element = memoryview(self._content)[place:end]
            if kind == _COMPRESSED:
                element = memoryview(self._inflated(element[8:]))
            total += len(element)
            check_claim(self._path, "the variables", total)
            check_memory(f"the variables of {str(self._path)!r}", _COPIES * total)
            self._element(element, 0)
            place = end
        return place

    def _inflated(self, body: memoryview) -> bytes:
        stream = zlib.decompressobj()
        start = stream.decompress(body, 8)
        if len(start) < 8:
            raise self._damaged("ends in the middle of a variable")
        kind, size = struct.unpack(f"{self._order}II", start)
        check_claim(self._path, "a variable", size)
        if kind != _MATRIX:
            raise self._damaged("holds something that is no variable")
        rest = stream.decompress(stream.unconsumed_tail, size) if size else b""
        if len(rest) < size:
            raise self._damaged("ends in the middle of a variable")
        return start + rest

    def _element(self, data: memoryview, depth: int) -> int:
        """Check the element at the start of some bytes; return how many it takes."""
        kind, size, start = self._tag(data)
        end = start + size
        if end > len(data):
            raise self._damaged("holds an element that is longer than what holds it")
        if kind == _MATRIX and size:
            self._matrix(data[start:end], depth)
        return 8 if start == 4 else end + (-end % 8 if kind != _MATRIX else 0)

    def _tag(self, data: memoryview) -> tuple[int, int, int]:
        if len(data) < 8:
            raise self._damaged("ends in the middle of an element")
        kind, size = struct.unpack_from(f"{self._order}II", data)
        if kind >> 16:  # the short form: up to four bytes in the tag itself
            if kind >> 16 > 4:
                raise self._damaged("holds an element that is longer than what holds it")
            return kind & 0xFFFF, kind >> 16, 4
        return kind, size, 8

    def _matrix(self, data: memoryview, depth: int) -> None:
        if depth > _DEEPEST:
            raise self._damaged(f"nests cells more than {_DEEPEST} deep")
        type_of, size, start = self._tag(data)
        if (type_of, size, start) != (6, 8, 8):
            raise self._damaged("holds a variable without a class")
        (flags,) = struct.unpack_from(f"{self._order}I", data, start)
        kind, place = flags & 0xFF, self._element(data, depth)
        if kind == _OPAQUE:  # which has neither size nor name, but three words and a matrix
            for _ in range(3):
                place = self._values(data, place, depth)
            self._matrices(data, place, 1, depth)
            return
        dims, place = self._dims(data, place, depth)
        place = self._values(data, place, depth)  # the name
        number = math.prod(dims)
        if kind == _SPARSE:
            check_claim(self._path, "a sparse matrix", number * 8)
        if kind in _NUMBERS and number > 8 * len(data):
            raise self._damaged("holds a variable that claims more than it holds")
        if kind == _SPARSE or kind in _NUMBERS:
            parts = 1 + bool(flags & _COMPLEX) + 2 * (kind == _SPARSE)
            for _ in range(parts):
                place = self._values(data, place, depth)
            self._check_end(data, place, depth)
        elif kind == _FUNCTION:
            self._matrices(data, place, 1, depth)
        elif kind == _CELL:
            self._matrices(data, place, number, depth)
        elif kind in (_STRUCT, _OBJECT):
            if kind == _OBJECT:
                place = self._values(data, place, depth)  # its class
            num_fields, place = self._fields(data, place, depth)
            self._claim_cells(data, number)
            self._matrices(data, place, number * num_fields, depth)
        else:
            raise self._damaged(f"holds a variable of an unknown class ({kind})")

    def _dims(self, data: memoryview, place: int, depth: int) -> tuple[tuple[int, ...], int]:
        """Return the size of a variable, and what follows."""
        type_of, size, start = self._tag(data[place:])
        end = place + self._element(data[place:], depth)
        if type_of not in (5, 6) or size < 8:
            raise self._damaged("holds a variable without a size")
        dims = struct.unpack_from(f"{self._order}{size // 4}i", data, place + start)
        if size % 4 or len(dims) > _MOST_AXES or min(dims) < 0:
            raise self._damaged("holds a variable of impossible size")
        return dims, end

    def _fields(self, data: memoryview, place: int, depth: int) -> tuple[int, int]:
        """Return how many fields a struct has, and what follows their names."""
        type_of, size, start = self._tag(data[place:])
        end = self._values(data, place, depth)
        if type_of not in (5, 6) or size != 4:
            raise self._damaged("holds a struct without fields")
        (length,) = struct.unpack_from(f"{self._order}i", data, place + start)
        _, names, _ = self._tag(data[end:])
        if length < 1 or names % length:
            raise self._damaged("holds a struct whose fields have no names")
        return names // length, self._values(data, end, depth)

    def _claim_cells(self, data: memoryview, number: int) -> None:
        self._left -= max(number, 1)
        if self._left < 0 or number > _FEW_FIELDLESS + len(data) // 8:
            raise self._damaged("holds cells that claim more than they hold")

    def _matrices(self, data: memoryview, place: int, number: int, depth: int) -> None:
        """Check the variables within another, up to its end."""
        self._claim_cells(data, number)
        for _ in range(number):
            kind, _, start = self._tag(data[place:])
            if kind != _MATRIX or start != 8:
                raise self._damaged("holds a cell that is none")
            place += self._element(data[place:], depth + 1)
        self._check_end(data, place, depth)

    def _check_end(self, data: memoryview, place: int, depth: int) -> None:
        """Refuse what follows within another variable: scipy would read it as the next one."""
        if depth and place < len(data):
            raise self._damaged("holds a variable that is longer than its values")

    def _values(self, data: memoryview, place: int, depth: int) -> int:
        """Check an element of numbers or text, whose type scipy does not; return what follows."""
        kind, _, _ = self._tag(data[place:])
        if kind not in _VALUES:
            raise self._damaged(f"holds values of an unknown type ({kind})")
        return place + self._element(data[place:], depth)

    def _damaged(self, what: str) -> InputError:
        return InputError(
            f"source.path: {str(self._path)!r} {what}; it is damaged, copy or write it again"
        )
