"""Learning without iterations: factor analysis and PCA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seqvae.compute.threads import one_thread
from seqvae.data import NeuralData
from seqvae.data.coverage import require_every_neuron
from seqvae.errors import InputError
from seqvae.learning.learner import Learner
from seqvae.learning.observers import MetricsRow, Observer, Observers, Stage
from seqvae.learning.validation import validation_scores
from seqvae.models import LinearFactors


@dataclass(frozen=True)
class ClosedForm(Learner):
    """Learns ``FactorAnalysis`` and ``PCA`` from the training trials, in one step.

    Validation trials are scored, and choose nothing. A resumed run begins anew.

    Attributes:
        ridge: penalty of the readout's loadings, ridge |c|^2 / 2, in nats; latents have unit
            variance, so 1 is a standard normal prior.
    """

    learns: ClassVar[type] = LinearFactors

    ridge: float = 1.0

    def check(
        self, model: LinearFactors, data: NeuralData, *, checkpoint: Path | None = None
    ) -> None:
        """Refuse settings that do not fit model and data, before anything is written.

        Args:
            model: the model to learn.
            data: the data to learn from.
            checkpoint: no file of this learner.

        Raises:
            InputError: naming the setting and what it needs.
        """
        if not (self.ridge >= 0 and math.isfinite(self.ridge)):
            raise InputError(f"ridge must be zero or positive, got {self.ridge}")
        require_every_neuron(data)

    def learn(
        self,
        model: LinearFactors,
        data: NeuralData,
        *,
        observers: Sequence[Observer] = (),
        checkpoint: Path | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Learn ``model``.

        Args:
            model: the model.
            data: the data; its training trials are held in memory in double precision.
            observers: who hears of it, such as a run folder.
            checkpoint: not needed.
            config: not needed.
        """
        with one_thread():
            model.learn(model.scored(data.batch(data.at_once("train"))), ridge=self.ridge)
        row: MetricsRow = {
            "step": 1,
            "smoothing_bins": float(model.width),
            **validation_scores(model, data),
        }
        audience, stage = Observers(observers), Stage(model, data, [row], number=1, step=1)
        audience.begin(Stage(model, data))
        audience.best(stage, float(row.get("val/heldin_elbo", math.nan)), is_final=True)
        audience.progress(stage)
        audience.end(stage)
