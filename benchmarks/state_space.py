"""EM of Poisson linear dynamics: all trials at once, trial by trial, and by the package ``ssm``.

The first two do the same arithmetic, in turn: a variational E-step that begins at the posterior of
the iteration before, and an M-step. The loop infers each trial on its own. The figures are the
median over iterations, and their ratio; then what a whole fit takes, both starts included.

``ssm`` (log link, its ``laplace_em``) learns from the same trials, where it is installed: seconds
an iteration, and seconds until the bound of trials that were not learned from is what it is at the
end of ssm's fit. The bound is ours, with a variational posterior, at the parameters of either. Its
time is that of the iterations, without its own start.

All figures are seconds of one processor, by one thread, in one process.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch

from seqvae.learning import EM
from seqvae.learning.em import STARTING_ITERATIONS
from seqvae.linalg import BlockTridiagonal
from seqvae.models import LinearDynamics
from seqvae.state_space import (
    Dynamics,
    LinearStateSpace,
    PoissonEmission,
    Posterior,
    from_moments,
    maximize,
    path_bound,
    variational,
)
from seqvae.state_space.e_steps import converged
from seqvae.types import Batch, DataSpec

SIZES = {"small": (40, 100, 40, 3), "large": (70, 200, 100, 8)}
NUM_TEST = {"small": 20, "large": 30}
NUM_SSM_ITERATIONS = {"small": 25, "large": 20}
Infer = Callable[[LinearStateSpace, Batch, Posterior | None], Posterior]


class Problem(NamedTuple):
    """The true parameters, trials to learn from, and others."""

    truth: LinearStateSpace
    train: Batch
    test: Batch


def simulated(size: str) -> Problem:
    """Damped rotations seen through Poisson neurons of about 0.25 counts a bin."""
    num_train, num_bins, num_neurons, dim = SIZES[size]
    num_trials = num_train + NUM_TEST[size]
    torch.manual_seed(0)
    identity = torch.eye(dim, dtype=torch.float64)
    skew = 0.2 * torch.randn(dim, dim, dtype=torch.float64) / dim**0.5
    dynamics = Dynamics(
        transition=0.97 * torch.linalg.matrix_exp(skew - skew.mT),
        input_matrix=identity[:, :0],
        offset=identity.new_zeros(dim),
        noise_covariance=(1 - 0.97**2) * identity,
        initial_mean=identity.new_zeros(dim),
        initial_covariance=identity,
    )
    loadings = 0.8 * torch.randn(num_neurons, dim, dtype=torch.float64) / dim**0.5
    emission = PoissonEmission(loadings, -1.4 - 0.5 * loadings.square().sum(1))
    inputs = torch.zeros(num_trials, num_bins, 0, dtype=torch.float64)
    counts = torch.poisson(emission.predictor(dynamics.chain(inputs).rsample()).exp())
    seen, weight = torch.ones_like(counts).bool(), torch.ones_like(counts)
    lengths, trial = torch.full((num_trials,), num_bins), torch.arange(num_trials)
    batch = Batch(counts, seen, counts, weight, inputs, lengths, trial)
    return Problem(LinearStateSpace(dynamics, emission), batch[:num_train], batch[num_train:])


def batched(model: LinearStateSpace, batch: Batch, last: Posterior | None) -> Posterior:
    """Infer all trials at once."""
    prior, given = model.dynamics.chain(batch.inputs), (batch.target, batch.weight)
    return variational(prior, model.emission, target=given[0], weight=given[1], last=last)


def looped(model: LinearStateSpace, batch: Batch, last: Posterior | None) -> Posterior:
    """Infer one trial after the other."""
    found = []
    for i in range(len(batch)):
        one = slice(i, i + 1)
        before = None
        if last is not None:
            precision = BlockTridiagonal(last.precision.diagonal[one], last.precision.lower[one])
            before = Posterior(
                last.mean[one],
                last.covariance[one],
                last.cross_covariance[one],
                precision,
                last.logdet[one],
            )
        found.append(batched(model, batch[one], before))
    return Posterior(
        torch.cat([each.mean for each in found]),
        torch.cat([each.covariance for each in found]),
        torch.cat([each.cross_covariance for each in found]),
        BlockTridiagonal(
            torch.cat([each.precision.diagonal for each in found]),
            torch.cat([each.precision.lower for each in found]),
        ),
        torch.cat([each.logdet for each in found]),
    )


def seconds_of(size: str, num_iterations: int) -> dict[str, float]:
    """Median seconds of an iteration, the ways in turn."""
    truth, batch, _ = simulated(size)
    ways: dict[str, Infer] = {"batched": batched, "trial by trial": looped}
    start = from_moments(truth.emission, batch)
    state = {name: (start, infer(start, batch, None)) for name, infer in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_iterations):
        for name, infer in ways.items():
            model, last = state[name]
            began = time.process_time()
            model = maximize(model, last, batch=batch, ridge=1e-3)
            last = infer(model, batch, last)
            times[name].append(time.process_time() - began)
            state[name] = model, last
    return {name: statistics.median(taken) for name, taken in times.items()}


def blank(size: str) -> LinearDynamics:
    """The model, before learning."""
    _, num_bins, num_neurons, dim = SIZES[size]
    heldin = tuple(range(num_neurons))
    return LinearDynamics(
        DataSpec(heldin, num_neurons, 0, num_bins, num_bins, 0.02), latent_dim=dim
    )


def whole_fit(size: str) -> str:
    """Fit with the defaults."""
    began = time.process_time()
    *_, last = EM(progress=False).iterations(blank(size), simulated(size).train)
    took = time.process_time() - began
    return f"{last.iteration} iterations, {took:.1f} s, bound {last.penalized:.0f}"


def bound_of(model: LinearStateSpace, batch: Batch) -> float:
    """The bound on log p of all trials, with the best Gaussian posterior."""
    prior, given = model.dynamics.chain(batch.inputs), (batch.target, batch.weight)
    posterior = converged(variational, prior, model.emission, target=given[0], weight=given[1])
    terms = path_bound(posterior, prior, model.emission, target=given[0], weight=given[1])
    return float(terms.elbo.sum())


def learned_by_ssm(ssm: ModuleType, size: str, batch: Batch) -> tuple[LinearStateSpace, float]:
    """The parameters that ssm learns, and the seconds of an iteration."""
    num_neurons, dim = SIZES[size][2:]
    np.random.seed(0)  # noqa: NPY002 (ssm draws from numpy's own)
    model = ssm.LDS(num_neurons, dim, emissions="poisson", emission_kwargs={"link": "log"})
    trials = [trial.numpy().astype(int) for trial in batch.target]
    model.initialize(trials)
    began = time.process_time()
    model.fit(trials, method="laplace_em", num_iters=NUM_SSM_ITERATIONS[size], initialize=False)
    took = (time.process_time() - began) / NUM_SSM_ITERATIONS[size]
    d, e = model.dynamics, model.emissions
    transition, offset, noise, mean, covariance, loadings, bias = (
        torch.from_numpy(np.array(part[0], dtype=np.float64))
        for part in (d.As, d.bs, d.Sigmas, d.mu_init, d.Sigmas_init, e.Cs, e.ds)
    )
    dynamics = Dynamics(transition, transition[:, :0], offset, noise, mean, covariance)
    return LinearStateSpace(dynamics, PoissonEmission(loadings, bias)), took


def against_ssm(ssm: ModuleType, size: str) -> str:
    """Learn by ssm, then by EM until its bound is reached."""
    truth, train, test = simulated(size)
    theirs, of_ssm = learned_by_ssm(ssm, size, train)
    goal, number = bound_of(theirs, test), NUM_SSM_ITERATIONS[size]
    states = EM(progress=False).iterations(blank(size), train)
    times, reached = [], None
    began = time.process_time()
    for state in states:
        times.append(time.process_time() - began)
        ours = bound_of(state.learned, test)
        if reached is None and ours >= goal:
            reached = f"in {sum(times):.2f} s, ratio {number * of_ssm / sum(times):.0f}"
        began = time.process_time()
    own = statistics.median(times[STARTING_ITERATIONS:])
    return (
        f"ssm {of_ssm:.3f} s an iteration, ours {own:.3f} s, ratio {of_ssm / own:.1f}; "
        f"test bound {goal:.0f} after {number} iterations of ssm ({number * of_ssm:.1f} s), "
        f"reached {reached or 'never'}; {ours:.0f} at the end, {bound_of(truth, test):.0f} true"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--iterations", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ssm = importlib.import_module("ssm") if importlib.util.find_spec("ssm") else None
    for size in options.sizes:
        times = seconds_of(size, options.iterations)
        ratio = times["trial by trial"] / times["batched"]
        told = ", ".join(f"{name} {value:.3f} s" for name, value in times.items())
        print(f"{size} {SIZES[size]}: {told}, ratio {ratio:.1f}")
        print(f"  whole fit: {whole_fit(size)}")
        if ssm is None:
            print("  ssm is not installed, and not compared with")
        else:
            print(f"  {against_ssm(ssm, size)}")


if __name__ == "__main__":
    main()
