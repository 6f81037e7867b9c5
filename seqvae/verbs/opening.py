"""What the verbs share that ask a fitted model: the run they open, and where answers may go."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

from seqvae.data import NeuralData, as_data
from seqvae.data.front import DataLike
from seqvae.errors import InputError
from seqvae.runs import Run
from seqvae.storage.files import check_writable


def open_run(
    run: Run | str, data: DataLike | None, trust: bool, *, bin_width: float | None = None
) -> tuple[Run, NeuralData, Any]:
    """Return a run, the data to look at (its own, or others that fit it), and its model."""
    run = run if isinstance(run, Run) else Run(run)
    model = run.model(trust=trust)
    if data is None:
        return run, as_data(run.data(trust=trust), bin_width), model
    data = as_data(data, bin_width, like=run.spec)
    data.setup()
    model.observation.check(data.recording)
    is_same = data.recording.checksum == run.provenance["data"]["checksum"]
    data = data.adapted(run.spec)
    if model.keeps_trials and not is_same:
        model = copy.deepcopy(model)
        model.make_room(data.recording.num_trials, data.spec.num_encoded_bins)
    return run, data, model


def check_num_samples(num_samples: int) -> None:
    """Refuse no posterior samples."""
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1, got {num_samples}")


def check_out(out: str) -> None:
    """Refuse a file that could not be written, before the work.

    Raises:
        InputError: for a folder, or one that does not exist or may not be written to.
    """
    if Path(out).is_dir():
        raise InputError(f"out: {out!r} is a folder; give the name of a file in it")
    parent = Path(out).parent
    if not parent.is_dir():
        raise InputError(f"out: the folder {str(parent)!r} does not exist")
    check_writable(parent)


def without_nan(value: Any) -> Any:
    """Write NaN and infinity as null: JSON has no other word for what is no number."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
