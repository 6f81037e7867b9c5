"""The average of the weights over the last steps of training."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import Parameter


class WeightAverage(Callback):
    """Keeps the average of the weights of all steps, each step less the longer ago it was.

        average after t steps = sum_i decay^(t - i) w_i / sum_i decay^(t - i),   i = 1 .. t

    an exponential moving average over about 1 / (1 - decay) steps that does not lean towards the
    weights it began with [Polyak & Juditsky 1992; bias as corrected in Kingma & Ba 2015]. The
    weights that learn are left as they are; validation scores the average, and the average is what
    training ends with. To stand before whatever keeps weights.

    Args:
        decay: from step to step, at least 0 and below 1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.num_steps = 0
        self._step = 0
        self._is_shown = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, or go on where the parameters are."""
        for name, parameter in _learned(pl_module).items():
            former = self.average.get(name, parameter.detach())
            self.average[name] = former.to(parameter, copy=True)
        self._step = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let the weights learn, after a validation within an epoch."""
        self._show(pl_module, average=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the weights of this step, if there was one."""
        if trainer.global_step == self._step:
            return
        self._step, self.num_steps = trainer.global_step, self.num_steps + 1
        share = 1.0
        if self.decay > 0:
            share = (1 - self.decay) / -math.expm1(self.num_steps * math.log(self.decay))
        with torch.no_grad():
            for name, parameter in _learned(pl_module).items():
                self.average[name].lerp_(parameter, share)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the average be scored; it stays until training goes on."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._show(pl_module, average=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the weights be saved that learn."""
        self._show(pl_module, average=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model with the average."""
        self._show(pl_module, average=True)

    def state_dict(self) -> dict[str, Any]:
        """Keep the average in the checkpoint, where the weights are those that learn."""
        return {"average": self.average, "num_steps": self.num_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average up to the checkpoint."""
        self.average, self.num_steps = dict(state_dict["average"]), state_dict["num_steps"]

    @torch.no_grad()
    def _show(self, model: LightningModule, *, average: bool) -> None:
        """Exchange the model's weights and the average, unless they have changed places already."""
        if average == self._is_shown:
            return
        self._is_shown = average
        for name, parameter in _learned(model).items():
            other = self.average[name].clone()
            self.average[name].copy_(parameter)
            parameter.copy_(other)


def _learned(model: LightningModule) -> dict[str, Parameter]:
    return {name: part for name, part in model.named_parameters() if part.requires_grad}
