"""Weights on disk: tensors and plain values, read without pickle."""

from __future__ import annotations

import io
import os
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqvae.errors import InputError, nearest
from seqvae.storage.files import write_bytes

FORMAT = "seqvae weights 1"
_MODULES = ("collections", "torch", "torch._utils", "torch.nn.parameter", "torch.serialization",
            "torch.storage", "_codecs", "builtins")  # fmt: skip


def save_weights(path: Path, model: nn.Module, *, step: int, score: float) -> None:
    """Write the weights of a model, by rename.

    Args:
        path: file to write.
        model: its ``state_dict`` is written, and whether it was refitted.
        step: optimiser steps taken.
        score: the validation score that selected them.
    """
    content = {"format": FORMAT, "step": step, "score": score, "state_dict": model.state_dict()}
    if getattr(model, "refitted", False):
        content["refitted"] = True
    save_tensors(path, content)


def save_tensors(path: Path, content: Any) -> None:
    """Write tensors and plain values, by rename; torch itself hides why a disk refuses."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


def load_weights(path: Path, model: nn.Module) -> None:
    """Put the weights of a file into a model.

    Raises:
        InputError: if the file is missing, truncated, of another format or of another model.
    """
    weights = read_weights(path)
    check_weights(path, weights, model)
    model.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of a file by name; they are no larger than the file.

    Raises:
        InputError: if the file is missing, truncated or of another format.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: the run has saved no weights yet")
    content = load_plain(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is not a weights file of seqvae (expected format {FORMAT!r})")
    return as_weights(path, content.get("state_dict"))


def steps_taken(path: Path) -> int:
    """Return the steps that were taken to the weights of a file; 0 if it is missing or damaged."""
    try:
        step = load_plain(path)["step"]
    except (InputError, KeyError, TypeError):
        return 0
    return step if isinstance(step, int) else 0


def is_refitted(path: Path) -> bool:
    """Whether the weights of a file were learned from the validation trials, too.

    Raises:
        InputError: if the file is truncated.
    """
    content = load_plain(path)
    return isinstance(content, dict) and content.get("refitted") is True


def load_plain(path: Path) -> Any:
    """Return what a file of ``torch.save`` holds, if it holds tensors and plain values only.

    The file is looked at before torch reads it: it is a zip archive whose parts are what they
    were written as, uncompressed and each on its own, so that it takes no more memory than its
    size.

    Raises:
        InputError: if it is truncated, or anything else.
    """
    damaged = InputError(f"{path} cannot be read: it is truncated or not a file of seqvae")
    try:
        if not path.is_file():  # a device would never end
            raise damaged
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
            names = {part.filename for part in parts}
            size = sum(part.file_size for part in parts)
            file.seek(0)
            is_plain = stored and len(names) == len(parts) and file.read(2) == b"PK"
            if not is_plain or size > path.stat().st_size or archive.testzip() is not None:
                raise damaged  # torch itself does not look at the check sums
            for name in names:
                if name.endswith(".pkl"):
                    _check_names(path, archive.read(name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle of a foreign file
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # the unpickler raises many kinds for a damaged file
        raise damaged from error


def _check_names(path: Path, content: bytes) -> None:
    """Refuse a file that names anything but what tensors and plain values are made of.

    torch's own list, which holds without this one, grows with what else is imported.
    """
    for code, argument, _ in pickletools.genops(content):
        module = str(argument).partition(" ")[0]
        if code.name == "STACK_GLOBAL" or (code.name == "GLOBAL" and module not in _MODULES):
            what = "what it hides" if argument is None else repr(str(argument).replace(" ", "."))
            raise InputError(f"{path} cannot be read: it names {what}, as no file of seqvae does")


def as_weights(path: str | os.PathLike[str], content: Any) -> dict[str, Tensor]:
    """Return what was found in a file as weights, if it is tensors of numbers by name.

    Raises:
        InputError: naming the first that is none, or that claims more than the file holds.
    """
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no weights")
    for name, weight in content.items():
        if not (isinstance(name, str) and isinstance(weight, Tensor)):
            raise InputError(f"{path} holds no weights")
        is_plain = weight.layout is torch.strided and not (weight.is_meta or weight.is_quantized)
        if not is_plain or weight.nbytes > weight.untyped_storage().nbytes():
            raise InputError(f"{path}: weight {name!r} is not stored as plain numbers")
    return content


def check_weights(path: str | os.PathLike[str], weights: Any, model: nn.Module) -> None:
    """Refuse weights that do not belong to a model.

    Args:
        path: where they lie, for the error.
        weights: what is there, name -> tensor.
        model: the model they shall go to.

    Raises:
        InputError: naming the first weight that does not fit.
    """
    weights, wanted = as_weights(path, weights), model.state_dict()
    later = _later_weights(weights, model)
    for name in wanted:
        if name in later:
            continue
        if name not in weights:
            raise InputError(f"{path} has no weight {name!r}{nearest(name, weights)}")
        if weights[name].shape != wanted[name].shape:
            raise InputError(
                f"{path}: weight {name!r} has shape {tuple(weights[name].shape)}, but the model "
                f"needs {tuple(wanted[name].shape)}; they do not belong together"
            )
    for name in weights:
        if name not in wanted:
            raise InputError(f"{path} has a weight {name!r} that the model does not know")


def _later_weights(weights: dict[str, Tensor], model: nn.Module) -> set[str]:
    """Return the names of weights that a version which wrote a file did not have yet.

    A module that came to have some names all of them in ``added_weights``; loading a file that has
    none of these, it fills them in itself.
    """
    later = set()
    for prefix, module in model.named_modules():
        names = {f"{prefix}.{name}" for name in getattr(module, "added_weights", ())}
        later |= set() if names & weights.keys() else names
    return later
