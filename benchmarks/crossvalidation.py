"""How busy a grid of short cells keeps its workers.

A hundred cells of about a tenth of a second, whose learning is a pause, are done by warm workers;
what is printed is the time spent in cells over the time that the workers had. Where it falls short
of one, the rest went to handing out jobs, reading recordings and writing results.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from seqvae import NeuralData, crossvalidate
from seqvae.data.sources import Arrays
from seqvae.learning import Learner
from seqvae.learning.observers import Observer
from seqvae.models import LinearDynamics


@dataclass(frozen=True)
class Pause(Learner):
    """Learns nothing, for a while."""

    learns: ClassVar[type] = LinearDynamics
    seconds: float = 0.08

    def check(self, model: Any, data: NeuralData, *, checkpoint: Path | None = None) -> None:
        """Accept everything."""

    def learn(
        self,
        model: Any,
        data: NeuralData,
        *,
        observers: Sequence[Observer] = (),
        checkpoint: Path | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Wait."""
        time.sleep(self.seconds)


def grid(folder: str, *, dims: list[int], seeds: int, jobs: int) -> tuple[int, float, float]:
    """Return the number of cells, the seconds spent in them, and those that passed."""
    counts = np.random.default_rng(0).poisson(0.5, size=(200, 50, 60)).astype(np.float32)
    data = NeuralData(Arrays(counts, bin_width=0.02))
    began = time.monotonic()
    found = crossvalidate(
        data, {"lds": LinearDynamics}, {"lds": Pause()}, dims=dims, trial_folds=5, neuron_folds=2,
        seeds=seeds, num_samples=1, jobs=jobs, out_dir=folder, progress=False,
    )  # fmt: skip
    passed = time.monotonic() - began
    cells = found.scores.drop_duplicates(["model", "dim", "trial_fold", "seed"])
    return len(cells), float(cells["seconds"].sum()), passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        grid(f"{folder}/warm", dims=[1], seeds=1, jobs=arguments.jobs)
        number, spent, passed = grid(
            f"{folder}/cv", dims=[1, 2, 3, 4, 5], seeds=4, jobs=arguments.jobs
        )
    share = spent / (arguments.jobs * passed)
    print(f"{number} cells of {spent / number:.3f} s by {arguments.jobs} workers in {passed:.2f} s")
    print(f"workers busy: {share:.0%} (plan, table and figure included)")


if __name__ == "__main__":
    main()
