"""How often the band of a pilot recording holds what a recording of four times its trials gives.

    python benchmarks/power.py --folder cv/power
    python benchmarks/power.py --folder cv/power --families lds --num_sets 40

Each data set is drawn from a population of its own: random loadings of latents whose strengths fall
off, so that more trials tell of more of them. Its first 50 trials are the pilot, cross-validated on
a quarter, a half and all of its training trials; all 200 are cross-validated by the same command.
Printed are the share of sets in which the 90 % band of the pilot holds the score of the 200 trials,
its mean width, how far its middle is off (mean and standard deviation over sets); the same of the
chosen dimension, how often the middle of its band is right, and how often the pilot's own choice.

What is done is kept in the folder, and the same command goes on; other settings need another one.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from seqvae import EM, crossvalidate
from seqvae.crossvalidation.choice import choose
from seqvae.crossvalidation.growth import LEVEL, Curve, outlook
from seqvae.crossvalidation.table import Grid
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.models import FactorAnalysis, LinearDynamics
from seqvae.observations import Gaussian

PILOT, WHOLE = 50, 200
FRACTIONS = [0.25, 0.5, 1.0]
DIMS = [1, 2, 3, 4, 5]
STRENGTHS = [0.6, 0.4, 0.25, 0.15]
"""Of the latents, in units of the private noise."""


class Family(NamedTuple):
    """A model, and the data that it is right for."""

    counts: bool
    slowness: float
    model: Any
    learner: Any


FAMILIES = {
    "lds": Family(
        False, 0.9, partial(LinearDynamics, observation=Gaussian),
        EM(max_iterations=6, progress=False),
    ),
    "fa": Family(
        False, 0.0, partial(FactorAnalysis, observation=Gaussian, smoothing=0.0), None,
    ),
    "plds": Family(True, 0.9, LinearDynamics, EM(max_iterations=5, progress=False)),
}  # fmt: skip


def recording(family: Family, seed: int) -> np.ndarray:
    """Draw the 200 trials of a population of its own."""
    generator = np.random.default_rng(seed)
    strengths = np.array(STRENGTHS) * generator.uniform(0.7, 1.3, len(STRENGTHS))
    loadings = generator.standard_normal((12, len(strengths))) * strengths
    latents = generator.standard_normal((WHOLE, 10, len(strengths)))
    slow = family.slowness
    for time in range(1, 10):
        latents[:, time] = slow * latents[:, time - 1] + (1 - slow**2) ** 0.5 * latents[:, time]
    drive = latents @ loadings.T
    if family.counts:
        return np.minimum(generator.poisson(np.exp(drive - 0.7)), 50).astype(np.float32)
    return (drive + generator.standard_normal(drive.shape)).astype(np.float32)


def scored(family: Family, trials: np.ndarray, folder: str, subsample: list[float] | None) -> Any:
    """Cross-validate trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return crossvalidate(
            NeuralData(Arrays(trials, bin_width=0.02)), {"model": family.model},
            {} if family.learner is None else {"model": family.learner}, dims=DIMS,
            subsample=subsample, trial_folds=5, neuron_folds=2, num_samples=2, out_dir=folder,
            progress=False,
        )  # fmt: skip


def tables(family: Family, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores of the pilot's subsamples, and of all trials."""
    trials = recording(family, seed)
    with tempfile.TemporaryDirectory() as folder:
        scored(family, trials[:PILOT], f"{folder}/pilot", FRACTIONS)
        pilot = pd.read_csv(f"{folder}/pilot/subsamples.csv")
        return pilot, scored(family, trials, f"{folder}/whole", None).scores


class Answer(NamedTuple):
    """What became of one data set: ends and middle of both bands, and what the whole gave."""

    score: np.ndarray
    dim: np.ndarray
    whole_score: float
    whole_dim: int
    pilot_dim: int


def answer(pilot: pd.DataFrame, whole: pd.DataFrame, unit: str) -> Answer:
    """Extrapolate the pilot, and look at the whole."""
    fractions, parts = zip(*pilot.groupby("fraction"), strict=True)
    curve = Curve.of(parts, "model", trials=[one * PILOT for one in fractions], unit=unit)
    grid = Grid(whole, "model")
    assert curve is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        now = choose(curve.gains[-1], curve.dims).dim
        later = choose(grid.scores, grid.dims).dim
    drawn = outlook(curve, float(WHOLE), rule="paired_1se", chosen=now)
    ends = ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2)
    return Answer(
        np.quantile(drawn.score, ends),
        np.quantile(drawn.dim, ends, method="inverted_cdf"),
        grid.zero(unit) + float(grid.of(later).sum()) / grid.unit_size(unit),
        later,
        now,
    )


def line(name: str, answers: list[Answer]) -> str:
    """Lay out the answers of a family."""
    score, dim = (np.array([getattr(one, key) for one in answers]) for key in ("score", "dim"))
    scores = np.array([one.whole_score for one in answers])
    dims = np.array([one.whole_dim for one in answers])
    now = np.array([one.pilot_dim for one in answers])
    held = (score[:, 0] <= scores) & (scores <= score[:, 2])
    held_dim = (dim[:, 0] <= dims) & (dims <= dim[:, 2])
    miss = score[:, 1] - scores
    return (
        f"{name:6}{held.mean():8.3f}{np.ptp(score, axis=1).mean():9.4f}{miss.mean():9.4f}"
        f"{miss.std():8.4f}{held_dim.mean():9.3f}{np.ptp(dim, axis=1).mean():7.2f}"
        f"{(dim[:, 1] == dims).mean():8.2f}{(now == dims).mean():7.2f}{len(answers):6}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--families", nargs="+", default=["lds", "fa"], choices=list(FAMILIES))
    parser.add_argument("--num_sets", type=int, default=40)
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    answers: dict[str, list[Answer]] = {name: [] for name in arguments.families}
    for seed in range(arguments.num_sets):
        for name in arguments.families:
            paths = [folder / f"{name}_{seed}_{part}.csv" for part in ("pilot", "whole")]
            if not all(path.exists() for path in paths):
                for path, table in zip(paths, tables(FAMILIES[name], seed), strict=True):
                    table.to_csv(path, index=False)
            unit = "bits_per_spike" if FAMILIES[name].counts else "log_likelihood"
            answers[name].append(answer(*map(pd.read_csv, paths), unit))
    print(f"{'':6}{'score':>8}{'width':>9}{'miss':>9}{'sd':>8}{'dim':>9}{'width':>7}", end="")
    print(f"{'middle':>8}{'pilot':>7}{'sets':>6}")
    for name, each in answers.items():
        print(line(name, each))


if __name__ == "__main__":
    main()
