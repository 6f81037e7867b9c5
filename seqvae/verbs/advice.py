"""What is wrong with a run, and the setting to change."""

from __future__ import annotations

from typing import Any

from seqvae.analysis.diagnosis import Finding, FitConfig
from seqvae.analysis.diagnosis.checkup import findings
from seqvae.config.reading import open_parameters
from seqvae.data import NeuralData
from seqvae.learning import Learner
from seqvae.models import Model
from seqvae.runs import ModelFactory, Run

MASKS = frozenset(("coordinated_dropout", "speckled_fraction"))


def sections(data: NeuralData, model: ModelFactory, learner: Learner) -> None:
    """Do nothing: the arguments are the sections of a config of ``fit``."""


def advice(
    run: Run,
    model: Model,
    data: NeuralData,
    scores: dict[str, Any] | None = None,
    *,
    trust: bool = False,
) -> list[Finding]:
    """Return what is wrong with a run, told by the data that it was fitted to.

    Args:
        run: the run.
        model: its model.
        data: the data that it was fitted to.
        scores: what ``evaluate`` answers, if known.
        trust: whether the config may import classes from anywhere, to learn of their settings.
    """
    opened = open_parameters(run.config["learner"], Learner, key="learner", trust=trust)
    reads = opened.cls.reads if opened is not None and issubclass(opened.cls, Learner) else MASKS
    unread = frozenset(f"data.{name}" for name in MASKS - reads)
    config = FitConfig(run.config, data.spec, sections, unread, trust)
    learned = data.merged() if model.refitted else data
    return findings(model, learned, run.history, config=config, scores=scores)
