"""Checkpoints of Lightning that training goes on from: written, whole, and looked at."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from seqvae.compute.termination import end_requested, take_over
from seqvae.errors import InputError, Terminated
from seqvae.models import LatentVariableModel
from seqvae.storage.files import RunFiles
from seqvae.storage.weights import check_weights, load_plain, save_tensors

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


class SaveLast(Checkpoint):
    """Writes all that resuming needs to ``last.ckpt``, by rename, at the ends of epochs.

    A fit that stops within an epoch (``max_steps``, ``max_time``) goes on from the end of the one
    before, because Lightning would begin the epoch anew with its first trials. A termination
    (SIGTERM, to whichever process) waits for the end of the epoch, but not for longer than
    ``every_seconds``: an epoch that lasts longer has the one before it saved.

    Args:
        path: the file.
        every_seconds: least time between two writings; the last whole epoch that ends a fit
            is always written, if ``keeps_end``.
        keeps_end: whether the end of all steps is written, too: training can then go on.
    """

    def __init__(self, path: Path, *, every_seconds: float = 20.0, keeps_end: bool = True) -> None:
        self.path = path
        self.every_seconds = every_seconds
        self.keeps_end = keeps_end
        self._written = -math.inf

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer a termination here: Lightning would end within an epoch, without a checkpoint."""
        take_over(patience=self.every_seconds)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer a termination here, and go on with the next epoch.

        Where steps are limited Lightning would enter the saved epoch again, at its end; and take a
        step more in it, if it had no validation.
        """
        take_over(patience=self.every_seconds)
        loop = trainer.fit_loop
        if loop.restarting and loop.epoch_loop.batch_progress.is_last_batch:
            loop.epoch_progress.increment_completed()
            loop.epoch_loop.restarting = loop._restarting = False
            loop.reset_restart_stage()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write if it is time."""
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        if trainer.global_step == trainer.max_steps and not self.keeps_end:
            return
        ends = trainer.strategy.reduce_boolean_decision(end_requested(), all=False)
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        last = last or trainer.global_step == trainer.max_steps
        due = time.monotonic() - self._written >= self.every_seconds
        due = trainer.strategy.broadcast(due)
        if last or due or ends:
            trainer.save_checkpoint(self.path, weights_only=False)
            self._written = time.monotonic()
        if ends:
            raise Terminated


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints by rename within their folder; Lightning's own way is through /tmp."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint."""
        save_tensors(Path(path), checkpoint)


def best_weights_beside(checkpoint: Path | None) -> Path | None:
    """Return the best weights beside a checkpoint."""
    return None if checkpoint is None else RunFiles(checkpoint.parent).weights


def check_checkpoint(path: Path, model: LatentVariableModel) -> dict[str, Any]:
    """Return what a checkpoint holds.

    Refused is one that is not whole, not of this model, or not tensors and plain values.

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
    return content
