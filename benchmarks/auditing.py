"""How often the verdict of an audit names a planted fault of a posterior, and a sound one.

    python benchmarks/auditing.py --folder audits
    python benchmarks/auditing.py --folder audits --faults exact --num_sets 300 --by simulated

Each set is a linear dynamical system of 2 latents drawn at random, with Gaussian readout of 6
channels over 16 bins, so that its posterior is exact and correlated over time and latents. It is
audited as it is, and with a fault. Printed are the shares of sets in which the verdict raises an
alarm and in which it says the right words, from simulated trials (simulation-based calibration),
from one trial against NUTS, and from both.

What is done is kept in the folder, and the same command goes on; other settings need another one.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Normal

from seqvae.analysis.audit import (
    Departure,
    compare,
    judge,
    reference_posterior,
    simulation_based_calibration,
    what_is_seen,
)
from seqvae.analysis.audit.calibration import simulated_batch
from seqvae.distributions import GaussianMarkovChain
from seqvae.linalg import BlockTridiagonal
from seqvae.models import LinearDynamics
from seqvae.observations import Gaussian
from seqvae.state_space import Dynamics, GaussianEmission, LinearStateSpace
from seqvae.types import Batch, DataSpec, Output

LATENTS, CHANNELS, BINS = 2, 6, 16
Maker = Callable[[int, list[str]], dict[str, list[Departure]]]


def scaled(posterior: GaussianMarkovChain, variance: float) -> Distribution:
    """Return the posterior with another variance and the same correlations."""
    precision = posterior.precision
    parts = precision.diagonal / variance, precision.lower / variance
    return GaussianMarkovChain(posterior.mean, BlockTridiagonal(*parts), validate_args=False)


def shifted(posterior: GaussianMarkovChain) -> Distribution:
    """Return the posterior with all means .3 standard deviations too high."""
    mean = posterior.mean + 0.3 * posterior.variance.sqrt()
    return GaussianMarkovChain(mean, posterior.precision, validate_args=False)


FAULTS: dict[str, tuple[str, Callable[[GaussianMarkovChain], Distribution] | None]] = {
    "exact": ("", None),
    "variance x .5": ("narrow", lambda posterior: scaled(posterior, 0.5)),
    "variance x .8": ("narrow", lambda posterior: scaled(posterior, 0.8)),
    "mean + .3 sd": ("mean", shifted),
    "diagonal": ("dependence", lambda posterior: Normal(posterior.mean, posterior.variance.sqrt())),
}
"""What the verdict should say, and how the posterior is changed."""


class Faulty(LinearDynamics):
    """Its posterior is changed before anything is drawn from it."""

    change: Callable[[GaussianMarkovChain], Distribution] | None = None

    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        """Infer exactly, change that, and draw."""
        output = super().forward(batch, num_samples)
        latent = output.latents["latents"]
        if self.change is None:
            return output
        assert isinstance(latent.posterior, GaussianMarkovChain)
        posterior = self.change(latent.posterior)
        sample = posterior.rsample(Size((num_samples,)))
        latents = {"latents": latent._replace(posterior=posterior, sample=sample)}
        return Output(latents, sample, self.observation(sample))


def system(seed: int, fault: str) -> Faulty:
    """Draw a model."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    skew, root, identity = 0.3 * normal(2, 2), 0.2 * normal(2, 2), torch.eye(2).double()
    dynamics = Dynamics(
        transition=0.95 * torch.linalg.matrix_exp(skew - skew.mT),
        input_matrix=normal(LATENTS, 0),
        offset=0.05 * normal(LATENTS),
        noise_covariance=0.1 * identity + 0.1 * root @ root.mT,
        initial_mean=0.5 * normal(LATENTS),
        initial_covariance=identity + root @ root.mT,
    )
    std = 0.5 + 0.1 * normal(CHANNELS).abs()
    emission = GaussianEmission(
        0.5 * normal(CHANNELS, LATENTS), normal(CHANNELS), std, torch.full_like(std, 1e-3)
    )
    spec = DataSpec(tuple(range(CHANNELS)), CHANNELS, 0, BINS, BINS, 0.02)
    model = Faulty(spec, latent_dim=LATENTS, observation=Gaussian)
    model.take(LinearStateSpace(dynamics, emission))
    model.null_counts.fill_(1.0)
    model.change = FAULTS[fault][1]
    return model


def by_simulation(seed: int, faults: list[str]) -> dict[str, list[Departure]]:
    """Return the departures that simulated trials tell, of each fault."""
    return {
        fault: [
            each
            for calibration in simulation_based_calibration(system(seed, fault), seed=seed).values()
            for each in calibration.departures
        ]
        for fault in faults
    }


def by_sampling(seed: int, faults: list[str]) -> dict[str, list[Departure]]:
    """Return the departures of one trial from NUTS, of each fault; the true one is the same."""
    model = system(seed, "exact")
    torch.manual_seed(seed)
    activity = model.sample(1).emission.sample()[0].to(model.null_counts)
    trial = what_is_seen(simulated_batch(model, activity), model.spec.heldin)
    reference = reference_posterior(model, trial, seed=seed)
    return {
        fault: compare(system(seed, fault), trial, reference, seed=seed).departures
        for fault in faults
    }


def kept(path: Path, make: Maker, seed: int, faults: list[str]) -> dict[str, list[Departure]]:
    """Return what is in the file, where what is missing is written first."""
    done = json.loads(path.read_text()) if path.exists() else {}
    if missing := [fault for fault in faults if fault not in done]:
        done |= make(seed, missing)
        path.write_text(json.dumps(done))
    return {fault: [Departure(*each) for each in done[fault]] for fault in faults}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--num_sets", type=int, default=20)
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--by", nargs="+", default=["simulated", "sampled"])
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    makers = {"simulated": by_simulation, "sampled": by_sampling}
    parts = {
        name: [
            kept(folder / f"{name}_{seed}.json", makers[name], seed, arguments.faults)
            for seed in range(arguments.num_sets)
        ]
        for name in arguments.by
    }
    print(f"{'fault':16}{'by':22}{'alarm':>8}{'named':>8}{'sets':>6}")
    together = [[name] for name in parts] + ([list(parts)] if len(parts) > 1 else [])
    for fault in arguments.faults:
        for names in together:
            verdicts = [
                judge({name: parts[name][seed][fault] for name in names})
                for seed in range(arguments.num_sets)
            ]
            word = FAULTS[fault][0]
            alarm = math.fsum(bool(verdict.alarms) for verdict in verdicts) / len(verdicts)
            named = math.fsum(word in verdict.faults for verdict in verdicts) / len(verdicts)
            right = f"{named:8.2f}" if word else f"{'-':>8}"
            print(f"{fault:16}{' and '.join(names):22}{alarm:8.3f}{right}{len(verdicts):6}")


if __name__ == "__main__":
    main()
