"""Checkpoints of Lightning that training goes on from."""

from __future__ import annotations

from pathlib import Path

from seqvae.errors import InputError
from seqvae.models import LatentVariableModel
from seqvae.storage.files import RunFiles
from seqvae.storage.weights import check_weights, load_plain

# What a checkpoint of Lightning must hold for training to go on from it.
_CHECKPOINT = {
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


def best_weights_beside(checkpoint: Path | None) -> Path | None:
    """Return the best weights beside a checkpoint."""
    return None if checkpoint is None else RunFiles(checkpoint.parent).weights


def check_checkpoint(path: Path, model: LatentVariableModel) -> None:
    """Refuse a checkpoint that is not whole, not of this model, or not tensors and plain values.

    Raises:
        InputError: naming the file.
    """
    cure = "leave resume out and give overwrite to begin anew"
    try:
        content = load_plain(path)
    except InputError as error:
        raise InputError(f"{error}; {cure}") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), kind) for name, kind in _CHECKPOINT.items()
    ):
        raise InputError(f"{path} is not a training checkpoint of seqvae; {cure}")
    check_weights(path, content["state_dict"], model)
