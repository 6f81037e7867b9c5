"""MATLAB files of version 4, checked before scipy reads them.

scipy seeks to where a header says that the next variable lies, back to its own, too, and would read
it for ever.
"""

from __future__ import annotations

import struct
from pathlib import Path

from seqvae.errors import InputError

_HEADER = 20
_BYTES = (8, 4, 4, 2, 2, 1)  # of a number, by the digit that tells its type
_SPARSE = 2
_LAST_CODE = 5000
_MOST = 20_000  # variables


def check_matlab4(path: Path, content: bytes) -> None:
    """Go through the variables of a file, each of which must lie in it as a whole.

    Raises:
        InputError: if the file is damaged, or claims more than it holds.
    """
    place, number_seen, order = 0, 0, "<"
    if len(content) >= 4 and not 0 <= struct.unpack_from("<i", content)[0] <= _LAST_CODE:
        order = ">"
    while place < len(content):
        number_seen += 1
        if number_seen > _MOST:
            raise _damaged(path, f"holds more than {_MOST} variables")
        if place + _HEADER > len(content):
            raise _damaged(path, "ends in the middle of a variable")
        code, rows, columns, imaginary, name = struct.unpack_from(f"{order}5i", content, place)
        digits = code // 1000, code // 100 % 10, code // 10 % 10, code % 10
        machine, zero, number, kind = digits
        if not 0 <= code <= _LAST_CODE or zero or number >= len(_BYTES) or kind > _SPARSE:
            raise _damaged(path, f"holds a variable of an unknown type ({code})")
        if machine != (order == ">"):
            raise _damaged(path, "holds a variable in the format of another machine")
        if min(rows, columns) < 0 or imaginary not in (0, 1) or name < 1:
            raise _damaged(path, "holds a variable of impossible size")
        if kind == _SPARSE and (columns not in (3, 4) or rows < 1 or number or imaginary):
            raise _damaged(path, "holds a sparse matrix of impossible size")
        place += _HEADER + name + rows * columns * _BYTES[number] * (1 + imaginary)
        if place > len(content):
            raise _damaged(path, "ends in the middle of a variable")


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"source.path: {str(path)!r} {what}; it is damaged or no MATLAB file, write it again"
    )
