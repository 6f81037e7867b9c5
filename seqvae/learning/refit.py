"""Learning again from all trials, once validation trials have chosen for how long.

A first pass learns from the training trials, and validation trials choose the step n of the best
weights. The second one begins where the first began, with the validation trials among the training
trials, and goes as often through all of them: n steps times the batches there are now over the
batches there were, each with the learning rate that the first pass had at its place. So the trials
that selection costs are learned from, too [Goodfellow et al. 2016, Deep Learning, section 7.8].
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import (
    Checkpoint,
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
)
from torch import Tensor
from torch.optim import Optimizer

from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.learning.checkpoints import best_weights_beside, check_checkpoint
from seqvae.learning.trainers import callbacks_of
from seqvae.models import LatentVariableModel
from seqvae.storage.weights import is_refitted

_WATCHING = (Checkpoint, DeviceStatsMonitor, EarlyStopping, LearningRateMonitor, ModelSummary)
"""Callbacks that look at the first pass, or end it, and do not change how it learns."""

GroupSettings = list[dict[str, Any]]


class FirstPass(Callback):
    """Keeps what the second pass needs of the first.

    Args:
        beginning: the weights that the second pass begins with; None: a checkpoint has them.

    Attributes:
        path: settings of the optimiser, its learning rates among them, each with the step from
            which they were in force.
    """

    def __init__(self, beginning: Mapping[str, Tensor] | None = None) -> None:
        self.beginning = beginning
        self.path: list[tuple[int, GroupSettings]] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Note the settings of this step, if they are new."""
        settings = [
            {name: _plain(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        if not self.path or self.path[-1][1] != settings:
            self.path.append((trainer.global_step, settings))

    def state_dict(self) -> dict[str, Any]:
        """Keep all of it in the checkpoint."""
        return {"beginning": self.beginning, "path": self.path}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what was known at the checkpoint."""
        self.beginning, self.path = state_dict["beginning"], list(state_dict["path"])


class SecondPass(Callback):
    """Gives each step the optimiser's settings of the first pass.

    Args:
        path: the settings, as ``FirstPass`` notes them.
        chosen_steps: steps of the first pass to the best weights.
        batches: steps of an epoch, in the first pass and in this one.

    Attributes:
        num_steps: how many steps are taken.
    """

    def __init__(
        self,
        path: Sequence[tuple[int, GroupSettings]],
        chosen_steps: int,
        *,
        batches: tuple[int, int],
    ) -> None:
        before, now = batches

        def place(step: int) -> int:
            return -(-step * now // before)

        self.path = [(place(step), settings) for step, settings in path if step < chosen_steps]
        self.num_steps = place(chosen_steps)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Put the settings of this step in force."""
        settings = [settings for step, settings in self.path if step <= trainer.global_step][-1]
        for group, values in zip(optimizer.param_groups, settings, strict=True):
            for name in values.keys() & group.keys():
                if isinstance(group[name], Tensor):
                    group[name].fill_(values[name])
                else:
                    group[name] = values[name]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the learning rate, as a validation would."""
        rate = torch.tensor(float(trainer.optimizers[0].param_groups[0]["lr"]), dtype=torch.float64)
        pl_module.log("train/learning_rate", rate, on_step=False, on_epoch=True, sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the model that it has learned from the validation trials."""
        assert isinstance(pl_module, LatentVariableModel)
        pl_module.refitted = True

    def state_dict(self) -> dict[str, Any]:
        """Keep in the checkpoint which second pass it is of."""
        return {"path": self.path, "num_steps": self.num_steps}

    def last_checkpoint(self, file: Path | None, model: LatentVariableModel) -> Path | None:
        """Return a file to go on from, if it is whole and of this second pass; None: begin."""
        if file is None or not file.exists():
            return None
        try:
            callbacks = check_checkpoint(file, model)["callbacks"]
        except InputError:
            return None
        return file if callbacks.get(self.state_key) == self.state_dict() else None


def beginning(model: LatentVariableModel, data: NeuralData) -> dict[str, Tensor]:
    """Return the weights that a model which is about to learn would have begun with on other data.

    Args:
        model: as it begins.
        data: of the same neurons.
    """
    other = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told of the data that the model begins with
        other.initialize(data)
        if model.has_begun:
            other.begin_from(model)
    return other.state_dict()


def second_pass(
    first: FirstPass, chosen_steps: int, data: NeuralData, learned: NeuralData
) -> SecondPass:
    """Return the second pass that follows on a first one.

    Args:
        first: of the first pass.
        chosen_steps: its steps to the best weights.
        data: what it learned from.
        learned: what the second one learns from.
    """
    before, now = (math.ceil(len(d.trials("train")) / d.batch_size) for d in (data, learned))
    return SecondPass(first.path, chosen_steps, batches=(before, now))


def second_factory(factory: partial[Trainer], num_steps: int) -> partial[Trainer]:
    """Return the factory of the Trainer of a second pass: so many steps, and no validation."""
    bars = [callback for callback in callbacks_of(factory) if isinstance(callback, ProgressBar)]
    changes = {
        "max_epochs": -1,
        "max_steps": num_steps,
        "limit_val_batches": 0,
        "enable_checkpointing": False,
        "callbacks": bars,
        "logger": False,  # it would write over what it knows of the first pass
    }
    limits = ("min_epochs", "min_steps", "max_time", "fast_dev_run")
    kept = {name: value for name, value in factory.keywords.items() if name not in limits}
    return partial(factory.func, **{**kept, **changes})


def check_refit(factory: partial[Trainer], data: NeuralData, select: str) -> None:
    """Refuse a second pass for which nothing would choose, or that could not be like the first.

    Args:
        factory: of the first Trainer.
        data: the data to learn from.
        select: the score that chooses.

    Raises:
        InputError: naming the setting and what it needs.
    """
    if "val" not in data.split:
        raise InputError(
            f"refit: there are no validation trials, whose {select!r} chooses for how long to "
            "learn; set data.val_fraction, e.g. to 0.2, or leave refit out"
        )
    if factory.keywords.get("limit_val_batches") == 0:
        raise InputError(
            "refit: with trainer.limit_val_batches 0 nothing chooses for how long to learn; leave "
            "it out, or give refit false"
        )
    if not isinstance(strategy := factory.keywords.get("strategy", "auto"), str):
        raise InputError(
            f"refit: a {type(strategy).__name__} serves one pass of training only; give "
            "trainer.strategy by its name, or refit false"
        )
    for callback in callbacks_of(factory):
        if not isinstance(callback, (ProgressBar, *_WATCHING)):
            raise InputError(
                f"refit: whether a {type(callback).__name__} can serve a second pass is not known; "
                "leave it out of trainer.callbacks, or give refit false"
            )


def check_going_on(
    refit: bool, checkpoint: Path, content: Mapping[str, Any], *, max_epochs: int | None
) -> None:
    """Refuse to go on with a fit that was begun, or has ended, in the other way, or is longer.

    Args:
        refit: whether there is a second pass.
        checkpoint: file to go on from.
        content: what it holds.
        max_epochs: of the first Trainer.

    Raises:
        InputError: naming the run.
    """
    if max_epochs is not None and 0 <= max_epochs < content["epoch"]:
        raise InputError(
            f"trainer.max_epochs: {checkpoint.parent} has learned for {content['epoch'] + 1} "
            f"epochs, more than {max_epochs}; give more, or overwrite in place of resume"
        )
    if refit and FirstPass.__qualname__ not in content["callbacks"]:
        raise InputError(
            f"refit: {checkpoint.parent} was begun without it, and does not know where it began; "
            "leave refit out, or give overwrite in place of resume"
        )
    weights = best_weights_beside(checkpoint)
    if not refit and weights is not None and weights.exists() and is_refitted(weights):
        raise InputError(
            f"refit: {checkpoint.parent} was refitted, and its former weights are gone; give refit "
            "again, or overwrite in place of resume"
        )


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Tensor) else value
