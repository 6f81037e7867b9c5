"""Peak memory of one process that fits hours of spike times of 200 neurons, one after another."""

from __future__ import annotations

import argparse
import gc
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from hour import rates_of
from pytorch_lightning import Trainer

from seqvae import GradientLearner, NeuralData, SequentialVAE, fit
from seqvae.data.sources import SpikeTimes

REPORTED = (1, 2, 5, 10, 25, 50, 100)


def write_spikes(path: Path, *, seconds: int, neurons: int, seed: int) -> None:
    """Write the times of Poisson spikes of neurons that share slow latents."""
    generator = np.random.default_rng(seed)
    times, units = [], []
    for start, rates in rates_of(generator, seconds, neurons):
        counts = generator.poisson(rates)
        bins, columns = np.nonzero(counts)
        repeats = counts[bins, columns]
        bins, columns = np.repeat(bins, repeats), np.repeat(columns, repeats)
        times.append((start + bins + generator.random(len(bins))) * 0.02)
        units.append(columns.astype(np.uint16))
    np.savez(path, spike_times=np.concatenate(times), neuron_ids=np.concatenate(units))


def main() -> None:
    """Print the peak after some of the recordings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--neurons", type=int, default=200)
    parser.add_argument("--bin_width", type=float, default=0.01)
    parser.add_argument("--steps", type=int, default=10, help="of learning, of each")
    parser.add_argument("--write", type=Path, help="write one recording here, and no more")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sizes = {"seconds": options.seconds, "neurons": options.neurons}
    if options.write:
        write_spikes(options.write, **sizes, seed=options.seed)
        return
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.npz"
        for number in range(1, options.recordings + 1):
            arguments = [f"--{name}={size}" for name, size in sizes.items()]
            write = [sys.executable, __file__, f"--write={path}", f"--seed={number}"]
            subprocess.run([*write, *arguments], check=True)  # its memory is not ours
            source = SpikeTimes(str(path), options.bin_width, [0.0, float(options.seconds)])
            trainer = partial(
                Trainer,
                max_epochs=1,
                limit_train_batches=options.steps,
                limit_val_batches=1,
                enable_progress_bar=False,
                logger=False,
            )
            data = NeuralData(source, window_bins=100, batch_size=32, eval_batch_size=64)
            run = fit(data, SequentialVAE, GradientLearner(trainer=trainer), in_memory=True)
            assert len(run.history)
            del data, run
            gc.collect()
            if number in REPORTED or number == options.recordings:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
                spent = time.perf_counter() - start
                size = path.stat().st_size / 1e6
                print(f"{number:3d} recordings of {size:.0f} MB: {peak:.2f} GB at most, "
                      f"{spent:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
