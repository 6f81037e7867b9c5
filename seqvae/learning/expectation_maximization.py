"""What is the same in all learning by expectation maximisation."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor

from seqvae.compute.progress import bar as progress_bar
from seqvae.compute.threads import one_thread
from seqvae.config.arguments import InConfig
from seqvae.data import NeuralData
from seqvae.data.coverage import require_every_neuron
from seqvae.errors import InputError
from seqvae.learning.learner import Learner
from seqvae.learning.observers import MetricsRow, Observer, Observers, Stage
from seqvae.learning.validation import validation_scores
from seqvae.models.linear_readout import Inference
from seqvae.types import Batch

SELECTED = "val/heldin_elbo"
"""The score by which validation chooses."""


class BoundTerms(Protocol):
    """The evidence lower bound of each trial, by its terms."""

    @property
    def log_likelihood(self) -> Float[Tensor, " batch"]:
        """E_q[log p(x | z)]."""

    @property
    def divergences(self) -> dict[str, Float[Tensor, " batch"]]:
        """The KL of each latent by name."""

    @property
    def elbo(self) -> Float[Tensor, " batch"]:
        """The bound."""


class Iteration(NamedTuple):
    """One iteration of EM.

    Attributes:
        iteration: from 1.
        penalized: the bound of all trials less the penalty, in nats, of the parameters that the
            iteration began with.
        terms: the bound of each trial.
        posterior: of each trial.
        learned: the parameters after the M-step.
    """

    iteration: int
    penalized: float
    terms: BoundTerms
    posterior: Any
    learned: Any


@dataclass(frozen=True)
class ExpectationMaximization(Learner):
    """What is the same in all learners by EM: iterations, validation, files.

    Members fill in ``iterations`` and ``finished``. Validation trials are scored, and choose
    nothing, unless ``patience`` says so. A resumed run begins anew.

    Attributes:
        e_step: ``exact`` (Gaussian observation), ``laplace`` or ``variational``; ``auto``: the
            model's own ``inference``.
        max_iterations: most iterations.
        tolerance: rise of the bound in an iteration, in nats for each scored entry of the data,
            below which learning ends.
        ridge: penalty of the loadings, ridge |c|^2 / 2, in nats; latents begin with unit variance,
            so 1 is a standard normal prior, which keeps neurons of few spikes from large loadings.
        validate_every: iterations between validations; 0 validates once, at the end.
        patience: validations after which learning ends if none was better, by the bound of the
            held-in neurons (``val/heldin_elbo``); the parameters of the best are kept. A bound of
            training trials that still rises may be that of an over-fit. None: validation chooses
            nothing.
        progress: whether a progress bar is shown.
    """

    e_step: Inference = "auto"
    max_iterations: int = 100
    tolerance: float = 1e-6
    ridge: float = 1.0
    validate_every: int = 10
    patience: Annotated[int | None, InConfig(tells_default=False)] = None
    progress: bool = True

    @property
    def selects(self) -> bool:
        """Whether validation trials choose what is kept."""
        return self.patience is not None

    @abstractmethod
    def iterations(self, model: Any, batch: Batch) -> Iterator[Iteration]:
        """Yield each iteration of EM, until the bound stops to rise.

        Args:
            model: says what is learned; its parameters are not changed.
            batch: the trials to learn from, in double precision.
        """

    @abstractmethod
    def finished(self, state: Iteration, batch: Batch) -> Any:
        """Return what was learned in the form in which two fits can be compared."""

    def check(self, model: Any, data: NeuralData, *, checkpoint: Path | None = None) -> None:
        """Refuse settings that do not fit model and data, before anything is written.

        Args:
            model: the model to learn.
            data: the data to learn from.
            checkpoint: no file of this learner.

        Raises:
            InputError: naming the setting and what it needs.
        """
        model.e_step(self.e_step)
        if self.max_iterations < 1:
            raise InputError(f"max_iterations must be at least 1, got {self.max_iterations}")
        if self.validate_every < 0:
            raise InputError(f"validate_every must be at least 0, got {self.validate_every}")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience must be at least 1 or null, got {self.patience}")
        if self.selects and "val" not in data.split:
            raise InputError("patience needs validation trials: set data.val_fraction")
        if self.selects and not self.validate_every:
            raise InputError("patience needs validations: set validate_every to 1 or more, got 0")
        for name, number in (("tolerance", self.tolerance), ("ridge", self.ridge)):
            if not (number >= 0 and math.isfinite(number)):
                raise InputError(f"{name} must be zero or positive, got {number}")
        require_every_neuron(data)

    def learn(
        self,
        model: Any,
        data: NeuralData,
        *,
        observers: Sequence[Observer] = (),
        checkpoint: Path | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Learn ``model``; leaves it with the last parameters, or those that validation chose.

        Args:
            model: the model.
            data: the data; its training trials are held in memory in double precision.
            observers: who hears of it, such as a run folder.
            checkpoint: not needed.
            config: not needed.

        Raises:
            InputError: if the bound is no longer a number.
            KeyboardInterrupt: if interrupted; the parameters of that moment are saved.
            Terminated: likewise, if terminated.
        """
        audience = Observers(observers)
        batch = model.scored(data.batch(data.at_once("train"))).to(model.offset)
        rows: list[MetricsRow] = []
        bar = progress_bar(self.max_iterations, work="fit", unit="iteration", show=self.progress)

        def keep(state: Iteration, *, validates: bool = True, has_ended: bool = False) -> Stage:
            """Put what was learned into the model, score it, and tell of both."""
            model.take(self.finished(state, batch))
            stage = Stage(model, data, rows, number=state.iteration, step=state.iteration)
            audience.best(stage, float(state.terms.elbo.mean()), is_final=has_ended)
            rows[-1] |= validation_scores(model, data) if validates else {}
            audience.progress(stage)
            return stage

        audience.begin(Stage(model, data))
        best = Best(self.patience)
        try:
            with one_thread(), bar:
                for state in self.iterations(model, batch):
                    rows.append(_row(state, batch))
                    if self.validate_every and state.iteration % self.validate_every == 0:
                        keep(state)
                        if best.is_over(state, rows[-1]):
                            break
                    bar.set_postfix(bound=f"{state.penalized:.6g}", refresh=False)
                    bar.update()
        except BaseException:
            if rows:
                keep(state, validates=False)
            raise
        if self.selects and SELECTED not in rows[-1]:
            keep(state)
            best.is_over(state, rows[-1])
        stage = keep(best.state or state, validates=not self.selects, has_ended=True)
        audience.end(stage)

    def _until_flat(
        self, begun: Sequence[Iteration], rest: Iterator[Iteration], batch: Batch, *, over: int = 1
    ) -> Iterator[Iteration]:
        """Yield iterations already made, then others until the bound stops to rise.

        Args:
            begun: iterations already made.
            rest: the others.
            batch: the trials to learn from.
            over: iterations over which the rise of the bound is averaged.
        """
        yield from begun
        least = self.tolerance * float(batch.weight.sum())
        former = deque([begun[-1].penalized], maxlen=over)
        for state in rest:
            yield state
            if len(former) == over and state.penalized - former[0] < over * least:
                return
            former.append(state.penalized)


