"""How long the gradients are, before they are clipped."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from seqvae.models import LatentVariableModel


class GradientNorms(Callback):
    """Logs ``train/gradient_norm``, the mean norm of an epoch's steps before clipping.

    Beside it ``train/clipped``, the share of the steps that were clipped, and, where there were
    some, ``train/nonfinite_gradients``, the share without a finite norm, which the mean leaves out
    (such steps are skipped in half precision). The norms are those that clipping takes; they stay
    on the device until the epoch ends.
    """

    def __init__(self) -> None:
        self._norms: list[Tensor] = []
        self._has_failed = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch."""
        self._norms = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the norm of this step, if there was one."""
        if isinstance(pl_module, LatentVariableModel) and pl_module.gradient_norm is not None:
            self._norms.append(pl_module.gradient_norm)
            pl_module.gradient_norm = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch; the gradients are those of all processes, so all log the same."""
        if not self._norms:
            return
        norms, self._norms = torch.stack(self._norms).double(), []
        finite = norms.isfinite()
        logged = {"gradient_norm": norms[finite].mean() if bool(finite.any()) else norms[0]}
        if trainer.gradient_clip_val and trainer.gradient_clip_algorithm in (None, "norm"):
            logged["clipped"] = (norms[finite] > trainer.gradient_clip_val).double().mean()
        share = (~finite).double().mean()
        self._has_failed = self._has_failed or bool(share > 0)
        if self._has_failed:
            logged["nonfinite_gradients"] = share
        for name, value in logged.items():
            pl_module.log(f"train/{name}", value, on_step=False, on_epoch=True, sync_dist=True)

    def state_dict(self) -> dict[str, Any]:
        """Keep whether there is a column to fill."""
        return {"has_failed": self._has_failed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the columns."""
        self._has_failed = state_dict["has_failed"]
