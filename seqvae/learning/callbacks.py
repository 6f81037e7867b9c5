"""What happens around training: history, best weights, observers, early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor, nn

from seqvae.compute.ranks import gathered
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.learning.observers import MetricsRow, Observer, Stage
from seqvae.models import Model
from seqvae.storage.files import RunFiles
from seqvae.storage.weights import load_weights


class StopOnNonFinite(Callback):
    """Stops training when a term of the loss is no longer a number, and says which and when.

    The terms stay on the device and are looked at once an epoch, so that a GPU never waits.

    Args:
        best: the best weights so far.
        folder: where they lie as well; None: nowhere.
    """

    def __init__(self, best: KeepBest, folder: Path | None = None) -> None:
        self.best = best
        self.folder = folder
        self._terms: list[tuple[int, list[str], Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the terms of this step."""
        values = torch.stack([value.detach() for value in outputs.values()])
        self._terms.append((trainer.global_step, list(outputs), values))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look before the weights are scored."""
        self._look(trainer.world_size)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look before the epoch is saved."""
        self._look(trainer.world_size)
        elbo = trainer.callback_metrics.get("val/elbo")
        if elbo is not None and not bool(torch.isfinite(elbo)):
            self._stop(trainer.global_step, "val/elbo")

    def _look(self, num_processes: int) -> None:
        terms, self._terms = self._terms, []
        names = [(step, name) for step, names, _ in terms for name in names]
        finite = torch.cat([values for *_, values in terms]).isfinite().tolist() if terms else []
        bad = [where for where, good in zip(names, finite, strict=True) if not good]
        bad = [where for those in gathered(bad[:100], num_processes) for where in those]
        if bad:  # the first; a term says more than the loss
            self._stop(*min(bad, key=lambda where: (where[0], where[1] == "loss")))

    def _stop(self, step: int, term: str) -> None:
        remark = "no weights had been saved yet"
        if self.best.is_known and self.folder is not None:
            remark = f"the best weights so far are kept in {RunFiles(self.folder).weights}"
        raise InputError(
            f"training diverged: {term} was nan or inf at step {step}; {remark}; "
            "lower model.optimizer.lr or learner.trainer.gradient_clip_val"
        )


class History(Callback):
    """Keeps one row of metrics for each validated epoch; without validation, for each epoch.

    Args:
        former: the rows of a first pass, before those of a second one, which have ``refit`` 1;
            None: this is the first.
    """

    def __init__(self, former: Sequence[MetricsRow] | None = None) -> None:
        self.former = former
        self._rows: list[MetricsRow] = []
        self._validated = False

    @property
    def rows(self) -> list[MetricsRow]:
        """All rows so far."""
        return [*(self.former or ()), *self._rows]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch has scores."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row of this epoch."""
        if not self._validated and trainer.enable_validation:
            return
        self._validated = False
        row: MetricsRow = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        metrics = trainer.callback_metrics
        row |= {name: float(metrics[name]) for name in sorted(metrics)}
        self._rows.append(row if self.former is None else row | {"refit": 1})

    def state_dict(self) -> dict[str, Any]:
        """Keep the rows of this pass in the checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows up to the checkpoint."""
        self._rows = list(state_dict["rows"])


