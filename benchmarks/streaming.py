"""How long a causal model takes from a bin to its rates, on one core, at the size of the maze."""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from seqvae import LinearDynamics
from seqvae.runs import Stream
from seqvae.types import DataSpec


def main() -> None:
    """Print median, 99th percentile and longest latency; bins are random counts.

    On the clock a busy machine takes its share; on one core counts what the work itself takes.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", type=int, default=182)
    parser.add_argument("--heldin", type=int, default=122)
    parser.add_argument("--latent_dims", type=int, nargs="+", default=[8, 20, 40])
    parser.add_argument("--bins", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=0.1, help="counts per bin")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size in options.latent_dims:
        spec = DataSpec(tuple(range(options.heldin)), options.neurons, 0, 140, 140, 0.005)
        torch.manual_seed(0)
        model = LinearDynamics(spec, latent_dim=size)
        readout = model.observation.readout
        torch.nn.init.normal_(readout.weight, std=0.5 * size**-0.5)
        torch.nn.init.constant_(readout.bias, float(np.log(options.rate)))
        counts = np.random.default_rng(0).poisson(options.rate, (options.bins, options.neurons))
        stream = Stream(model)
        seconds = np.empty(options.bins)
        for place, row in enumerate(counts):
            start = time.thread_time()
            stream.step(row)
            seconds[place] = time.thread_time() - start
        median, late, longest = 1e3 * np.quantile(seconds, [0.5, 0.99, 1.0])
        print(f"{size} latents, {options.heldin} of {options.neurons} neurons held in\n"
              f"  on the clock: {stream}\n  on one core:  median {median:.2f} ms, "
              f"p99 {late:.2f} ms, longest {longest:.2f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
