"""Weights on disk: tensors and plain values, read without pickle."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqvae.errors import InputError, nearest
from seqvae.files import atomic_path

FORMAT = "seqvae weights 1"


def save_weights(path: Path, model: nn.Module, *, step: int, score: float) -> None:
    """Write the weights of a model, by rename.

    Args:
        path: file to write.
        model: its ``state_dict`` is written.
        step: optimiser steps taken.
        score: the validation score that selected them.
    """
    content = {"format": FORMAT, "step": step, "score": score, "state_dict": model.state_dict()}
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_weights(path: Path, model: nn.Module) -> None:
    """Put the weights of a file into a model.

    Raises:
        InputError: if the file is missing, truncated, of another format or of another model.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: the run has saved no weights yet")
    content = load_plain(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is not a weights file of seqvae (expected format {FORMAT!r})")
    check_weights(path, content.get("state_dict"), model)
    model.load_state_dict(content["state_dict"])


def load_plain(path: Path) -> Any:
    """Return what a file of ``torch.save`` holds, if it holds tensors and plain values only.

    Raises:
        InputError: if it is truncated, or anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle of a foreign file
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds for a damaged file
        raise InputError(
            f"{path} cannot be read: it is truncated or not a file of seqvae"
        ) from error


def check_weights(path: str | os.PathLike[str], found: Any, model: nn.Module) -> None:
    """Refuse weights that do not belong to a model.

    Args:
        path: where they lie, for the error.
        found: what is there, name -> tensor.
        model: the model they shall go to.

    Raises:
        InputError: naming the first weight that does not fit.
    """
    if not isinstance(found, dict) or not all(isinstance(w, Tensor) for w in found.values()):
        raise InputError(f"{path} holds no weights")
    wanted = model.state_dict()
    for name in wanted:
        if name not in found:
            raise InputError(f"{path} has no weight {name!r}{nearest(name, found)}")
        if found[name].shape != wanted[name].shape:
            raise InputError(
                f"{path}: weight {name!r} has shape {tuple(found[name].shape)}, but the model "
                f"needs {tuple(wanted[name].shape)}; they do not belong together"
            )
    for name in found:
        if name not in wanted:
            raise InputError(f"{path} has a weight {name!r} that the model does not know")
