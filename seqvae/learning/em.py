"""Learning by expectation maximisation: state-space models, without gradients."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from tqdm import tqdm

from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.files import RunFiles, atomic_path, write_text
from seqvae.inference import deterministic, trials_per_chunk
from seqvae.learning.learner import Learner
from seqvae.models import LinearDynamics, Model
from seqvae.models.linear_dynamics import Inference
from seqvae.models.scores import Scores
from seqvae.state_space import (
    Bound,
    EStep,
    LinearStateSpace,
    Posterior,
    bound,
    canonical,
    from_moments,
    from_smoothing,
    maximize,
)
from seqvae.state_space.threads import one_thread
from seqvae.types import Batch
from seqvae.weights import save_weights

STARTING_ITERATIONS = 3
VALIDATION_SAMPLES = 10
LEAST_BINS_FOR_MOMENTS = 4


@dataclass(frozen=True)
class EM(Learner):
    """Learns a ``LinearDynamics`` by expectation maximisation.

    Each iteration infers the posterior of every training trial, all neurons and bins seen, and
    then maximises the bound over the parameters in closed form or by one safe Newton step: with
    the exact or the variational E-step the bound, less the ridge penalty, never falls (Laplace's
    may, a little). Learning begins from lagged covariances and from smoothed principal components,
    three iterations each, and goes on from the better. The parameters are left in a canonical
    form. Validation trials are scored, and choose nothing. A resumed run begins anew.

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

    learns: ClassVar[type] = LinearDynamics

    e_step: Inference = "auto"
    max_iterations: int = 100
    tolerance: float = 1e-6
    ridge: float = 1.0
    validate_every: int = 10
    progress: bool = True

    def check(
        self, model: LinearDynamics, data: NeuralData, *, checkpoint: Path | None = None
    ) -> None:
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
        scored = data.batch(data.trials("train")).weight.sum((0, 1))
        if not bool((scored > 0).all()):
            neuron = int((scored == 0).nonzero()[0])
            raise InputError(
                f"activity: neuron {neuron} has no value in the training trials; leave it out"
            )

    def learn(
        self,
        model: LinearDynamics,
        data: NeuralData,
        run: RunFiles,
        *,
        checkpoint: Path | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Learn ``model``; leaves it with the last parameters, and the run folder filled.

        Args:
            model: the model.
            data: the data; its training trials are held in memory in double precision.
            run: where the files go.
            checkpoint: not needed.
            config: not needed.

        Raises:
            InputError: if the bound is no longer a number.
            KeyboardInterrupt: if interrupted; the parameters of that moment are saved.
        """
        batch = data.batch(data.trials("train")).to(model.offset)
        rows: list[dict[str, float | int]] = []
        began = time.monotonic()
        bar = tqdm(
            total=self.max_iterations,
            desc="fit",
            unit="iteration",
            disable=not self.progress,
            dynamic_ncols=True,
        )
        try:
            with one_thread(), bar:
                for state in self.iterations(model, batch):
                    rows.append(_row(state, batch, seconds=time.monotonic() - began))
                    if self.validate_every and state.iteration % self.validate_every == 0:
                        _keep(model, state, run, rows)
                        rows[-1] |= validation_scores(model, data)
                    bar.set_postfix(bound=f"{state.penalized:.6g}", refresh=False)
                    bar.update()
        finally:
            if rows:
                _keep(model, state, run, rows)
        rows[-1] |= validation_scores(model, data)
        _write_rows(run, rows)
        _draw(model, data, run, rows)

    def iterations(self, model: LinearDynamics, batch: Batch) -> Iterator[Iteration]:
        """Yield each iteration of EM, from the better start, until the bound stops to rise.

        Args:
            model: says what is learned; its parameters are not changed.
            batch: the trials to learn from, in double precision.
        """
        e_step, emission = model.e_step(self.e_step), model.state_space.emission
        starts = [from_smoothing(emission, batch, ridge=self.ridge)]
        if batch.target.shape[1] >= LEAST_BINS_FOR_MOMENTS:
            starts.append(from_moments(emission, batch))
        first = min(STARTING_ITERATIONS, self.max_iterations)
        starts = [canonical(start, batch.target.shape[1]) for start in starts]  # in equal units
        begun = [list(self._steps(e_step, start, batch, first)) for start in starts]
        best = max(begun, key=lambda states: states[-1].penalized)
        yield from best
        last = best[-1]
        former = last.penalized
        rest = self.max_iterations - first
        for state in self._steps(e_step, last.learned, batch, rest, last=last):
            yield state
            if state.penalized - former < self.tolerance * float(batch.weight.sum()):
                return
            former = state.penalized

    def _steps(
        self,
        e_step: EStep,
        start: LinearStateSpace,
        batch: Batch,
        number: int,
        *,
        last: Iteration | None = None,
    ) -> Iterator[Iteration]:
        given = {"target": batch.target, "weight": batch.weight}
        same_length = bool((batch.lengths == batch.target.shape[1]).all())
        lengths = None if same_length else batch.lengths
        learned = start
        posterior, done = (last.posterior, last.iteration) if last is not None else (None, 0)
        for iteration in range(done + 1, done + 1 + number):
            prior = learned.dynamics.chain(batch.inputs, lengths=lengths)
            posterior = e_step(prior, learned.emission, **given, last=posterior)
            terms = bound(posterior, prior, learned.emission, **given)
            penalized = float(terms.elbo.sum() - learned.emission.penalty(self.ridge))
            if not math.isfinite(penalized):
                raise InputError(
                    f"learning diverged: the bound was {penalized} at iteration {iteration}; "
                    "raise learner.ridge or lower model.latent_dim"
                )
            learned = maximize(learned, posterior, batch=batch, ridge=self.ridge)
            yield Iteration(iteration, penalized, terms, posterior, learned)


class Iteration(NamedTuple):
    """One iteration of EM.

    Attributes:
        iteration: from 1.
        penalized: the bound of all trials less the ridge penalty, in nats, of the parameters that
            the iteration began with.
        terms: the bound of each trial.
        posterior: of each trial.
        learned: the parameters after the M-step.
    """

    iteration: int
    penalized: float
    terms: Bound
    posterior: Posterior
    learned: LinearStateSpace


def validation_scores(model: Model, data: NeuralData) -> dict[str, float]:
    """Return ``val/<score>`` of a model on the validation trials; nothing if there are none."""
    if "val" not in data.split:
        return {}
    counts = model.observation.data_kind == "counts"
    scores = Scores(data.spec, model.null_counts, counts=counts)
    with deterministic(model, model.seed):
        for batch in data.batches("val", trials_per_chunk(data.spec, VALIDATION_SAMPLES)):
            scores.update(model(batch.to(model.null_counts.device), VALIDATION_SAMPLES), batch)
    return {f"val/{name}": value for name, value in scores.compute().items()}


def _row(state: Iteration, batch: Batch, *, seconds: float) -> dict[str, float | int]:
    return {
        "step": state.iteration,
        "seconds": seconds,
        "bound": state.penalized,
        "bound_per_observation": state.penalized / float(batch.weight.sum()),
        "train/elbo": float(state.terms.elbo.mean()),
        "train/log_likelihood": float(state.terms.log_likelihood.mean()),
        "train/kl/latents": float(state.terms.kl.mean()),
    }


def _keep(
    model: LinearDynamics, state: Iteration, run: RunFiles, rows: list[dict[str, float | int]]
) -> None:
    """Put what was learned into the model and the run folder."""
    model.take(canonical(state.learned, state.posterior.mean.shape[1]))
    score = float(state.terms.elbo.mean())
    save_weights(run.weights, model, step=state.iteration, score=score)
    _write_rows(run, rows)


def _write_rows(run: RunFiles, rows: list[dict[str, float | int]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(run.history, text.getvalue())


def _draw(
    model: Model, data: NeuralData, run: RunFiles, rows: list[dict[str, float | int]]
) -> None:
    from seqvae.learning.figures import draw

    for name, figure in draw(model, data, rows).items():
        with atomic_path(run.figures / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
        figure.clear()