@dataclass
class Best:
    """The iteration that validation found best, if it is asked.

    Attributes:
        patience: validations without a better one after which learning ends; None: none is asked.
        state: the best so far; None: none is asked, or none yet.
    """

    patience: int | None
    state: Iteration | None = None
    _score: float = -math.inf
    _waited: int = 0

    def is_over(self, state: Iteration, scores: Mapping[str, Any]) -> bool:
        """Take note of a validation; return whether enough of them have gained nothing."""
        if self.patience is None:
            return False
        if scores[SELECTED] > self._score:
            self._score, self._waited, self.state = scores[SELECTED], 0, state
            return False
        self._waited += 1
        return self._waited >= self.patience


def require_finite(penalized: float, iteration: int) -> None:
    """Refuse to go on with a bound that is no longer a number.

    Raises:
        InputError: naming the iteration.
    """
    if not math.isfinite(penalized):
        raise InputError(
            f"learning diverged: the bound was {penalized} at iteration {iteration}; "
            "raise learner.ridge or lower model.latent_dim"
        )


def _row(state: Iteration, batch: Batch) -> MetricsRow:
    row: MetricsRow = {
        "step": state.iteration,
        "bound": state.penalized,
        "bound_per_observation": state.penalized / float(batch.weight.sum()),
        "train/elbo": float(state.terms.elbo.mean()),
        "train/log_likelihood": float(state.terms.log_likelihood.mean()),
    }
    for name, value in state.terms.divergences.items():
        row[f"train/kl/{name}"] = float(value.mean())
    return row
