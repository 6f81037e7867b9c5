"""Alarms: what is told while a training goes on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

from tqdm import tqdm

from seqvae.analysis.diagnosis import (
    Finding,
    FitConfig,
    Settings,
    Spread,
    idle,
    learning_rate,
    passes,
)
from seqvae.analysis.diagnosis.activity import odd_channels
from seqvae.analysis.diagnosis.checkup import null_score
from seqvae.learning.observers.base import Observer, Stage
from seqvae.models import LatentVariableModel

logger = logging.getLogger("seqvae")


def tell(findings: Iterable[Finding | str]) -> None:
    """Log findings, a line each, beside a progress bar."""
    for finding in findings:
        with tqdm.external_write_mode(file=sys.stderr):
            logger.warning("seqvae: %s", finding)


class Alarms(Observer):
    """Tells what goes wrong in training when it is seen, each kind of it once."""

    def __init__(self) -> None:
        self._null: Spread | None = None
        self._names: set[str] = set()

    def begin(self, stage: Stage) -> None:
        """Score the mean rate; with a constant channel nothing compares with it."""
        kind = stage.model.observation.kind
        if (
            isinstance(stage.model, LatentVariableModel)
            and not odd_channels(stage.data, kind).constant
        ):
            self._null = null_score(stage.model, stage.data)

    def progress(self, stage: Stage) -> None:
        """Look at the history, which has the row of this epoch."""
        if self._null is None or not isinstance(stage.model, LatentVariableModel):
            return
        objective = stage.model.objective
        settings = Settings(
            by_gradient=True,
            ramp_ends=objective.ramp_ends,
            beta=objective.beta,
            num_trials=len(stage.data.trials("train")),
        )
        first, second = passes(stage.rows)
        rows = second or first
        findings = [*learning_rate(rows, self._null, settings), *idle(rows, settings)]
        findings = [finding for finding in findings if finding.name not in self._names]
        self._names |= {finding.name for finding in findings}
        config = FitConfig(stage.config or {}, stage.data.spec, trust=True)
        tell(finding.fitting(config) for finding in findings)
