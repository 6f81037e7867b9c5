"""Learning models whose dynamics switch, by expectation maximisation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from seqvae.data import NeuralData
from seqvae.distributions import DiscreteMarkovChain
from seqvae.errors import InputError
from seqvae.learning.em import EM
from seqvae.learning.expectation_maximization import (
    ExpectationMaximization,
    Iteration,
    require_finite,
)
from seqvae.models import SwitchingLinearDynamics
from seqvae.state_space import (
    EStep,
    Posterior,
    SwitchingPenalty,
    SwitchingStateSpace,
    begin_switching,
    canonical,
    canonical_switching,
    infer_by_turns,
    linear_starts,
    maximize_switching,
    seen_bins,
    switching_bound,
)
from seqvae.state_space.dynamics import LinkMoments
from seqvae.types import Batch

SWITCHING_STARTING_ITERATIONS = 5
WINDOW_BINS = (10, 20, 5)


class _Begun(NamedTuple):
    """Where iterations begin: parameters, and a posterior to improve."""

    learned: SwitchingStateSpace
    path: Posterior
    states: DiscreteMarkovChain
    iteration: int = 0


@dataclass(frozen=True)
class SwitchingEM(ExpectationMaximization):
    """Learns a ``SwitchingLinearDynamics`` by variational expectation maximisation.

    Each iteration infers path and states by turns and then maximises the bound over the parameters:
    a weighted regression for each state, expected transitions, and the readout as in ``EM``. With
    the exact or the variational E-step the bound, less the penalties, never falls. Learning begins
    from a linear model, on whose path regimes are found by clustering regressions in windows; from
    several clusterings (seeds, and windows of 10, 20 and 5 bins by turns) it takes a few iterations
    each and goes on from the best. States are left in the order of the time spent in them, latents
    in a canonical form. Validation trials are scored, and choose nothing. A resumed run begins
    anew. The same ``model.seed`` gives the same fit.

    Attributes:
        e_step: of q(z): ``exact`` (Gaussian observation), ``laplace`` or ``variational``; ``auto``:
            the model's own ``inference``.
        max_iterations: most iterations, those of the linear model not counted.
        concentration: of the Dirichlet prior of the first state and of the transitions out of each
            state; above 1, so that no transition becomes impossible.
        stickiness: added to it for staying, as if each state had been seen to stay so often.
        shared_bins: bins of the linear model's path, on average, that each state is taken to have
            seen beforehand: a state that is rarely visited stays near the linear dynamics.
        passes: turns of q(z) and q(m) in an iteration.
        linear_iterations: iterations of the linear model that learning begins from.
        num_starts: clusterings to begin from.
    """

    learns: ClassVar[type] = SwitchingLinearDynamics

    concentration: float = 1.1
    stickiness: float = 10.0
    shared_bins: float = 10.0
    passes: int = 2
    linear_iterations: int = 10
    num_starts: int = 3

    def check(
        self, model: SwitchingLinearDynamics, data: NeuralData, *, checkpoint: Path | None = None
    ) -> None:
        """Refuse settings that do not fit model and data, before anything is written.

        Args:
            model: the model to learn.
            data: the data to learn from.
            checkpoint: no file of this learner.

        Raises:
            InputError: naming the setting and what it needs.
        """
        super().check(model, data, checkpoint=checkpoint)
        for name in ("passes", "linear_iterations", "num_starts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (self.concentration > 1 and math.isfinite(self.concentration)):
            raise InputError(f"concentration must be above 1, got {self.concentration}")
        for name in ("stickiness", "shared_bins"):
            number = getattr(self, name)
            if not (number >= 0 and math.isfinite(number)):
                raise InputError(f"{name} must be zero or positive, got {number}")

    def iterations(self, model: SwitchingLinearDynamics, batch: Batch) -> Iterator[Iteration]:
        """Yield each iteration of EM, from the best start, until the bound stops to rise.

        Args:
            model: says what is learned; its parameters are not changed.
            batch: the trials to learn from, in double precision.
        """
        e_step, mask = model.e_step(self.e_step), seen_bins(batch.weight)
        learner = EM(
            max_iterations=self.linear_iterations, tolerance=self.tolerance, ridge=self.ridge
        )
        linear_begun = linear_starts(model.state_space.emission, batch, ridge=self.ridge)
        *_, fitted = learner.linear_iterations(e_step, linear_begun, batch)
        linear = canonical(fitted.learned, batch.target.shape[1])
        prior = linear.dynamics.chain(batch.inputs, lengths=mask.sum(1))
        path = e_step(prior, linear.emission, target=batch.target, weight=batch.weight)
        penalty = self._penalty(path, batch)

        first = min(SWITCHING_STARTING_ITERATIONS, self.max_iterations)
        starts = [
            begin_switching(
                linear,
                path,
                batch=batch,
                mask=mask,
                num_states=model.num_states,
                penalty=penalty,
                window=WINDOW_BINS[number % len(WINDOW_BINS)],
                seed=model.seed + number,
            )
            for number in range(self.num_starts if model.num_states > 1 else 1)
        ]
        begun = [
            list(self._steps(e_step, _Begun(start, path, states), batch, penalty, number=first))
            for start, states in starts
        ]
        best = max(begun, key=lambda states: states[-1].penalized)
        last = best[-1]
        path, states = last.posterior
        go_on = _Begun(last.learned, path, states, last.iteration)
        rest = self._steps(e_step, go_on, batch, penalty, number=self.max_iterations - first)
        yield from self._until_flat(best, rest, batch)

    def finished(self, state: Iteration, batch: Batch) -> SwitchingStateSpace:
        """Return what was learned in the form in which two fits can be compared."""
        return canonical_switching(state.learned, state.posterior.states, seen_bins(batch.weight))

    def _penalty(self, path: Posterior, batch: Batch) -> SwitchingPenalty:
        weight = seen_bins(batch.weight)[:, 1:].to(path.mean)
        links = None
        if self.shared_bins and bool(weight.any()):
            seen = LinkMoments.of(path, inputs=batch.inputs, weight=weight)
            links = seen.scaled(self.shared_bins / float(seen.count))
        return SwitchingPenalty(self.ridge, self.concentration, self.stickiness, links)

    def _steps(
        self,
        e_step: EStep,
        begun: _Begun,
        batch: Batch,
        penalty: SwitchingPenalty,
        *,
        number: int,
    ) -> Iterator[Iteration]:
        data = {"target": batch.target, "weight": batch.weight}
        mask = seen_bins(batch.weight)
        learned, path, states, done = begun
        for iteration in range(done + 1, done + 1 + number):
            densities = learned.densities(batch.inputs, mask)
            for _ in range(self.passes):
                posterior = infer_by_turns(
                    learned,
                    densities,
                    e_step,
                    **data,
                    probabilities=states.probabilities,
                    last=path,
                )
                path, states = posterior
            terms = switching_bound(posterior, learned, densities, **data)
            penalized = float(terms.elbo.sum()) - penalty.of(learned)
            require_finite(penalized, iteration)
            learned = maximize_switching(
                learned, path, states, batch=batch, mask=mask, penalty=penalty
            )
            yield Iteration(iteration, penalized, terms, posterior, learned)
