"""What is told while a training goes on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable

from pytorch_lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from seqvae.analysis.diagnosis import Finding, Settings, Spread, idle, learning_rate
from seqvae.analysis.diagnosis.checkup import null_score
from seqvae.data import NeuralData
from seqvae.models import LatentVariableModel

logger = logging.getLogger("seqvae")


def tell(findings: Iterable[Finding]) -> None:
    """Log findings, a line each, beside a progress bar."""
    for finding in findings:
        with tqdm.external_write_mode(file=sys.stderr):
            logger.warning("seqvae: %s", finding)


class Warnings(Callback):
    """Tells what goes wrong in training when it is seen, each kind of it once.

    Args:
        history: the rows of metrics so far.
    """

    def __init__(self, history: Callable[[], list[dict[str, float | int]]]) -> None:
        self.history = history
        self._null: Spread | None = None
        self._told: set[str] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the mean rate."""
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, NeuralData) and isinstance(pl_module, LatentVariableModel):
            self._null = null_score(pl_module, data)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the history, which has the row of this epoch."""
        if self._null is None or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, LatentVariableModel)
        objective = pl_module.objective
        settings = Settings(True, ramp_end=objective.ramp_end, beta=objective.beta)
        rows = self.history()
        found = [*learning_rate(rows, self._null, settings), *idle(rows, settings)]
        tell(finding for finding in found if finding.name not in self._told)
        self._told |= {finding.name for finding in found}
