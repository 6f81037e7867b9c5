"""Learning by gradients: one run of Lightning's Trainer, kept in a run folder."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from pytorch_lightning import Callback, Trainer

from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.files import RunFiles
from seqvae.learning.callbacks import (
    EarlyStoppingAfterRamps,
    History,
    KeepBest,
    SaveLast,
    StopOnNonFinite,
)
from seqvae.learning.progress import Progress
from seqvae.models import LatentVariableModel

DEFAULT_TRAINER = partial(
    Trainer,
    max_epochs=300,
    gradient_clip_val=200.0,
    accelerator="auto",
    logger=False,
    check_val_every_n_epoch=1,
    num_sanity_val_steps=0,
    log_every_n_steps=1,
    enable_model_summary=False,
)


@dataclass(frozen=True)
class GradientLearner:
    """Trains a model with Lightning's Trainer.

    Attributes:
        trainer: factory of the Trainer; takes any of its arguments (devices, precision, logger ...).
        select: the validation score that picks the best weights and ends training: ``val/elbo``
            (beta = 1, no dropout), ``val/speckled_bps`` (held-in entries hidden from the encoder;
            needs ``speckled_fraction`` in the data), or, if you ask for it, ``val/co_bps``.
        patience: validations without improvement, after the warm-ups, before training ends; None
            never ends early.
        figures_every: epochs between drawings of the figures; 0 draws them once, at the end.
        progress: whether a progress bar is shown.
    """

    trainer: Callable[[], Trainer] = DEFAULT_TRAINER
    select: str = "val/elbo"
    patience: int | None = 100
    figures_every: int = 0
    progress: bool = True

    def check(self, data: NeuralData) -> None:
        """Refuse settings that do not fit the data, before anything is written."""
        if not self.select.startswith("val/"):
            raise InputError(
                f"select must be a validation score such as 'val/elbo', got {self.select!r}"
            )
        if self.select.startswith("val/speckled") and data.speckled_fraction == 0:
            raise InputError(
                f"select={self.select!r} needs hidden entries: set data.speckled_fraction, e.g. 0.1"
            )
        if self.select == "val/co_bps" and not data.spec.heldout:
            raise InputError(
                "select='val/co_bps' needs held-out neurons: set data.heldout, e.g. 0.2"
            )
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience must be at least 1 or null, got {self.patience}")

    def learn(
        self,
        model: LatentVariableModel,
        data: NeuralData,
        run: RunFiles,
        *,
        resume: bool = False,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Train ``model``; leaves it with the best weights, and the run folder filled.

        Args:
            model: the model; its ``seed`` governs the noise.
            data: the data; its ``seed`` governs the order of trials and the dropout of entries.
            run: where the files go.
            resume: go on from ``last.ckpt`` if there is one.
            config: the resolved configuration, for loggers.

        Raises:
            InputError: if the checkpoint cannot be read, or training diverges.
        """
        checkpoint = run.last_checkpoint if resume and run.last_checkpoint.exists() else None
        if checkpoint is not None:
            check_checkpoint(checkpoint)
        with quiet(), wandb_offline_without_account(run):
            trainer = self._trainer(model, run)
            if config is not None:
                for logger in trainer.loggers:
                    logger.log_hyperparams(dict(config))
            trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
            finish_wandb(trainer)
        if trainer.interrupted:
            raise KeyboardInterrupt

    def _trainer(self, model: LatentVariableModel, run: RunFiles) -> Trainer:
        """Build the Trainer: the user's settings, then ours, then our callbacks after the user's."""
        given = dict(self.trainer.keywords) if isinstance(self.trainer, partial) else {}
        own = given.get("callbacks") or []
        progress = self.progress and given.get("enable_progress_bar", True)
        callbacks: list[Callback] = [
            *(own if isinstance(own, list) else [own]),
            StopOnNonFinite(run),
            History(run),
            KeepBest(run, monitor=self.select),
            SaveLast(run),
        ]
        if self.patience is not None:
            callbacks.append(
                EarlyStoppingAfterRamps(
                    monitor=self.select, patience=self.patience, ramp_end=model.objective.ramp_end
                )
            )
        if progress:
            callbacks.append(Progress(self.select))
        settings = {"default_root_dir": str(run.folder), **DEFAULT_TRAINER.keywords, **given}
        settings |= {
            "callbacks": callbacks,
            "enable_checkpointing": True,  # SaveLast; Lightning's own is not added beside it
            "enable_progress_bar": progress,
        }
        return Trainer(**settings)


def check_checkpoint(path: os.PathLike[str]) -> None:
    """Refuse a checkpoint that is not whole, or that holds anything but tensors and plain values."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        valid = isinstance(content, dict) and {"state_dict", "optimizer_states"} <= set(content)
    except Exception as error:  # the unpickler raises many kinds for a damaged file
        raise InputError(f"{path} cannot be read: it is truncated or not a checkpoint") from error
    if not valid:
        raise InputError(f"{path} is not a training checkpoint of seqvae")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's advice that does not apply to data held in memory."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def wandb_offline_without_account(run: RunFiles) -> Iterator[None]:
    """Let W&B write to the run folder, and offline where nobody is logged in: it never prompts."""
    settings = {"WANDB_DIR": str(run.folder), "WANDB_SILENT": "true"}
    if not (os.environ.get("WANDB_API_KEY") or has_wandb_login()):
        settings["WANDB_MODE"] = "offline"
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def has_wandb_login() -> bool:
    """Return whether ~/.netrc knows a W&B server."""
    import netrc

    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)


def finish_wandb(trainer: Trainer) -> None:
    """Close the W&B run, so that the next fit in this process starts its own."""
    from pytorch_lightning.loggers import WandbLogger

    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            logger.experiment.finish()
