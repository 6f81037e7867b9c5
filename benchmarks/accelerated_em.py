"""EM of Poisson linear dynamics with and without acceleration, in turn, on a recording.

    python benchmarks/accelerated_em.py FILE.h5 --dims 4 8 12

For each dimension: plain EM by its defaults, accelerated EM by ``--acceleration`` and
``--tolerance``, and accelerated EM without tolerance until the bound at which plain EM ended.
Seconds are those of the processor, by one thread, both starts included; bounds are in nats a trial,
of the training trials. The gain is in bits per spike of the held-out neurons of validation trials
(rates of the
posterior mean), accelerated less plain, paired over trials, with its standard error.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import torch
from torch import Tensor

from seqvae import NeuralData
from seqvae.learning import EM
from seqvae.learning.expectation_maximization import Iteration
from seqvae.models import LinearDynamics


class Fit(NamedTuple):
    """A fit: its last iteration, seconds, and bits per spike of each validation trial."""

    last: Iteration
    seconds: float
    bits: Tensor


def fitted(
    data: NeuralData, dim: int, learner: EM, goal: float | None = None
) -> tuple[LinearDynamics, Iteration, float]:
    """Learn until the learner's end, or until the bound is ``goal``."""
    torch.manual_seed(0)
    model = LinearDynamics(data.spec, latent_dim=dim)
    batch = model.scored(data.batch(data.trials("train"))).to(model.offset)
    began = time.process_time()
    for state in learner.iterations(model, batch):
        if goal is not None and state.penalized >= goal:
            break
    seconds = time.process_time() - began
    model.take(learner.finished(state, batch))
    return model, state, seconds


def bits(model: LinearDynamics, data: NeuralData) -> Tensor:
    """Log-likelihood of the held-out neurons over that of their mean rates, in bits per spike."""
    neurons = list(data.spec.heldout)
    train, batch = (data.batch(data.trials(part)) for part in ("train", "val"))
    null = train.target.double().mean((0, 1))[neurons].clamp_min(1e-9)
    counts = batch.target.double()[..., neurons]
    posterior = model(batch, 1).latents["latents"].posterior
    emission = model.state_space.emission.select(neurons)
    spread = emission.spread(posterior.covariance)
    rate = emission.response(emission.predictor(posterior.mean), spread).mean
    gain = counts * (rate.log() - null.log()) - rate + null
    spikes = counts.sum((1, 2)).mean()
    return gain.sum((1, 2)) / spikes / torch.log(torch.tensor(2.0))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--dims", nargs="+", type=int, default=[4, 8, 12])
    parser.add_argument("--acceleration", type=int, default=10)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = NeuralData(options.file)
    plain = EM(progress=False)
    ended = EM(progress=False, acceleration=options.acceleration, tolerance=options.tolerance)
    endless = EM(progress=False, acceleration=options.acceleration, tolerance=0.0)
    for dim in options.dims:
        fits = []
        for learner in (plain, ended):
            model, last, seconds = fitted(data, dim, learner)
            fits.append(Fit(last, seconds, bits(model, data)))
        one, other = fits
        _, reached, until = fitted(data, dim, endless, goal=one.last.penalized)
        trials = len(one.last.terms.elbo)
        gain = other.bits - one.bits
        print(
            f"{dim} latents: plain {one.last.iteration} iterations, {one.seconds:.1f} s; "
            f"accelerated {other.last.iteration}, {other.seconds:.1f} s, "
            f"ratio {one.seconds / other.seconds:.1f}, "
            f"bound {(other.last.penalized - one.last.penalized) / trials:+.2f}, "
            f"co_bps {float(one.bits.mean()):.4f} and {float(gain.mean()):+.4f} "
            f"+- {float(gain.std()) / len(gain) ** 0.5:.4f}; "
            f"plain's bound {'after' if reached.penalized >= one.last.penalized else 'not in'} "
            f"{reached.iteration}, {until:.1f} s, ratio {one.seconds / until:.1f}"
        )


if __name__ == "__main__":
    main()
