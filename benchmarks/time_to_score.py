"""Seconds of training until the held-out neurons of the validation trials are predicted well."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from worker import Turns

from seqvae import fit
from seqvae.config import read_arguments
from seqvae.console.flags import read_config

CONFIG = Path(__file__).parent.parent / "configs" / "maze_svae.yaml"


class Fit(NamedTuple):
    """A fit up to the score: all its seconds, those without validations, its epochs."""

    seconds: float
    training_seconds: float
    epochs: int


class UntilScore(Callback):
    """Ends a fit when ``val/co_bps`` passes a score; ``result`` is None until then."""

    def __init__(self, score: float) -> None:
        self.score = score
        self.result: Fit | None = None
        self._validating = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the watch."""
        self._start = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the watch of the validation."""
        self._validation = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the score."""
        now = time.perf_counter()
        self._validating += now - self._validation
        if float(trainer.callback_metrics["val/co_bps"]) > self.score:
            seconds = now - self._start
            self.result = Fit(seconds, seconds - self._validating, trainer.current_epoch + 1)
            trainer.should_stop = True


def measure(turns: Turns, path: str, recursion: str, *, score: float) -> None:
    """Hand over a fit after the other, seed 0, 1, ...; None where it ends below the score."""
    torch.set_num_threads(1)
    tree = read_config(str(CONFIG))
    tree["data"]["source"]["init_args"]["path"] = path
    tree["model"]["init_args"]["recursion"] = recursion
    tree["learner"] = {"class_path": "seqvae.GradientLearner", "init_args": tree["learner"]}
    result, seed = None, 0
    while True:
        turns.wait(result)
        arguments = read_arguments(fit, tree)
        until = UntilScore(score)
        learner = arguments["learner"]
        trainer = partial(learner.trainer, callbacks=[until])
        with TemporaryDirectory() as folder:
            fit(
                arguments["data"],
                arguments["model"],
                replace(learner, trainer=trainer, progress=False),
                seed=seed,
                run_dir=folder,
            )
        result, seed = until.result, seed + 1
