"""Learning by expectation maximisation: state-space models, without gradients."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from seqvae.analysis.posterior import deterministic, trials_per_chunk
from seqvae.compute.threads import one_thread
from seqvae.config.arguments import InConfig
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.learning.learner import Learner, require_every_neuron
from seqvae.learning.observers import MetricsRow, Observer, Observers, Stage
from seqvae.models import LinearDynamics, Model
from seqvae.models.linear_readout import Inference
from seqvae.models.scores import Scores
from seqvae.state_space import (
    EStep,
    LinearStateSpace,
    Posterior,
    canonical,
    linear_starts,
    maximize,
    path_bound,
    shaken,
)
from seqvae.types import Batch

STARTING_ITERATIONS = 3
VALIDATION_SAMPLES = 10


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
    nothing. A resumed run begins anew.

    Attributes:
        e_step: ``exact`` (Gaussian observation), ``laplace`` or ``variational``; ``auto``: the
            model's own ``inference``.
        max_iterations: most iterations.
        tolerance: rise of the bound, in nats for each scored entry of the data, below which
            learning ends.
        ridge: penalty of the loadings, ridge |c|^2 / 2, in nats; latents begin with unit variance,
            so 1 is a standard normal prior, which keeps neurons of few spikes from large loadings.
        validate_every: iterations between validations; 0 validates once, at the end.
        progress: whether a progress bar is shown.
    """

    e_step: Inference = "auto"
    max_iterations: int = 100
    tolerance: float = 1e-6
    ridge: float = 1.0
    validate_every: int = 10
    progress: bool = True

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
        """Learn ``model``; leaves it with the last parameters.

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
        bar = tqdm(
            total=self.max_iterations,
            desc="fit",
            unit="iteration",
            disable=not self.progress,
            dynamic_ncols=True,
        )

        def keep(state: Iteration, *, has_ended: bool = False) -> Stage:
            """Put what was learned into the model, and tell of it."""
            model.take(self.finished(state, batch))
            stage = Stage(model, data, rows, number=state.iteration, step=state.iteration)
            audience.best(stage, float(state.terms.elbo.mean()), is_final=has_ended)
            audience.progress(stage)
            return stage

        audience.begin(Stage(model, data))
        try:
            with one_thread(), bar:
                for state in self.iterations(model, batch):
                    rows.append(_row(state, batch))
                    if self.validate_every and state.iteration % self.validate_every == 0:
                        keep(state)
                        rows[-1] |= validation_scores(model, data)
                    bar.set_postfix(bound=f"{state.penalized:.6g}", refresh=False)
                    bar.update()
        except BaseException:
            if rows:
                keep(state)
            raise
        stage = keep(state, has_ended=True)
        rows[-1] |= validation_scores(model, data)
        audience.end(stage)

    def _until_flat(
        self, begun: Sequence[Iteration], rest: Iterator[Iteration], batch: Batch
    ) -> Iterator[Iteration]:
        """Yield iterations already made, then others until the bound stops to rise."""
        yield from begun
        former = begun[-1].penalized
        for state in rest:
            yield state
            if state.penalized - former < self.tolerance * float(batch.weight.sum()):
                return
            former = state.penalized


@dataclass(frozen=True)
class EM(ExpectationMaximization):
    """Learns a ``LinearDynamics`` by expectation maximisation.

    Each iteration infers the posterior of every training trial, all neurons and bins seen, and
    then maximises the bound over the parameters in closed form or by one safe Newton step: with
    the exact or the variational E-step the bound, less the ridge penalty, never falls (Laplace's
    may, a little). Learning begins from lagged covariances and from smoothed principal components
    (and from the parameters of a model that has begun), three iterations each, and goes on from the
    best; of several sessions where they are aligned. The parameters are left in a canonical form.
    Validation trials are scored, and choose nothing. A resumed run begins anew. Its
    settings are those of ``ExpectationMaximization``, and

    Attributes:
        num_starts: from how many of them learning goes on to its end, the best bound being kept;
            beyond these from the best with loadings shaken at random.
    """

    num_starts: Annotated[int, InConfig(tells_default=False)] = 1

    learns: ClassVar[type] = LinearDynamics
    begins_from_model: ClassVar[bool] = True

    def iterations(self, model: LinearDynamics, batch: Batch) -> Iterator[Iteration]:
        """Yield each iteration of EM, from the better start, until the bound stops to rise."""
        state_space, e_step = model.state_space, model.e_step(self.e_step)
        starts = [state_space] if model.has_begun or model.is_aligned else []
        if not model.is_aligned:
            starts += linear_starts(state_space.emission, batch, ridge=self.ridge)
        yield from self.linear_iterations(e_step, starts, batch)

    def linear_iterations(
        self, e_step: EStep, starts: Sequence[LinearStateSpace], batch: Batch
    ) -> Iterator[Iteration]:
        """Yield the iterations from the best of some starts; see ``iterations``."""
        num_steps = batch.target.shape[1]
        first = min(STARTING_ITERATIONS, self.max_iterations)
        starts = [canonical(start, num_steps) for start in starts]  # in equal units
        tried = [list(self._steps(e_step, start, batch, first)) for start in starts]
        best = max(tried, key=lambda states: states[-1].penalized)
        number = self.max_iterations - first

        def ended(begun: Sequence[Iteration]) -> Iterator[Iteration]:
            rest = self._steps(e_step, begun[-1].learned, batch, number, last=begun[-1])
            return self._until_flat(begun, rest, batch)

        if self.num_starts == 1:
            yield from ended(best)
            return
        tried.sort(key=lambda states: -states[-1].penalized)
        generator = torch.Generator().manual_seed(0)
        while len(tried) < self.num_starts:
            start = canonical(shaken(best[-1].learned, generator), num_steps)
            tried += [list(self._steps(e_step, start, batch, first))]
        # without the posterior of each trial, which nothing reads any more
        ends = [[state._replace(posterior=None) for state in ended(begun)]
                for begun in tried[: self.num_starts]]  # fmt: skip
        yield from max(ends, key=lambda states: states[-1].penalized)

    def check(self, model: Any, data: NeuralData, *, checkpoint: Path | None = None) -> None:
        """Refuse what ``ExpectationMaximization`` does, and to begin nowhere."""
        super().check(model, data, checkpoint=checkpoint)
        if self.num_starts < 1:
            raise InputError(f"num_starts must be at least 1, got {self.num_starts}")

    def finished(self, state: Iteration, batch: Batch) -> LinearStateSpace:
        """Return what was learned in the form in which two fits can be compared."""
        return canonical(state.learned, batch.target.shape[1])

    def _steps(
        self,
        e_step: EStep,
        start: LinearStateSpace,
        batch: Batch,
        number: int,
        *,
        last: Iteration | None = None,
    ) -> Iterator[Iteration]:
        data = {"target": batch.target, "weight": batch.weight}
        same_length = bool((batch.lengths == batch.target.shape[1]).all())
        lengths = None if same_length else batch.lengths
        learned = start
        posterior: Posterior | None = None
        done = 0
        if last is not None:
            posterior, done = last.posterior, last.iteration
        for iteration in range(done + 1, done + 1 + number):
            prior = learned.dynamics.chain(batch.inputs, lengths=lengths)
            posterior = e_step(prior, learned.emission, **data, last=posterior)
            terms = path_bound(posterior, prior, learned.emission, **data)
            penalized = float(terms.elbo.sum() - learned.emission.penalty(self.ridge))
            require_finite(penalized, iteration)
            learned = maximize(learned, posterior, batch=batch, ridge=self.ridge)
            yield Iteration(iteration, penalized, terms, posterior, learned)


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


def validation_scores(model: Model, data: NeuralData) -> dict[str, float]:
    """Return ``val/<score>`` of a model on the validation trials; nothing if there are none."""
    if "val" not in data.split:
        return {}
    session = model.session()
    counts = session.observation.kind.counts_events
    scores = Scores(data.spec, session.null_counts, counts=counts)
    with deterministic(model, model.seed):
        for batch in data.batches("val", trials_per_chunk(data.spec, VALIDATION_SAMPLES)):
            batch = model.scored(batch.to(model.null_counts.device))
            output = model(batch, VALIDATION_SAMPLES)
            scores.update(output, batch, model.expectations(output, batch))
    return {f"val/{name}": value for name, value in scores.compute().items()}


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
