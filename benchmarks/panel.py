"""How many latents each estimator finds in populations whose number is known.

    python benchmarks/panel.py --folder cv/panel --num_sets 60

Counts of random populations: true D of 1, 2, 3, 5, 8 slow latents (linear dynamics, log rates), 25
to 400 trials of 20 bins, mean rates of .02 to .5 per bin, 16 to 32 neurons, each drawn anew for
every set. Adversaries (D = 3, 100 trials, rate .2): private slow noise, a common gain, duplicated
units, drift over trials, a ring (one circular latent, bell-shaped tuning), and entries that are
shuffled within each neuron (as many sets as there are random ones, of 50 trials), where nothing is
shared. Cross-validation is that of factor analysis of activity smoothed over two bins, fold-in, 5 x
4 folds, rule ``paired_1se``, with the dimensions that it does not exclude at 95 %.

What is done is kept in the folder, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from seqvae import crossvalidate
from seqvae.crossvalidation.panel.estimates import estimates
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.models import FactorAnalysis

TRUE, TRIALS, RATES, BINS = (1, 2, 3, 5, 8), (25, 50, 100, 200, 400), (0.02, 0.1, 0.5), 20
DIMS = [1, 2, 3, 4, 5, 6, 8, 10]
MODEL = partial(FactorAnalysis, smoothing=0.04)
ADVERSARIES = ("private", "gain", "duplicates", "drift", "ring", "shuffled")
SHORT = {"parallel": "flips", "hard": "threshold", "participation": "ratio", "factor": "ard"}


def slow(shape: tuple[int, ...], generator: np.random.Generator) -> Float[np.ndarray, "..."]:
    """Draw AR(1) paths of unit variance along axis 1, which keep .9 of a bin."""
    steps = generator.standard_normal(shape)
    paths = np.empty(shape)
    paths[:, 0] = steps[:, 0]
    for time_bin in range(1, shape[1]):
        paths[:, time_bin] = 0.9 * paths[:, time_bin - 1] + np.sqrt(1 - 0.81) * steps[:, time_bin]
    return paths


def population(
    dim: int, num_trials: int, rate: float, *, adversary: str, seed: int
) -> Float[np.ndarray, "trial time neuron"]:
    """Draw counts."""
    generator = np.random.default_rng(seed)
    neurons = int(generator.integers(16, 33))
    strength = generator.uniform(0.3, 0.7, dim)
    loadings = generator.standard_normal((neurons, dim)) * strength
    log_rate = slow((num_trials, BINS, dim), generator) @ loadings.T
    if adversary == "ring":
        angle = np.cumsum(0.4 * generator.standard_normal((num_trials, BINS)), axis=1)
        angle += generator.uniform(0, 2 * np.pi, (num_trials, 1))
        preferred = generator.uniform(0, 2 * np.pi, neurons)
        log_rate = 2.0 * np.cos(angle[..., None] - preferred)
    if adversary == "private":
        log_rate += 0.5 * slow((num_trials, BINS, neurons), generator)
    if adversary == "gain":
        log_rate += 0.5 * slow((num_trials, BINS, 1), generator)
    if adversary == "drift":
        walk = generator.standard_normal((num_trials, 1, neurons)).cumsum(axis=0)
        log_rate += 0.5 * walk / np.sqrt(num_trials)
    base = rate * generator.lognormal(0.0, 0.5, neurons)
    log_rate += np.log(base) - np.log(np.exp(log_rate).mean(axis=(0, 1)))
    counts = np.minimum(generator.poisson(np.exp(log_rate)), 50).astype(np.float32)
    if adversary == "duplicates":
        counts = np.concatenate([counts, counts[..., :6]], axis=2)
    if adversary == "shuffled":
        rows = counts.reshape(-1, neurons)
        counts = generator.permuted(rows, axis=0).reshape(counts.shape)
    return counts


def answers(counts: Float[np.ndarray, "trial time neuron"], seed: int) -> dict[str, Any]:
    """Ask every estimator."""
    began = time.monotonic()
    told = {
        SHORT[one.estimator.split()[0]]: one.dimension
        for one in estimates(counts, counts=True, seed=seed)
    }
    of_panel = time.monotonic() - began
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = crossvalidate(
            NeuralData(Arrays(counts, bin_width=0.02)), {"fa": MODEL}, dims=DIMS, num_samples=5,
            out_dir=f"{folder}/cv", seed=seed, progress=False,
        )  # fmt: skip
    assert found.summary is not None
    entry = found.summary["models"]["fa"]
    seconds = [of_panel, time.monotonic() - began - of_panel]
    told |= {"cv": entry["chosen_dim"], "set": entry["confidence_set"], "seconds": seconds}
    return told


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a file holds, made first if it is not there."""
    if not path.exists():
        path.write_text(json.dumps(make()))
    answer: dict[str, Any] = json.loads(path.read_text())
    return answer


