"""What a search gains over the fit that is made where no model is named, on trials of neither.

    python benchmarks/tuned_default.py --folder studies/default maze.h5 reaches.h5
    python benchmarks/tuned_default.py --folder studies/default taps.h5 --num_trials 300
    python benchmarks/tuned_default.py --folder studies/default --lorenz

A quarter of the trials is kept apart. ``tune`` tries settings on the others (dropout, learning rate
and weight decay; the first are the default's), by the bound of the held-in neurons on a fifth of
them. Then the first, the best, and the mean of the rates of the three best are scored on the
quarter, by the rates of held-out neurons: those that the file holds out, else a quarter of all.
Printed are the scores in bits per spike, and what the others gain over the first, paired, with its
standard error over trials.

What is done is kept in the folder, and the same command goes on.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recordings import parser_of, recordings
from scipy.special import xlogy

from seqvae import Arrays, NeuralData, infer, tune
from seqvae.data import Recording
from seqvae.runs import Run
from seqvae.scores.gain import paired_gain

TEST, VALIDATION, HELDOUT, SAMPLES, TOGETHER = 0.25, 0.2, 0.25, 50, 3


def divided(recording: Recording) -> NeuralData:
    """Return the recording with a quarter of its trials, and of its neurons, kept apart."""
    heldout = None if recording.heldin is not None else HELDOUT
    whole = Arrays(replace(recording, split=None))
    data = NeuralData(whole, val_fraction=VALIDATION, test_fraction=TEST, heldout=heldout)
    data.setup()
    return data


class Held:
    """What no inference sees of the test trials: held-out neurons that fire in training."""

    def __init__(self, data: NeuralData) -> None:
        self.data = data
        mean = data.train_mean.double().numpy()
        self.neurons = [neuron for neuron in data.spec.heldout if mean[neuron] > 0]
        counts = data.recording.read()[data.trials("test")]
        self.counts = counts[..., self.neurons].astype(float)
        self.null = self.log_likelihood(mean[self.neurons])
        self.size = torch.from_numpy(self.counts.sum((1, 2))) * log(2)

    def log_likelihood(self, expected: np.ndarray) -> torch.Tensor:
        """Return that of each trial, in nats, but for what no rate changes."""
        return torch.from_numpy((xlogy(self.counts, expected) - expected).sum((1, 2)))

    def of(self, *runs: Run) -> torch.Tensor:
        """Return the log-likelihood at the mean of the rates of some runs."""
        rates = np.mean([self.rates(run) for run in runs], axis=0)
        return self.log_likelihood(rates[..., self.neurons] * (self.data.spec.bin_width or 1.0))

    def rates(self, run: Run) -> np.ndarray:
        """Return the rates that a run infers from the neurons held in."""
        return infer(run, self.data, split="test", num_samples=SAMPLES)["rates"].values


def compared(name: str, recording: Recording, folder: Path, num_fits: int) -> str:
    """Search, and return what the best settings gain over the first."""
    given: dict[str, Any] = {"num_fits": num_fits, "out_dir": str(folder / name), "progress": False}
    study, held = tune(divided(recording), **given), Held(divided(recording))
    known = study.table.dropna(subset="score").sort_values("score", ascending=False)
    best = [study.run(int(number)) for number in known["number"][:TOGETHER]]
    first = held.of(study.run(0))

    def told(log_likelihood: torch.Tensor) -> str:
        score = float((log_likelihood - held.null).sum() / held.size.sum())
        gain = paired_gain(log_likelihood - first, held.size)
        paired = "" if gain is None else f" ({gain.mean:+.4f} +- {gain.standard_error:.4f})"
        return f"{score:.4f}{paired}"

    return (
        f"default {told(first).split()[0]}, best of {num_fits} fits {told(held.of(best[0]))}, "
        f"the {len(best)} best together {told(held.of(*best))}"
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--num_fits", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name, recording in recordings(arguments):
        print(f"{name}: {compared(name, recording, arguments.folder, arguments.num_fits)}")


if __name__ == "__main__":
    main()
