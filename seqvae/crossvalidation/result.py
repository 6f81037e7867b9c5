"""What a cross-validation answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqvae.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What a cross-validation found.

    Attributes:
        folder: where it lies: ``scores.csv``, ``summary.json``, ``curve.png``, ``cells/``.
        scores: one row for each scored cell.
        summary: chosen dimension and scores of each model, the best model, and by how much; None
            while cells of other shards are missing.
        num_missing: cells that are still to be done, by other shards.
    """

    folder: Path
    scores: pd.DataFrame
    summary: dict[str, Any] | None
    num_missing: int = 0

    def chosen_dim(self, model: str) -> int:
        """Return the dimension chosen for a model.

        Raises:
            InputError: if it has none.
        """
        models = self.summary["models"] if self.summary else {}
        if model not in models:
            raise InputError(f"model {model!r} has no chosen dimension{nearest(model, models)}")
        dim: int = models[model]["chosen_dim"]
        return dim
