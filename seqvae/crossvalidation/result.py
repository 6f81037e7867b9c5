"""What a cross-validation answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqvae.errors import InputError, nearest
from seqvae.storage.html import facts_html, rows_html

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What a cross-validation found.

    Attributes:
        folder: where it lies: ``scores.csv``, ``summary.json``, ``curve.png``, ``cells/``, and
            ``panel.png`` where there is a panel.
        scores: one row for each scored cell.
        summary: chosen dimension and scores of each model, the best model, and by how much; None
            while cells of other shards are missing.
        num_missing: cells that are still to be done, by other shards.
        tuned: where settings were searched, one row for each cell: those that were best
            (``tuned.csv``).
    """

    folder: Path
    scores: pd.DataFrame
    summary: dict[str, Any] | None
    num_missing: int = 0
    tuned: pd.DataFrame | None = None

    def _repr_html_(self) -> str:
        """Tell in a notebook the size that was chosen of each model, and its score."""
        title = f"CrossValidation {self.folder}"
        if self.summary is None:
            return facts_html(title, {"cells still to be done": self.num_missing})
        models, best = self.summary["models"], self.summary["best_model"]
        rows = []
        for name, told in models.items():
            scores = dict(zip(told["dims"], told["mean"], strict=True))
            score = scores.get(told["chosen_dim"], float("nan"))
            mark = "best" if name == best else ""
            rows.append((name, told["chosen_dim"], f"{score:.4f}", mark))
        unit = str(self.summary["unit"]).replace("_", " ")
        swept = self.summary.get("swept", "dimension")
        return rows_html(title, ("model", swept, f"held-out score, {unit}", ""), rows)

    @property
    def panel(self) -> pd.DataFrame | None:
        """What each estimator of a panel says: ``dimension`` and what it ``assumes``, by its name.

        None where no panel was asked for, or cells of other shards are missing.
        """
        import pandas as pd

        if self.summary is None or "panel" not in self.summary:
            return None
        columns = ["estimator", "dimension", "assumes"]
        return pd.DataFrame(self.summary["panel"], columns=columns).set_index("estimator")

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
