"""What a fit hands to Weights & Biases at its end, if asked: its posterior, its model, a page."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from seqvae.analysis.conversions import to_table
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.learning import Learner
from seqvae.learning.observers import Observer, Stage
from seqvae.learning.weights_and_biases import wandb_loggers_of, wandb_runs
from seqvae.runs import Run
from seqvae.storage.files import RunFiles

if TYPE_CHECKING:
    import pandas as pd

WandbResult = Literal["posterior", "model", "report"]
MOST_ROWS = 10_000  # of a table that W&B shows


def check_wandb_results(asked: Sequence[str], learner: Learner, *, in_memory: bool) -> None:
    """Refuse what nobody can hand over.

    Raises:
        InputError: for an unknown name, a fit that leaves no folder, a learner without a W&B
            logger, or a page without the libraries that make it.
    """
    valid = get_args(WandbResult)
    for name in asked:
        if name not in valid:
            raise InputError(f"wandb_results: {name!r} is none of {', '.join(valid)}")
    if asked and in_memory:
        raise InputError("wandb_results needs a run folder, which in_memory does not leave")
    if asked and not wandb_loggers_of(learner):
        raise InputError(
            "wandb_results needs a W&B logger: give --learner.trainer.logger "
            "pytorch_lightning.loggers.WandbLogger, of a model that is learned by gradients"
        )
    if "report" in asked:
        from seqvae.pages.page import check_libraries

        check_libraries()


class WandbResults(Observer):
    """Hands over what a run folder holds once learning has ended, before the W&B run is closed.

    Nothing of it changes the fit, and what fails costs a warning only.

    Args:
        run: the run folder, whose files are written.
        data: of the fit.
        asked: ``posterior`` logs ``posterior.nc`` as an artifact, and its factors as a table with a
            row for each trial and bin; ``model`` the files that make a run, as an artifact;
            ``report`` the page of ``seqvae report``.
    """

    def __init__(self, run: RunFiles, data: NeuralData, asked: Sequence[WandbResult]) -> None:
        self.run = run
        self.data = data
        self.asked = tuple(asked)

    def end(self, stage: Stage) -> None:
        """Hand over to every W&B run."""
        for wandb_run in wandb_runs(stage.loggers):
            for name in self.asked:
                try:
                    getattr(self, f"_{name}")(wandb_run)
                except Exception as error:  # what took hours is not lost for a picture of it
                    warnings.warn(f"W&B did not get the {name}: {error!r}", stacklevel=2)

    def _posterior(self, wandb_run: Any) -> None:
        import wandb

        path = self.run.folder / "posterior.nc"
        from seqvae.verbs.infer import infer  # and with it xarray, which a refused fit needs not

        posterior = infer(self._fitted(), out=str(path))
        wandb_run.log(
            {"posterior": wandb.Table(dataframe=shown_rows(to_table(posterior, "factors")))}
        )
        self._log_files(wandb_run, "posterior", [path])

    def _model(self, wandb_run: Any) -> None:
        files = [self.run.config, self.run.weights, self.run.provenance, self.run.history]
        self._log_files(wandb_run, "model", [path for path in files if path.exists()])

    def _report(self, wandb_run: Any) -> None:
        import wandb

        from seqvae.verbs.report import report  # and with it xarray, which a refused fit needs not

        path = self.run.folder / "report.html"
        report(self._fitted(), out=str(path))
        wandb_run.log({"report": wandb.Html(str(path), inject=False)})

    def _fitted(self) -> Run:
        """Return the run as its folder holds it, with the data of the fit."""
        run = Run(self.run.folder)
        return run.remember(run.model(trust=True), self.data)

    def _log_files(self, wandb_run: Any, kind: str, paths: Sequence[Path]) -> None:
        import wandb

        artifact = wandb.Artifact(f"{kind}-{wandb_run.id}", type=kind)
        for path in paths:
            artifact.add_file(str(path))
        wandb_run.log_artifact(artifact)


def shown_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return as many first trials as W&B shows, or the beginning of one; words as text."""
    if len(table) > MOST_ROWS:
        next_trial = table["trial"].iloc[MOST_ROWS]
        whole = table[:MOST_ROWS][table["trial"][:MOST_ROWS] != next_trial]
        table = whole if len(whole) else table[:MOST_ROWS]
    return table.astype({name: "string" for name in ("split", "condition") if name in table})