COLUMNS = ("cv", "flips", "threshold", "ratio", "ard")


def rates_line(name: str, done: Sequence[dict[str, Any]]) -> str:
    """Too few / right / too many of each estimator, in per cent, and of the set."""
    cells = []
    for column in COLUMNS:
        off = [round(each[column]) - each["true"] for each in done if each[column] is not None]
        shares = [np.mean([np.sign(one) == sign for one in off]) for sign in (-1, 0, 1)]
        cells.append("/".join(f"{100 * share:.0f}" for share in shares))
    held = np.mean([each["true"] in each["set"] for each in done])
    size = np.mean([len(each["set"]) for each in done])
    return "".join(f"{cell:>13}" for cell in (name, *cells, f"{held:.2f}", f"{size:.1f}", len(done)))


def adversary_line(name: str, done: Sequence[dict[str, Any]]) -> str:
    """The answers of each estimator, the most frequent first."""
    cells = []
    for column in COLUMNS:
        values = [round(each[column]) for each in done if each[column] is not None]
        most = Counter(values).most_common(3)
        cells.append(" ".join(f"{value}:{100 * times // len(values)}" for value, times in most))
    return f"{name:12}" + "".join(f"{cell:>18}" for cell in cells) + f"{len(done):5}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--num_sets", type=int, default=60)
    parser.add_argument("--num_adversaries", type=int, default=20)
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    done: list[dict[str, Any]] = []
    of_adversary: dict[str, list[dict[str, Any]]] = {name: [] for name in ADVERSARIES}
    for seed in range(max(arguments.num_sets, arguments.num_adversaries)):
        if seed < arguments.num_sets:
            draw = np.random.default_rng([7, seed])
            dim = TRUE[seed % len(TRUE)]
            trials, rate = int(draw.choice(TRIALS)), float(draw.choice(RATES))
            answer = kept(
                folder / f"random_{seed}.json",
                lambda: answers(population(dim, trials, rate, adversary="", seed=seed), seed),
            )
            done.append(answer | {"true": dim, "trials": trials, "rate": rate})
        for name in ADVERSARIES if seed < arguments.num_adversaries else ("shuffled",):
            size = 50 if name == "shuffled" else 100
            answer = kept(
                folder / f"{name}_{seed}.json",
                lambda: answers(population(3, size, 0.2, adversary=name, seed=seed), seed),
            )
            of_adversary[name].append(answer)
        print(f"set {seed}", end="\r", flush=True)
    print("too few / right / too many, per cent; the confidence set: coverage and size")
    print("".join(f"{name:>13}" for name in ("", *COLUMNS, "in set", "set size", "sets")))
    print(rates_line("all", done))
    for key, values in (("true", TRUE), ("trials", TRIALS), ("rate", RATES)):
        for value in values:
            if some := [each for each in done if each[key] == value]:
                print(rates_line(f"{key} {value}", some))
    print("\nanswer: per cent of sets, of D = 3")
    print(f"{'':12}" + "".join(f"{name:>18}" for name in COLUMNS) + f"{'sets':>5}")
    for name, some in of_adversary.items():
        if some:
            print(adversary_line(name, some))


if __name__ == "__main__":
    main()
