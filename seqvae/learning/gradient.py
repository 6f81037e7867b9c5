"""Learning by gradients: one run of Lightning's Trainer."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from seqvae.analysis.posterior import deterministic
from seqvae.compute.ranks import Place
from seqvae.compute.termination import patient
from seqvae.config.arguments import InConfig
from seqvae.data import NeuralData
from seqvae.errors import InputError, Terminated, nearest
from seqvae.learning.callbacks import (
    EarlyStoppingAfterRamps,
    History,
    KeepBest,
    StopOnNonFinite,
    Telling,
)
from seqvae.learning.checkpoints import (
    SaveLast,
    WholeFiles,
    best_weights_beside,
    check_checkpoint,
)
from seqvae.learning.devices.results import learn_in_processes
from seqvae.learning.devices.strategy import (
    DevicePlan,
    check_strategy,
    plan_devices,
    quiet,
    strategy_for,
)
from seqvae.learning.freezing import check_freeze, frozen
from seqvae.learning.gradient_norms import GradientNorms
from seqvae.learning.learner import Learner
from seqvae.learning.observers import Observer, Observers, run_observers
from seqvae.learning.progress import Progress
from seqvae.learning.renewal import Renewal
from seqvae.learning.weights_and_biases import wandb_run
from seqvae.models import LatentVariableModel
from seqvae.objectives import has_elbo
from seqvae.storage.files import RunFiles

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
        freeze: parts whose parameters are not trained, by their names in the model, such as
            ``encoder``.
        figures_every: epochs between drawings of the figures; 0 draws them once, at the end.
        save_seconds: least time between two writings of ``last.ckpt``, at ends of epochs; a fit
            that is terminated waits no longer than this for the end of the epoch.
        progress: whether a progress bar is shown.
    """

    learns: ClassVar[type] = LatentVariableModel
    begins_from_model: ClassVar[bool] = True
    selects: ClassVar[bool] = True
    resumes: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset(
        ("batch_size", "eval_batch_size", "coordinated_dropout", "speckled_fraction")
    )

    trainer: Callable[[], Trainer] = DEFAULT_TRAINER
    select: str = "val/heldin_elbo"
    patience: int | None = 100
    freeze: Annotated[tuple[str, ...], InConfig(tells_default=False)] = ()
    figures_every: int = 0
    save_seconds: float = 20.0
    progress: bool = True

    def __post_init__(self) -> None:
        """Write our defaults into the factory, so that a saved configuration tells them."""
        factory = self.trainer if isinstance(self.trainer, partial) else partial(self.trainer)
        if not isinstance(factory.func, type):
            raise InputError(
                f"trainer must be a Trainer class or functools.partial of one, got {factory.func!r}"
            )
        if isinstance(self.freeze, str) or not all(isinstance(one, str) for one in self.freeze):
            raise InputError(f"freeze must be a list of names of parts, not {self.freeze!r}")
        object.__setattr__(self, "freeze", tuple(self.freeze))
        complete = partial(factory.func, **{**DEFAULT_TRAINER.keywords, **factory.keywords})
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
            ("save_seconds", self.save_seconds, 0),
            ("validation_samples", model.validation_samples, 1),
        ):
            if number < least:
                raise InputError(f"{name} must be at least {least}, got {number}")
        check_freeze(model, self.freeze)
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
                f"select={self.select!r}: an encoder that keeps a posterior for each trial knows "
                "nothing of validation trials, so they can select nothing; set "
                "trainer.limit_val_batches to 0"
            )
        if checkpoint is not None:
            check_checkpoint(checkpoint, model)
        scores = ["heldin_elbo", "elbo", "iwae", "log_likelihood", "speckled_log_likelihood"]
        scores += ["heldout_log_likelihood"] if data.spec.heldout else []
        if model.observation.kind.counts_events:
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
        settings = self.trainer.keywords
        for name in _ABOVE_ZERO:
            if settings.get(name) == 0:
                raise InputError(f"trainer.{name} must be above 0, got {settings[name]}")
        check_strategy(plan_devices(self.trainer), settings.get("strategy", "auto"), model, data)
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
        *,
        observers: Sequence[Observer] = (),
        checkpoint: Path | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Train ``model``; leaves it with the best weights.

        Args:
            model: the model; its ``seed`` governs the noise.
            data: the data; its ``seed`` governs the order of trials and the dropout of entries.
            observers: who hears of it, such as a run folder.
            checkpoint: the ``last.ckpt`` of a run folder to go on from, which must pass ``check``.
            config: the resolved configuration, for loggers.

        Raises:
            InputError: if training diverges.
            KeyboardInterrupt: if interrupted; what was saved so far can be resumed.
            Terminated: if terminated, at the end of the epoch if that comes soon.
        """
        assert isinstance(self.trainer, partial)  # see __post_init__
        audience, devices = Observers(observers), plan_devices(self.trainer)
        patience = self.save_seconds if audience.checkpoint is not None else 0.0
        if devices.warning is not None:
            warnings.warn(devices.warning, stacklevel=2)
        with quiet(), interruptible(), patient(patience), frozen(model, self.freeze):
            if devices.to_start:  # there the plan is to train
                learn_in_processes(
                    partial(self.learn, model, data, checkpoint=checkpoint, config=config),
                    model,
                    observers,
                    count=devices.to_start,
                    former=best_weights_beside(checkpoint),
                )
            else:
                self._train(model, data, audience, devices, checkpoint=checkpoint, config=config)

    def place(self) -> Place:
        """Return which of the processes that ``srun`` or ``torchrun`` has started this one is."""
        assert isinstance(self.trainer, partial)  # see __post_init__
        return plan_devices(self.trainer).place

    def observers_of(self, run: RunFiles) -> tuple[Observer, ...]:
        """Return those who make a run folder of what is learned."""
        return run_observers(run, figures_every=self.figures_every)

    def _train(
        self,
        model: LatentVariableModel,
        data: NeuralData,
        observers: Observers,
        devices: DevicePlan,
        *,
        checkpoint: Path | None,
        config: Mapping[str, object] | None,
    ) -> None:
        """Train in this process, with the others that there are."""
        best = KeepBest(monitor=self.select, former=best_weights_beside(checkpoint))
        strategy = strategy_for(devices, model, data)
        trainer = self._trainer(model, data, observers, best, strategy, config)
        # else a checkpoint is read into single precision first
        trainer.strategy.precision_plugin.convert_module(model)
        if config is not None:
            trainer.callbacks.append(Renewal(config))  # type: ignore[attr-defined]
        with wandb_run(trainer, observers.folder):
            if config is not None:
                for logger in trainer.loggers:
                    logger.log_hyperparams(dict(config))
            trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
        trainer.strategy.barrier()  # the weights are written
        best.restore(model)

    def _trainer(
        self,
        model: LatentVariableModel,
        data: NeuralData,
        observers: Observers,
        best: KeepBest,
        strategy: Mapping[str, Any],
        config: Mapping[str, object] | None,
    ) -> Trainer:
        """Build the Trainer from the user's settings and ours, our callbacks after the user's."""
        assert isinstance(self.trainer, partial)  # see __post_init__
        user_settings: dict[str, Any] = self.trainer.keywords
        user_callbacks = user_settings.get("callbacks") or []
        user_callbacks = user_callbacks if isinstance(user_callbacks, list) else [user_callbacks]
        progress = self.progress and user_settings.get("enable_progress_bar", True)
        has_own_bar = any(isinstance(callback, ProgressBar) for callback in user_callbacks)
        history, last = History(), observers.checkpoint
        callbacks: list[Callback] = [
            *user_callbacks,
            StopOnNonFinite(best, observers.folder),
            GradientNorms(),
            history,
            best,
            Telling(observers, history, best, config=config),
        ]
        if last is not None:
            callbacks.append(SaveLast(last, every_seconds=self.save_seconds))
        if self.patience is not None:
            callbacks.append(
                EarlyStoppingAfterRamps(
                    monitor=self.select, patience=self.patience, ramp_end=model.objective.ramp_end
                )
            )
        if progress and not has_own_bar:
            callbacks.append(Progress(self.select))
        settings = {
            "default_root_dir": None if observers.folder is None else str(observers.folder),
            **user_settings,
            **strategy,
            "callbacks": callbacks,
            # SaveLast; Lightning's own is not added beside it
            "enable_checkpointing": last is not None
            or user_settings.get("enable_checkpointing", False),
            "enable_progress_bar": progress,
        }
        if "val" not in data.split:
            settings["limit_val_batches"] = 0
        if settings["accelerator"] == "auto" and torch.backends.mps.is_available():
            settings["accelerator"] = "cpu"  # scores are summed in float64, which MPS lacks
        trainer: Trainer = self.trainer.func(**settings)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()
        return trainer


@contextmanager
def interruptible() -> Iterator[None]:
    """Let an interrupt or a termination surface as what it is; Lightning leaves SIGINT ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException as exit_:
        raise Terminated from exit_
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt) and not isinstance(exit_, Terminated):
            raise KeyboardInterrupt from exit_
        raise
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
