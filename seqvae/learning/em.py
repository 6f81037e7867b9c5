"""Learning by expectation maximisation: state-space models, without gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import torch

from seqvae.config.arguments import InConfig
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.learning.anderson import Anderson
from seqvae.learning.expectation_maximization import (
    ExpectationMaximization,
    Iteration,
    require_finite,
)
from seqvae.models import LinearDynamics
from seqvae.state_space import (
    EStep,
    LinearStateSpace,
    PathBound,
    Posterior,
    canonical,
    from_vector,
    linear_starts,
    maximize,
    path_bound,
    shaken,
    to_vector,
)
from seqvae.state_space.e_steps import ROUNDING
from seqvae.types import Batch

STARTING_ITERATIONS = 3
ACCELERATED_DECREMENT = 1e-3
"""Of Newton's method in accelerated EM: the posterior of a trial is best to about 1e-8 nats."""
RISING_ITERATIONS = 5
"""Over which an accelerated bound is to rise, as its steps are uneven."""


class _Inferred(NamedTuple):
    """Parameters, what was inferred with them, and their bound less the penalty."""

    model: LinearStateSpace
    posterior: Posterior
    terms: PathBound
    penalized: float


@dataclass(frozen=True)
class EM(ExpectationMaximization):
    """Learns a ``LinearDynamics`` by expectation maximisation.

    Each iteration infers the posterior of every training trial, all neurons and bins seen, and
    then maximises the bound over the parameters in closed form or by one safe Newton step: with
    the exact or the variational E-step the bound, less the ridge penalty, never falls (Laplace's
    may, a little). Learning begins from lagged covariances and from smoothed principal components
    (and from the parameters of a model that has begun), three iterations each, and goes on from the
    best; of several sessions where they are aligned. The parameters are left in a canonical form.
    Validation trials are scored, and choose nothing, unless there is ``patience``. A resumed run
    begins anew. Its settings are those of ``ExpectationMaximization``, and

    Attributes:
        num_starts: from how many of them learning goes on to its end, the best bound being kept;
            beyond these from the best with loadings shaken at random.
        acceleration: iterations that the next parameters are extrapolated from by Anderson's
            method, such as 10. Where the bound would fall the plain M-step is taken; where that
            lowers it, too, as may be with Laplace's, learning ends. 0: plain EM.
        keep_dynamics: whether the readout alone is learned, from the parameters of the model on, as
            of the neurons of another session.
    """

    num_starts: Annotated[int, InConfig(tells_default=False)] = 1
    acceleration: Annotated[int, InConfig(tells_default=False)] = 0
    keep_dynamics: Annotated[bool, InConfig(tells_default=False)] = False

    learns: ClassVar[type] = LinearDynamics
    begins_from_model: ClassVar[bool] = True

    def iterations(self, model: LinearDynamics, batch: Batch) -> Iterator[Iteration]:
        """Yield each iteration of EM, from the better start, until the bound stops to rise."""
        state_space, e_step = model.state_space, model.e_step(self.e_step)
        if self.keep_dynamics:
            steps = self._steps(e_step, state_space, batch, self.max_iterations)
            yield from self._until_flat([next(steps)], steps, batch)
            return
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
            over = RISING_ITERATIONS if self.acceleration else 1
            return self._until_flat(begun, rest, batch, over=over)

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
        if self.acceleration < 0:
            raise InputError(f"acceleration must be at least 0, got {self.acceleration}")

    def finished(self, state: Iteration, batch: Batch) -> LinearStateSpace:
        """Return what was learned in the form in which two fits can be compared."""
        learned: LinearStateSpace = state.learned
        return learned if self.keep_dynamics else canonical(learned, batch.target.shape[1])

    def _steps(
        self,
        e_step: EStep,
        start: LinearStateSpace,
        batch: Batch,
        number: int,
        *,
        last: Iteration | None = None,
    ) -> Iterator[Iteration]:
        data: dict[str, Any] = {"target": batch.target, "weight": batch.weight}
        if self.acceleration:
            data["decrement_below"] = ACCELERATED_DECREMENT
        same_length = bool((batch.lengths == batch.target.shape[1]).all())
        lengths = None if same_length else batch.lengths

        def infer(model: LinearStateSpace, last: Posterior | None) -> _Inferred:
            prior = model.dynamics.chain(batch.inputs, lengths=lengths)
            posterior = e_step(prior, model.emission, **data, last=last)
            terms = path_bound(
                posterior, prior, model.emission, target=batch.target, weight=batch.weight
            )
            penalized = float(terms.elbo.sum() - model.emission.penalty(self.ridge))
            return _Inferred(model, posterior, terms, penalized)

        def extrapolate(found: _Inferred, learned: LinearStateSpace) -> _Inferred | None:
            """Return what is inferred with extrapolated parameters, unless the bound falls."""
            proposal = anderson.proposal(to_vector(found.model), to_vector(learned))
            if proposal is None:
                return None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of precisions that are none: it is not taken
                better = infer(from_vector(proposal, learned), found.posterior)
            return better if better.penalized >= found.penalized else None

        anderson = Anderson(self.acceleration)
        learned, found = start, None
        posterior, done, least = None, 0, -math.inf
        if last is not None:
            posterior, done, least = last.posterior, last.iteration, last.penalized
        for iteration in range(done + 1, done + 1 + number):
            taken = None
            if self.acceleration and found is not None:
                taken = extrapolate(found, learned)
            found = taken or infer(learned, posterior)
            require_finite(found.penalized, iteration)
            if self.acceleration and found.penalized < least:  # as Laplace's may
                return
            least = found.penalized - ROUNDING * abs(found.penalized)
            posterior = found.posterior
            learned = maximize(found.model, posterior, batch=batch, ridge=self.ridge)
            if self.keep_dynamics:
                learned = learned._replace(dynamics=start.dynamics)
            yield Iteration(iteration, found.penalized, found.terms, posterior, learned)
