"""Write any recording to an HDF5 or npz file of the project's own layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqvae.data import NeuralData, as_data
from seqvae.data.front import BinWidth, DataLike
from seqvae.data.sources import write_hdf5, write_npz
from seqvae.data.transforms import learners
from seqvae.errors import InputError
from seqvae.verbs.check import with_guesses
from seqvae.verbs.opening import check_out

_WRITERS = {".h5": write_hdf5, ".hdf5": write_hdf5, ".hdf": write_hdf5, ".npz": write_npz}


def convert(
    data: DataLike, out: str, *, bin_width: BinWidth = None, overwrite: bool = False
) -> dict[str, Any]:
    """Write a recording, with all that is known of it, to a file that needs no setting.

    Loading the file gives the same recording: activity, where it is missing, what stands beside
    it, names, split, held-out neurons, times of trials and events. Counts are written in the
    smallest unsigned type, a block at a time. What is not said of a file is guessed, as by
    ``check``, and each guess is told. Transforms are done first; what ``data`` say of splits and
    windows is left to ``fit``.

    Args:
        data: the recording.
        out: file to write, .h5 or .npz; it appears whole or not at all.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        overwrite: whether to replace a file that is there.

    Raises:
        InputError: naming the field, the first offending index and the cure.
    """
    check_out(out, *_WRITERS)
    data = as_data(data, bin_width)
    if learning := learners(data.transforms):
        raise InputError(
            f"data.transforms: {type(learning[0]).__name__} learns from training trials, which are "
            "known once the recording is split; leave it to fit"
        )
    _check_free(out, data, overwrite)
    data, looks = with_guesses(data)
    recording = data.raw()
    _WRITERS[Path(out).suffix.lower()](recording, out)
    return {
        **{name: value for name, value in looks.items() if name != "entries"},
        "recording": repr(recording),
        "out": out,
        "size (MB)": round(Path(out).stat().st_size / 1e6, 3),
        "checksum": recording.checksum,
    }


def _check_free(out: str, data: NeuralData, overwrite: bool) -> None:
    """Refuse to replace what is there, unless that is wanted, and the file that is read."""
    file, path = Path(out), getattr(data.source, "path", None)
    if not file.exists():
        return
    if path is not None and Path(path).exists() and file.samefile(path):
        raise InputError(f"out: {out!r} is the file that is read; name another")
    if not overwrite:
        raise InputError(f"out: {out!r} is there already; name a new file, or give --overwrite")


def shown(summary: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Tell what was guessed and written, and how to go on."""
    lines = [f"  {line}" for line in summary.get("guessed", [])]
    return "\n".join(
        [
            *(["guessed:", *lines] if lines else []),
            *(f"{name}: {summary[name]}" for name in ("recording", "out", "size (MB)", "checksum")),
            f"next: seqvae fit {summary['out']} --run_dir runs/mine",
        ]
    )
