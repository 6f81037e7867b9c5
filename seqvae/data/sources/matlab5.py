"""MATLAB files of the versions 4 to 7, read by scipy once their claims are checked.

scipy takes the memory that a header claims, and goes as deep as a file nests. So the elements are
walked through first: each must lie within the one around it, and hold what it says it holds.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.data.sources.archives import check_claim, mended
from seqvae.data.sources.leaves import Cells, Leaf, Tree
from seqvae.errors import InputError

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _OBJECT, _SPARSE, _OPAQUE = 1, 2, 3, 5, 17
_NUMBERS = range(4, 16)
_VALUES = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}  # types of numbers and text
_COMPLEX = 0x800  # a flag: an imaginary part follows
_DEEPEST = 24
_MOST_CELLS = 2_000_000


def read_matlab5(path: Path) -> Tree:
    """Return the variables of a file: leaves, cells, and mappings of structs.

    Raises:
        InputError: if the file is damaged, or claims more than it holds.
    """
    import scipy.io

    with mended(path):
        content = path.read_bytes()
        if 0 not in content[:4]:
            content = content[:_HEADER] + _Walk(path, content).content()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that stand twice, of which the last is taken
            variables = scipy.io.loadmat(io.BytesIO(content), mat_dtype=False)
        return {
            name: value
            for name, item in variables.items()
            if not name.startswith("__") and (value := _value(path, item)) is not None
        }


def _value(path: Path, item: Any) -> Any:
    """Return an item as a leaf, cells or mapping; None for functions and objects of MATLAB."""
    if hasattr(item, "toarray"):
        check_claim(path, "a sparse matrix", int(np.prod(item.shape)) * item.dtype.itemsize)
        item.check_format(full_check=True)  # else its indices may point anywhere
        return Leaf.of(item.toarray())
    if type(item).__name__ in ("MatlabFunction", "MatlabOpaque") or not isinstance(
        item, np.ndarray
    ):
        return None
    if item.dtype.names:
        structs = [
            {
                name: value
                for name in item.dtype.names or ()
                if (value := _value(path, one[name])) is not None
            }
            for one in item.ravel()
        ]
        return structs[0] if item.size == 1 else Cells(item.shape, tuple(structs))
    if item.dtype.kind == "O":
        cells = [_value(path, one) for one in item.ravel()]
        return Cells(
            item.shape, tuple(Leaf.of(np.zeros((0, 0))) if c is None else c for c in cells)
        )
    return Leaf.of(item) if item.dtype.kind in "biufU" else None


class _Walk:
    """Goes through the elements of a file of version 5."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        self._content = content
        self._order = {b"IM": "<", b"MI": ">"}.get(content[126:128], "")
        self._left = _MOST_CELLS
        if not self._order:
            raise self._damaged("has no header of a MATLAB file")

    def content(self) -> bytes:
        """Return all elements, inflated and checked."""
        inflated = []
        place, total = _HEADER, 0
        while place + 8 <= len(self._content):
            kind, size = struct.unpack_from(f"{self._order}II", self._content, place)
            body = self._content[place + 8 : place + 8 + size]
            if len(body) < size:
                raise self._damaged("ends in the middle of a variable")
            if kind == _COMPRESSED:
                element = self._inflated(body)
            else:
                element = self._content[place : place + 8 + size]
            total += len(element)
            check_claim(self._path, "the variables", total)
            self._element(memoryview(element), 0)
            inflated.append(element)
            place += 8 + size
        return b"".join(inflated)

    def _inflated(self, body: bytes) -> bytes:
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
        if size < 4 or type_of != 6:
            raise self._damaged("holds a variable without a class")
        (flags,) = struct.unpack_from(f"{self._order}I", data, start)
        place = self._element(data, depth)
        type_of, size, start = self._tag(data[place:])
        if flags & 0xFF == _OPAQUE:
            return
        if type_of != 5 or size < 8:
            raise self._damaged("holds a variable without a size")
        dims = struct.unpack_from(f"{self._order}{size // 4}i", data, place + start)
        place += self._element(data[place:], depth)
        place = self._values(data, place, depth)  # the name
        number = 1
        for dim in dims:
            number *= dim
            if dim < 0 or len(dims) > 32:
                raise self._damaged("holds a variable of impossible size")
        kind = flags & 0xFF
        if kind == _SPARSE:
            check_claim(self._path, "a sparse matrix", number * 8)
        elif kind in _NUMBERS and number > 8 * len(data):
            raise self._damaged("holds a variable that claims more than it holds")
        if kind == _OBJECT:
            place = self._values(data, place, depth)
        if kind in (_STRUCT, _OBJECT):
            _, _, start = self._tag(data[place:])
            (length,) = struct.unpack_from(f"{self._order}i", data, place + start)
            place = self._values(data, place, depth)
            _, names, _ = self._tag(data[place:])
            place = self._values(data, place, depth)
            number *= names // length if length > 0 else len(data)
        if kind == _SPARSE or kind in _NUMBERS:
            is_complex = bool(flags & _COMPLEX)
            self._values_to_end(data, place, depth, least=1 + is_complex + 2 * (kind == _SPARSE))
        if kind in (_CELL, _STRUCT, _OBJECT):
            self._left -= max(number, 1)
            if self._left < 0 or number * 8 > len(data):
                raise self._damaged("holds cells that claim more than they hold")
            for _ in range(number):
                place += self._element(data[place:], depth + 1)

    def _values(self, data: memoryview, place: int, depth: int) -> int:
        """Check an element of numbers or text, whose type scipy does not; return what follows."""
        kind, _, _ = self._tag(data[place:])
        if kind not in _VALUES:
            raise self._damaged(f"holds values of an unknown type ({kind})")
        return place + self._element(data[place:], depth)

    def _values_to_end(self, data: memoryview, place: int, depth: int, *, least: int) -> None:
        """Check all elements that follow, of which there must be some."""
        number = 0
        while place < len(data):
            place, number = self._values(data, place, depth), number + 1
        if number < least:
            raise self._damaged("ends in the middle of a variable")

    def _damaged(self, what: str) -> InputError:
        return InputError(
            f"source.path: {str(self._path)!r} {what}; it is damaged, copy or write it again"
        )
