"""What is wrong with a run, and the setting to change."""

from __future__ import annotations

from typing import Any

from seqvae.analysis.diagnosis import Finding
from seqvae.analysis.diagnosis.checkup import findings
from seqvae.data import NeuralData
from seqvae.models import Model
from seqvae.runs import Run


def advice(
    run: Run, model: Model, data: NeuralData, scores: dict[str, Any] | None = None
) -> list[Finding]:
    """Return what is wrong with a run, told by the data that it was fitted to."""
    tree = run.config["learner"]
    arguments = tree.get("init_args") if isinstance(tree, dict) else None
    arguments = arguments if isinstance(arguments, dict) else {}
    learner = {name: value for name, value in arguments.items() if isinstance(value, int)}
    return findings(model, data, run.history, learner=learner, scores=scores)
