"""Learning by gradients: one run of Lightning's Trainer, kept in a run folder."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from seqvae.data import NeuralData
from seqvae.errors import InputError, nearest
from seqvae.files import RunFiles
from seqvae.inference import deterministic
from seqvae.learning.callbacks import (
    EarlyStoppingAfterRamps,
    History,
    KeepBest,
    SaveLast,
    StopOnNonFinite,
)
from seqvae.learning.figures import Figures
from seqvae.learning.learner import Learner
from seqvae.learning.progress import Progress
from seqvae.learning.weights_and_biases import wandb_run
from seqvae.models import LatentVariableModel
from seqvae.objectives import has_elbo
from seqvae.weights import check_weights, load_plain, load_weights

DEFAULT_TRAINER = partial(
    Trainer,
    max_epochs=300,
    gradient_clip_val=200.0,
    accelerator="auto",
    devices=1,
    logger=False,
    check_val_every_n_epoch=1,
    num_sanity_val_steps=0,
    log_every_n_steps=1,
    enable_model_summary=False,
)

_ABOVE_ZERO = (
    "max_epochs",
    "check_val_every_n_epoch",
    "val_check_interval",
    "accumulate_grad_batches",
    "limit_train_batches",
)

# What a checkpoint of Lightning must hold for training to go on from it.
_CHECKPOINT = {
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


@dataclass(frozen=True)
class GradientLearner(Learner):
    """Trains a model with Lightning's Trainer.

    Attributes:
        trainer: factory of the Trainer; takes any of its arguments (devices, precision, logger).
        select: the validation score that picks the best weights and ends training, at beta = 1
            without dropout: ``val/heldin_elbo`` (the bound of what inference sees),
            ``val/speckled_bps`` (held-in entries hidden from the encoder; needs
            ``speckled_fraction`` in the data), or, if you ask for it, scores of what is held out
            as well: ``val/elbo``, ``val/co_bps``.
        patience: validations without improvement, after the warm-ups, before training ends; None
            never ends early.
        figures_every: epochs between drawings of the figures; 0 draws them once, at the end.
        progress: whether a progress bar is shown.
    """

    learns: ClassVar[type] = LatentVariableModel
    begins_from_model: ClassVar[bool] = True
    selects: ClassVar[bool] = True

    trainer: Callable[[], Trainer] = DEFAULT_TRAINER
    select: str = "val/heldin_elbo"
    patience: int | None = 100
    figures_every: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        """Write our defaults into the factory, so that a saved configuration tells them."""
        given = self.trainer if isinstance(self.trainer, partial) else partial(self.trainer)
        if not isinstance(given.func, type):
            raise InputError(
                f"trainer must be a Trainer class or functools.partial of one, got {given.func!r}"
            )
        complete = partial(given.func, **{**DEFAULT_TRAINER.keywords, **given.keywords})
        object.__setattr__(self, "trainer", complete)

    def check(
        self, model: LatentVariableModel, data: NeuralData, *, checkpoint: Path | None = None
    ) -> None:
        """Refuse settings that do not fit model and data, before anything is written.

        Args:
            model: the model to train.
            data: the data to train it on.
            checkpoint: file that training will go on from.

        Raises:
            InputError: naming the setting and what it needs.
        """
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience must be at least 1 or null, got {self.patience}")
        for name, number, least in (
            ("figures_every", self.figures_every, 0),
            ("validation_samples", model.validation_samples, 1),
        ):
            if number < least:
                raise InputError(f"{name} must be at least {least}, got {number}")
        if self.select.startswith("val/speckled") and data.speckled_fraction == 0:
            raise InputError(
                f"select={self.select!r} needs hidden entries: set data.speckled_fraction, e.g. 0.1"
            )
        if self.select == "val/co_bps" and not data.spec.heldout:
            raise InputError(
                "select='val/co_bps' needs held-out neurons: set data.heldout, e.g. 0.2"
            )
        assert isinstance(self.trainer, partial)  # see __post_init__
        validates = "val" in data.split and self.trainer.keywords.get("limit_val_batches") != 0
        if model.keeps_trials and validates:
            raise InputError(
                f"select={self.select!r}: encoder FreeGaussian knows nothing of validation trials, "
                "so they can select nothing; set trainer.limit_val_batches to 0"
            )
        if checkpoint is not None:
            check_checkpoint(checkpoint, model)
        scores = ["heldin_elbo", "elbo", "iwae", "log_likelihood", "speckled_log_likelihood"]
        scores += ["heldout_log_likelihood"] if data.spec.heldout else []
        if model.observation.data_kind == "counts":
            scores += ["bits_per_spike", "co_bps", "speckled_bps"]
            scores += ["fp_bps"] if data.spec.num_forecast_bins else []
        if self.select not in (names := [f"val/{score}" for score in scores]):
            raise InputError(
                f"select={self.select!r} is no validation score{nearest(self.select, names)}"
            )
        self._rehearse(model, data)

    def _rehearse(self, model: LatentVariableModel, data: NeuralData) -> None:
        """Make what training needs, and show the model two trials, for what they may refuse."""
        assert isinstance(self.trainer, partial)  # see __post_init__
        given = self.trainer.keywords
        for name in _ABOVE_ZERO:
            if given.get(name) == 0:
                raise InputError(f"trainer.{name} must be above 0, got {given[name]}")
        bare = {"logger": False, "callbacks": None, "enable_checkpointing": False}
        num_processes = 1
        try:
            if isinstance(given.get("strategy", ""), str):  # an instance serves one Trainer only
                with quiet():
                    warnings.simplefilter("ignore")  # told when the real one is made
                    num_processes = self.trainer.func(**{**given, **bare}).world_size
        except (ValueError, MisconfigurationException) as error:
            raise InputError(f"trainer: {error}") from error
        if num_processes > 1:
            raise InputError(f"trainer.devices must be one device, got {num_processes}")
        try:
            optimizer = model.make_optimizer(model.parameter_groups())
            if model.make_schedule is not None:
                model.make_schedule(optimizer)
        except ValueError as error:
            raise InputError(f"optimizer or schedule: {error}") from error
        with deterministic(model, seed=0):
            output = model(data.batch(data.trials("train")[:2]))
        if self.select in ("val/heldin_elbo", "val/elbo", "val/iwae") and not has_elbo(output):
            raise InputError(
                f"select={self.select!r} needs a posterior with a density, which a point has not; "
                "select 'val/log_likelihood' or a speckled score"
            )

    def learn(
        self,
        model: LatentVariableModel,
        data: NeuralData,
        run: RunFiles,
        *,
        checkpoint: Path | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Train ``model``; leaves it with the best weights, and the run folder filled.

        Args:
            model: the model; its ``seed`` governs the noise.
            data: the data; its ``seed`` governs the order of trials and the dropout of entries.
            run: where the files go.
            checkpoint: the ``last.ckpt`` to go on from, which must pass ``check``.
            config: the resolved configuration, for loggers.

        Raises:
            InputError: if training diverges.
            KeyboardInterrupt: if interrupted; what was saved so far can be resumed.
        """
        with quiet(), interruptible():
            trainer = self._trainer(model, data, run)
            with wandb_run(trainer, run):
                if config is not None:
                    for logger in trainer.loggers:
                        logger.log_hyperparams(dict(config))
                trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
        if run.weights.exists():
            load_weights(run.weights, model)

    def _trainer(self, model: LatentVariableModel, data: NeuralData, run: RunFiles) -> Trainer:
        """Build the Trainer from the user's settings and ours, our callbacks after the user's."""
        assert isinstance(self.trainer, partial)  # see __post_init__
        given: dict[str, Any] = self.trainer.keywords
        own = given.get("callbacks") or []
        own = own if isinstance(own, list) else [own]
        progress = self.progress and given.get("enable_progress_bar", True)
        has_own_bar = any(isinstance(callback, ProgressBar) for callback in own)
        history = History(run)
        callbacks: list[Callback] = [
            *own,
            StopOnNonFinite(run),
            history,
            KeepBest(run, monitor=self.select),
            SaveLast(run),
        ]
        if run.with_figures:
            every = self.figures_every
            callbacks.append(Figures(run, every=every, history=lambda: history.rows))
        if self.patience is not None:
            callbacks.append(
                EarlyStoppingAfterRamps(
                    monitor=self.select, patience=self.patience, ramp_end=model.objective.ramp_end
                )
            )
        if progress and not has_own_bar:
            callbacks.append(Progress(self.select))
        settings = {
            "default_root_dir": str(run.folder),
            **given,
            "callbacks": callbacks,
            "enable_checkpointing": True,  # SaveLast; Lightning's own is not added beside it
            "enable_progress_bar": progress,
        }
        if "val" not in data.split:
            settings["limit_val_batches"] = 0
        if settings["accelerator"] == "auto" and torch.backends.mps.is_available():
            settings["accelerator"] = "cpu"  # scores are summed in float64, which MPS lacks
        return self.trainer.func(**settings)


def check_checkpoint(path: Path, model: LatentVariableModel) -> None:
    """Refuse a checkpoint that is not whole, not of this model, or not tensors and plain values.

    Raises:
        InputError: naming the file.
    """
    content = load_plain(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), kind) for name, kind in _CHECKPOINT.items()
    ):
        raise InputError(f"{path} is not a training checkpoint of seqvae")
    check_weights(path, content["state_dict"], model)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let an interrupt surface as what it is: Lightning exits, and leaves SIGINT ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from exit_
        raise
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's advice that does not apply here."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        # a resumed run may have another learner
        warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
        try:
            yield
        finally:
            logger.setLevel(level)
