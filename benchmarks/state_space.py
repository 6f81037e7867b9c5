"""An EM iteration of Poisson linear dynamics: all trials at once, and trial by trial.

Both do the same arithmetic, in turn, in one process on one thread: a variational E-step that begins
at the posterior of the iteration before, and an M-step. The loop infers each trial on its own. The
figures are seconds, the median over iterations, and their ratio; then the iterations and seconds,
both starts included, that a whole fit takes, and what its last bound is.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from seqvae.learning import EM
from seqvae.linalg import BlockTridiagonal
from seqvae.models import LinearDynamics
from seqvae.state_space import (
    Dynamics,
    LinearStateSpace,
    PoissonEmission,
    Posterior,
    from_moments,
    maximize,
    variational,
)
from seqvae.types import Batch, DataSpec

SIZES = {"small": (40, 100, 40, 3), "large": (70, 200, 100, 8)}
Infer = Callable[[LinearStateSpace, Batch, Posterior | None], Posterior]


def simulated(size: str) -> tuple[LinearStateSpace, Batch]:
    """Damped rotations seen through Poisson neurons of about 0.25 counts a bin."""
    num_trials, num_bins, num_neurons, dim = SIZES[size]
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
    return LinearStateSpace(dynamics, emission), batch


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
    truth, batch = simulated(size)
    ways: dict[str, Infer] = {"batched": batched, "trial by trial": looped}
    start = from_moments(truth.emission, batch)
    state = {name: (start, infer(start, batch, None)) for name, infer in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_iterations):
        for name, infer in ways.items():
            model, last = state[name]
            began = time.perf_counter()
            model = maximize(model, last, batch=batch, ridge=1e-3)
            last = infer(model, batch, last)
            times[name].append(time.perf_counter() - began)
            state[name] = model, last
    return {name: statistics.median(taken) for name, taken in times.items()}


def whole_fit(size: str) -> str:
    """Fit with the defaults."""
    _, batch = simulated(size)
    _, num_bins, num_neurons, dim = SIZES[size]
    heldin = tuple(range(num_neurons))
    spec = DataSpec(heldin, num_neurons, 0, num_bins, num_bins, 0.02)
    began = time.perf_counter()
    *_, last = EM(progress=False).iterations(LinearDynamics(spec, latent_dim=dim), batch)
    took = time.perf_counter() - began
    return f"{last.iteration} iterations, {took:.1f} s, bound {last.penalized:.0f}"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--iterations", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size in options.sizes:
        times = seconds_of(size, options.iterations)
        ratio = times["trial by trial"] / times["batched"]
        told = ", ".join(f"{name} {value:.3f} s" for name, value in times.items())
        print(f"{size} {SIZES[size]}: {told}, ratio {ratio:.1f}")
        print(f"  whole fit: {whole_fit(size)}")


if __name__ == "__main__":
    main()