class KeepBest(Callback):
    """Keeps the weights with the best validation score, in memory.

    Each of several processes keeps its own, which are the same.

    Args:
        monitor: the score; higher is better.
        former: ``weights.pt`` of a fit that goes on.

    Attributes:
        weights: the best so far; None before the first validation.
        step: when they were.
    """

    def __init__(self, *, monitor: str, former: Path | None = None) -> None:
        self.monitor = monitor
        self.former = former
        self.best = -math.inf
        self.weights: dict[str, Tensor] | None = None
        self.step = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            scores = ", ".join(sorted(name for name in metrics if name.startswith("val/")))
            raise InputError(
                f"select={self.monitor!r} is not a score of this run; scores: {scores}"
            )
        score = float(metrics[self.monitor])
        if math.isnan(score) and math.isfinite(metrics.get("val/elbo", math.nan)):
            raise InputError(
                f"select={self.monitor!r} is nan: the validation trials have nothing that it could "
                "score; choose another, such as 'val/elbo'"
            )
        if score > self.best:
            self.best = score
            self._keep(pl_module, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Without a validation, the last weights are the best that are known."""
        if self.best == -math.inf:
            self._keep(pl_module, trainer.global_step)

    def _keep(self, model: LightningModule, step: int) -> None:
        state = model.state_dict()
        self.weights = {name: value.detach().clone() for name, value in state.items()}
        self.step = step

    @property
    def is_known(self) -> bool:
        """Whether there are best weights, of this fit or of the one that it goes on with."""
        has_former = self.former is not None and self.former.exists()
        return self.weights is not None or has_former

    def restore(self, model: nn.Module) -> None:
        """Give a model the best weights, if there are some.

        Raises:
            InputError: if those of a fit that goes on cannot be read.
        """
        if self.weights is not None:
            model.load_state_dict(self.weights)
        elif self.former is not None and self.former.exists():
            load_weights(self.former, model)

    def state_dict(self) -> dict[str, Any]:
        """Keep the best score in the checkpoint, and when it was."""
        return {"monitor": self.monitor, "best": self.best, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best score up to the checkpoint, if it is one of the same kind."""
        self.step = state_dict.get("step", 0)  # an earlier version did not note it
        if state_dict["monitor"] == self.monitor:
            self.best = state_dict["best"]


class Telling(Callback):
    """Tells the observers what Lightning's trainer does, in the first of several processes.

    Args:
        observers: who hears of it.
        history: the rows so far.
        best: the best weights so far.
        config: the complete config tree of the fit, if it is known.
        loggers: of the fit; None: those of the trainer.
        ends: whether learning ends with this training.
    """

    def __init__(
        self,
        observers: Observer,
        history: History,
        best: KeepBest,
        *,
        config: Mapping[str, Any] | None = None,
        loggers: Sequence[Any] | None = None,
        ends: bool = True,
    ) -> None:
        self.observers = observers
        self.history = history
        self.best = best
        self.config = config
        self.loggers = loggers
        self.ends = ends
        self._weights = best.weights

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell that training begins, or goes on."""
        self._weights = self.best.weights  # of a checkpoint
        if trainer.is_global_zero:
            self.observers.begin(self._stage(trainer, pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of the best weights, if these are."""
        self._tell_best(trainer, pl_module, self.best.best)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell that an epoch has ended."""
        if trainer.is_global_zero:
            self.observers.progress(self._stage(trainer, pl_module, number=1))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the model its best weights, and tell that training has ended."""
        self._tell_best(trainer, pl_module, math.nan)
        self.best.restore(pl_module)
        if trainer.is_global_zero and self.ends:
            self.observers.end(self._stage(trainer, pl_module))

    def _tell_best(self, trainer: Trainer, pl_module: LightningModule, score: float) -> None:
        if self.best.weights is self._weights:
            return
        self._weights = self.best.weights
        if trainer.is_global_zero:
            self.observers.best(self._stage(trainer, pl_module), score)

    def _stage(self, trainer: Trainer, pl_module: LightningModule, *, number: int = 0) -> Stage:
        data = getattr(trainer, "datamodule", None)
        assert isinstance(data, NeuralData)
        assert isinstance(pl_module, Model)
        number += trainer.current_epoch
        rows, step = self.history.rows, trainer.global_step
        loggers = trainer.loggers if self.loggers is None else self.loggers
        return Stage(pl_module, data, rows, number, step, loggers, self.config)


class EarlyStoppingAfterRamps(EarlyStopping):
    """Early stopping that begins to count when every warm-up has ended.

    Args:
        monitor: the score; higher is better.
        patience: validations without improvement.
        ramp_end: step at which the warm-ups have ended.
    """

    def __init__(self, *, monitor: str, patience: int, ramp_end: int) -> None:
        super().__init__(
            monitor,
            patience=patience,
            mode="max",
            check_finite=False,
            check_on_train_epoch_end=False,
        )
        self.ramp_end = ramp_end

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stay stopped when a run is resumed that had stopped here."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count, if the warm-ups have ended."""
        if trainer.global_step >= self.ramp_end:
            super().on_validation_end(trainer, pl_module)
