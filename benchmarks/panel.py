"""How many latents each estimator finds in populations whose number is known.

    python benchmarks/panel.py --folder cv/panel

Counts of random populations: true D of 1, 2, 3, 5, 8 slow latents (linear dynamics, log rates), 25
to 400 trials of 20 bins, mean rates of .02 to .5 per bin, 16 to 32 neurons, each drawn anew for
every set. Adversaries (D = 3, 100 trials, rate .2): private slow noise, a common gain, duplicated
units, drift over trials, a ring (one circular latent, bell-shaped tuning), and entries that are
shuffled within each neuron (as many sets as there are random ones, of 50 trials), where nothing is
shared. Cross-validation is that of factor analysis of activity smoothed over two bins, fold-in, 3 x
4 folds, rule ``paired_1se``, with the dimensions that it does not exclude at 95 %.

It takes most of the time, and is asked of the first sets only. What is done is kept in the folder,
and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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


def slow(shape: tuple[int, ...], generator: np.random.Generator) -> Float[np.ndarray, ...]:
    """Draw AR(1) paths of unit variance along axis 1, which keep .9 of a bin."""
    steps = generator.standard_normal(shape)
    paths = np.empty(shape)
    paths[:, 0] = steps[:, 0]
    for bin_ in range(1, shape[1]):
        paths[:, bin_] = 0.9 * paths[:, bin_ - 1] + np.sqrt(1 - 0.81) * steps[:, bin_]
    return paths


class Set(NamedTuple):
    """What a data set is drawn with."""

    dim: int
    num_trials: int
    rate: float
    adversary: str
    seed: int


def sets(num_sets: int, adversary: str = "") -> list[Set]:
    """Return the sets of a kind; what is drawn of a set is a function of its number."""
    if adversary:
        size = 50 if adversary == "shuffled" else 100
        return [Set(3, size, 0.2, adversary, seed) for seed in range(num_sets)]
    draws = [np.random.default_rng([7, seed]) for seed in range(num_sets)]
    return [
        Set(TRUE[seed % len(TRUE)], int(draw.choice(TRIALS)), float(draw.choice(RATES)), "", seed)
        for seed, draw in enumerate(draws)
    ]


def population(place: Set) -> Float[np.ndarray, "trial time neuron"]:
    """Draw counts."""
    dim, num_trials, rate, adversary, seed = place
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


def of_panel(counts: Float[np.ndarray, "trial time neuron"], seed: int) -> dict[str, Any]:
    """Ask every estimator of the panel."""
    return {
        SHORT[one.estimator.split()[0]]: one.dimension
        for one in estimates(counts, counts=True, seed=seed)
    }


def of_rule(counts: Float[np.ndarray, "trial time neuron"], seed: int) -> dict[str, Any]:
    """Cross-validate: the chosen dimension, and those that are not excluded."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = crossvalidate(
            NeuralData(Arrays(counts, bin_width=0.02)), {"fa": MODEL}, dims=DIMS, num_samples=5,
            trial_folds=3, out_dir=f"{folder}/cv", seed=seed, progress=False,
        )  # fmt: skip
    assert found.summary is not None
    entry = found.summary["models"]["fa"]
    return {"cv": entry["chosen_dim"], "set": entry["confidence_set"]}


def kept(folder: Path, place: Set, *, ask: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Return the answers for a set from the folder, asked first if they are not there."""
    path = folder / f"{ask.__name__}_{place.adversary or 'random'}_{place.seed}.json"
    if not path.exists():
        path.write_text(json.dumps(ask(population(place), place.seed)))
    told: dict[str, Any] = json.loads(path.read_text())
    return told


COLUMNS = ("cv", "flips", "threshold", "ratio", "ard")


def rates_line(name: str, done: Sequence[dict[str, Any]]) -> str:
    """Too few / right / too many of each estimator, in per cent, and of the set."""
    cells = []
    for column in COLUMNS:
        off = [round(each[column]) - each["true"] for each in done if each.get(column) is not None]
        shares = [np.mean([np.sign(one) == sign for one in off]) for sign in (-1, 0, 1) if off]
        cells.append("/".join(f"{100 * share:.0f}" for share in shares))
    ruled = [each for each in done if "set" in each]
    held = [each["true"] in each["set"] for each in ruled]
    cells += [f"{sum(held)}/{len(ruled)}"]
    cells += [f"{np.mean([len(each['set']) for each in ruled]):.1f}" if ruled else "-"]
    return "".join(f"{cell:>13}" for cell in (name, *cells, len(done)))


def adversary_line(name: str, done: Sequence[dict[str, Any]]) -> str:
    """The answers of each estimator and how often they were given, the most frequent first."""
    cells = []
    for column in COLUMNS:
        values = [round(each[column]) for each in done if each.get(column) is not None]
        most = Counter(values).most_common(3)
        cells.append(" ".join(f"{value}:{times}/{len(values)}" for value, times in most))
    return f"{name:12}" + "".join(f"{cell:>24}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--num_sets", type=int, default=100)
    parser.add_argument("--num_adversaries", type=int, default=20)
    parser.add_argument("--num_crossvalidated", type=int, default=40)
    parser.add_argument("--num_ruled_adversaries", type=int, default=8)
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"": (arguments.num_sets, arguments.num_crossvalidated)}
    whole |= dict.fromkeys(
        ADVERSARIES, (arguments.num_adversaries, arguments.num_ruled_adversaries)
    )
    whole["shuffled"] = whole[""]
    done = {
        name: [kept(folder, one, ask=of_panel) | {"true": one.dim, "trials": one.num_trials,
                                                  "rate": one.rate} for one in sets(size, name)]
        for name, (size, _) in whole.items()
    }  # fmt: skip
    for seed in range(max(size for _, size in whole.values())):
        for name, (_, size) in whole.items():
            if seed < size:
                done[name][seed] |= kept(folder, sets(seed + 1, name)[seed], ask=of_rule)
    print("too few / right / too many, per cent; the confidence set: how often it holds, its size")
    print("".join(f"{name:>13}" for name in ("", *COLUMNS, "in set", "set size", "sets")))
    print(rates_line("all", done[""]))
    for key, values in (("true", TRUE), ("trials", TRIALS), ("rate", RATES)):
        for value in values:
            if some := [each for each in done[""] if each[key] == value]:
                print(rates_line(f"{key} {value}", some))
    print("\nanswers and how often, of D = 3")
    print(f"{'':12}" + "".join(f"{name:>24}" for name in COLUMNS))
    for name in ADVERSARIES:
        print(adversary_line(name, done[name]))


if __name__ == "__main__":
    main()
