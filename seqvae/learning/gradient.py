"""Learning by gradients: one run of Lightning's Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pytorch_lightning import Callback, Trainer

from seqvae.compute.memory import keep_freed_memory
from seqvae.compute.ranks import Place
from seqvae.compute.termination import patient
from seqvae.config.arguments import InConfig
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.learning.averaging import WeightAverage
from seqvae.learning.callbacks import (
    EarlyStoppingAfterRamps,
    History,
    KeepBest,
    StopOnNonFinite,
    Telling,
)
from seqvae.learning.checkpoints import SaveLast, best_weights_beside, check_checkpoint
from seqvae.learning.devices.results import learn_in_processes
from seqvae.learning.devices.strategy import DevicePlan, plan_devices, quiet, strategy_for
from seqvae.learning.freezing import check_freeze, frozen
from seqvae.learning.gradient_norms import GradientNorms
from seqvae.learning.learner import Learner
from seqvae.learning.observers import Observer, Observers, run_observers
from seqvae.learning.progress import Progress
from seqvae.learning.refit import (
    FirstPass,
    SecondPass,
    beginning,
    check_going_on,
    check_refit,
    second_factory,
    second_pass,
)
from seqvae.learning.rehearsal import check_select, rehearse
from seqvae.learning.renewal import Renewal
from seqvae.learning.trainers import DEFAULT_TRAINER, build_trainer, interruptible
from seqvae.learning.weights_and_biases import wandb_run
from seqvae.models import LatentVariableModel
from seqvae.storage.files import RunFiles


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
        refit: whether validation trials, once they have chosen the step of the best weights, are
            learned from as well: the model is made anew and goes as often through training and
            validation trials, with the same learning rates and warm-ups, and the last weights are
            kept. Only test trials are unseen then. See ``seqvae.learning.refit``.
        average_weights: decay from step to step of an exponential moving average of the weights,
            over about 1 / (1 - decay) steps, such as 0.99, which is what is scored, selected and
            kept; 0: the weights themselves.
        figures_every: epochs between drawings of the figures; 0 draws them once, at the end.
        save_seconds: least time between two writings of ``last.ckpt``, at ends of epochs; a fit
            that is terminated waits no longer than this for the end of the epoch.
        progress: whether a progress bar is shown.
    """

    learns: ClassVar[type] = LatentVariableModel
    begins_from_model: ClassVar[bool] = True
    resumes: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset(
        ("batch_size", "eval_batch_size", "coordinated_dropout", "speckled_fraction")
    )

    trainer: Callable[[], Trainer] = DEFAULT_TRAINER
    select: str = "val/heldin_elbo"
    patience: int | None = 100
    freeze: Annotated[tuple[str, ...], InConfig(tells_default=False)] = ()
    refit: Annotated[bool, InConfig(tells_default=False)] = False
    average_weights: Annotated[float, InConfig(tells_default=False)] = 0.0
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

    @property
    def selects(self) -> bool:
        """Whether validation trials choose what is kept, as they do here."""
        return True

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
        if not 0 <= self.average_weights < 1:
            raise InputError(
                f"average_weights must be at least 0 and below 1, such as 0.99, got "
                f"{self.average_weights}"
            )
        check_freeze(model, self.freeze)
        assert isinstance(self.trainer, partial)  # see __post_init__
        check_select(self.select, self.trainer, model, data)
        if self.refit:
            check_refit(self.trainer, data, self.select)
        if checkpoint is not None:
            content = check_checkpoint(checkpoint, model)
            epochs = self.trainer.keywords["max_epochs"]
            check_going_on(self.refit, checkpoint, content, max_epochs=epochs)
        rehearse(self.select, self.trainer, model, data)

    def learn(
        self,
        model: LatentVariableModel,
        data: NeuralData,
        *,
        observers: Sequence[Observer] = (),
        checkpoint: Path | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Train ``model``; leaves it with the best weights, or the last ones of a second pass.

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
        model.refitted = False
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
        model.refitted = self.refit

    def place(self) -> Place:
        """Return which of the processes that ``srun`` or ``torchrun`` has started this one is."""
        assert isinstance(self.trainer, partial)  # see __post_init__
        return plan_devices(self.trainer).place

    def learned_data(self, data: NeuralData) -> NeuralData:
        """Return data whose training trials are all those that the fit has learned from."""
        return data.merged() if self.refit else data

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
        keep_freed_memory()  # every step frees, and wants again, the same tensors
        best = KeepBest(monitor=self.select, former=best_weights_beside(checkpoint))
        history, first = History(), None
        if self.refit and checkpoint is None:
            first = FirstPass(beginning(model, self.learned_data(data)))
        elif self.refit:
            first = FirstPass()
        strategy = strategy_for(devices, model, data)
        trainer = self._trainer(
            model,
            data,
            observers,
            best,
            strategy,
            config,
            history=history,
            more=() if first is None else (first,),
        )
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
            if first is None:
                best.restore(model)
                return
            assert first.beginning is not None
            model.load_state_dict(first.beginning)
            self._train_again(
                model,
                data,
                observers,
                second_pass(first, best.step or trainer.global_step, data, self.learned_data(data)),
                History(history.rows),
                strategy=strategy,
                loggers=trainer.loggers,
                resumes=checkpoint is not None,
                config=config,
            )

    def _averages(self) -> list[Callback]:
        return [WeightAverage(self.average_weights)] if self.average_weights > 0 else []

    def _trainer(
        self,
        model: LatentVariableModel,
        data: NeuralData,
        observers: Observers,
        best: KeepBest,
        strategy: Mapping[str, Any],
        config: Mapping[str, object] | None,
        *,
        history: History,
        more: Sequence[Callback] = (),
    ) -> Trainer:
        """Build the Trainer that ends when the validation score no longer rises."""
        assert isinstance(self.trainer, partial)  # see __post_init__
        last = observers.checkpoint
        callbacks: list[Callback] = [
            *self._averages(),
            StopOnNonFinite(best, observers.folder),
            GradientNorms(),
            *more,
            history,
            best,
            Telling(observers, history, best, config=config, ends=not self.refit),
        ]
        if last is not None:
            callbacks.append(SaveLast(last, every_seconds=self.save_seconds))
        if self.patience is not None:
            callbacks.append(
                EarlyStoppingAfterRamps(
                    monitor=self.select, patience=self.patience, ramp_end=model.objective.ramp_end
                )
            )
        return build_trainer(
            self.trainer,
            callbacks,
            bar=Progress(self.select) if self.progress else None,
            folder=observers.folder,
            changes=strategy if "val" in data.split else {**strategy, "limit_val_batches": 0},
        )

    def _train_again(
        self,
        model: LatentVariableModel,
        data: NeuralData,
        observers: Observers,
        second: SecondPass,
        history: History,
        *,
        strategy: Mapping[str, Any],
        loggers: Sequence[Any],
        resumes: bool,
        config: Mapping[str, object] | None,
    ) -> None:
        """Train on training and validation trials; of weights the last ones are kept."""
        assert isinstance(self.trainer, partial)  # see __post_init__
        last = observers.checkpoint
        file = None if last is None else RunFiles(last.parent).refit_checkpoint
        best = KeepBest(monitor=self.select, former=best_weights_beside(last))
        callbacks: list[Callback] = [
            *self._averages(),
            StopOnNonFinite(best, observers.folder),
            GradientNorms(),
            second,
            history,
            best,
            Telling(observers, history, best, config=config, loggers=loggers),
        ]
        if file is not None:
            callbacks.append(SaveLast(file, every_seconds=self.save_seconds, keeps_end=False))
        trainer = build_trainer(
            second_factory(self.trainer, second.num_steps),
            callbacks,
            bar=Progress(self.select, label="refit") if self.progress else None,
            folder=observers.folder,
            changes=strategy,
        )
        checkpoint = second.last_checkpoint(file, model) if resumes else None
        trainer.fit(model, datamodule=self.learned_data(data), ckpt_path=checkpoint)
        trainer.strategy.barrier()  # the weights are written
