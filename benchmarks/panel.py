"""How many latents each estimator finds in populations whose number is known.

    python benchmarks/panel.py --folder cv/panel

Counts of random populations: true D of 1, 2, 3, 5, 8 slow latents (linear dynamics, log rates), 25
to 400 trials of 20 bins, mean rates of .02 to .5 per bin, 16 to 32 neurons, each drawn anew for
every set. Adversaries (D = 3, 100 trials, rate .2): private slow noise, a common gain, duplicated
units, drift over trials, a ring (one circular latent, bell-shaped tuning), and entries that are
shuffled within each neuron (as many sets as there are random ones, of 50 trials), where nothing is
shared. Cross-validation, rule ``paired_1se``, is of components of the matrix (``gabriel``, 5 x 4
folds), with the dimensions that are not excluded at 95 %, and, of fewer sets, as it takes most of
the time, of factor analysis of activity smoothed over two bins (``fold_in``, 3 x 4 folds).

What is done is kept in the folder, and the same command goes on.
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
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from seqvae import crossvalidate
from seqvae.crossvalidation.panel.estimates import estimates
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.models import PCA, FactorAnalysis

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


def of_components(counts: Float[np.ndarray, "trial time neuron"], seed: int) -> dict[str, Any]:
    """Cross-validate components of the matrix of all bins, scheme gabriel, 5 x 4 folds."""
    chosen, among = crossvalidated(counts, seed, {"pca": PCA}, folds=5, scheme="gabriel")
    return {"gabriel": chosen, "set": among}


def of_factors(counts: Float[np.ndarray, "trial time neuron"], seed: int) -> dict[str, Any]:
    """Cross-validate factor analysis, scheme fold_in, 3 x 4 folds."""
    chosen, among = crossvalidated(counts, seed, {"fa": MODEL}, folds=3, scheme="fold_in")
    return {"fold_in": chosen, "fold_in_set": among}


def crossvalidated(
    counts: Float[np.ndarray, "trial time neuron"], seed: int, models: dict[str, Any], *,
    folds: int, scheme: Literal["gabriel", "fold_in"],
) -> tuple[int, list[int]]:  # fmt: skip
    """Return the chosen dimension, and those that are not excluded."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = crossvalidate(
            NeuralData(Arrays(counts, bin_width=0.02)), models, dims=DIMS, num_samples=5,
            trial_folds=folds, scheme=scheme, out_dir=f"{folder}/cv", seed=seed, progress=False,
        )  # fmt: skip
    assert found.summary is not None
    (entry,) = found.summary["models"].values()
    return entry["chosen_dim"], entry["confidence_set"]


def kept(folder: Path, place: Set, *, ask: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Return the answers for a set from the folder, asked first if they are not there."""
    path = folder / f"{ask.__name__}_{place.adversary or 'random'}_{place.seed}.json"
    if not path.exists():
        path.write_text(json.dumps(ask(population(place), place.seed)))
    told: dict[str, Any] = json.loads(path.read_text())
    return told


COLUMNS = ("fold_in", "gabriel", "flips", "threshold", "ratio", "ard")


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
    parser.add_argument("--num_sets", type=int, default=60)
    parser.add_argument("--num_adversaries", type=int, default=12)
    parser.add_argument("--num_factors", type=int, default=20, help="sets of the slowest, fold_in")
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"": sets(arguments.num_sets)}
    whole |= {name: sets(arguments.num_adversaries, name) for name in ADVERSARIES}
    whole["shuffled"] = sets(arguments.num_sets, "shuffled")
    done = {
        name: [{"true": one.dim, "trials": one.num_trials, "rate": one.rate} for one in places]
        for name, places in whole.items()
    }
    few = arguments.num_factors // 5
    for ask, most, most_of_adversary in (
        (of_panel, arguments.num_sets, arguments.num_sets),
        (of_components, arguments.num_sets, arguments.num_sets),
        (of_factors, arguments.num_factors, few),
    ):
        for seed in range(most):
            for name, places in whole.items():
                number = most if name in ("", "shuffled") else most_of_adversary
                if seed < min(number, len(places)):
                    done[name][seed] |= kept(folder, places[seed], ask=ask)
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
