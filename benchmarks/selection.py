"""How often the 95 % interval of a cross-validated difference holds the true one.

    python benchmarks/selection.py --folder cv/selection
    python benchmarks/selection.py --folder cv/selection --families factors --num_sets 300

Data sets are drawn from one population: 3 latents, slow (linear dynamics, counts, for which there
is an encoder, too) or independent between bins (factors, real values), read by 16 neurons, the
third latent weakly. Each is cross-validated; a difference is of two sizes of one model, or of two
models of size 3. Its true value is what is expected of a data set of this size: the mean over all
data sets here. Printed are the share of sets whose interval holds it, the true standard deviation
over the reported one (of the interval, and of cells taken as independent, as the rules of choice
take them), the share that is more than the 99 % reach away, and how often each dimension is in the
confidence set of the model.

What is done is kept in the folder, and the same command goes on; other settings need another one.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from pytorch_lightning import Trainer
from scipy import stats

from seqvae import EM, GradientLearner, crossvalidate
from seqvae.crossvalidation.choice import sum_error
from seqvae.crossvalidation.intervals import interval
from seqvae.crossvalidation.table import Grid
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.models import PCA, VAE, FactorAnalysis, LinearDynamics
from seqvae.observations import Gaussian

LATENTS, NEURONS = 3, 16
SIGNALS = {"low": 0.25, "middling": 0.5}
"""Loadings of the third latent, of those of the first."""


class Family(NamedTuple):
    """What is compared on which data."""

    counts: bool
    num_trials: int
    num_bins: int
    models: dict[str, Any]
    learners: dict[str, Any]
    dims: list[int]
    pairs: list[tuple[tuple[str, int], tuple[str, int]]]


OF_VALUES = {"pca": partial(PCA, observation=Gaussian),
             "fa": partial(FactorAnalysis, observation=Gaussian)}  # fmt: skip
SHORT = GradientLearner(
    partial(Trainer, max_epochs=40, check_val_every_n_epoch=4, accelerator="cpu"), progress=False
)
FAMILIES = {
    "factors": Family(
        False, 40, 10, OF_VALUES, {}, [2, 3], [(("pca", 3), ("pca", 2)), (("fa", 3), ("pca", 3))],
    ),
    "dynamics": Family(
        True, 40, 20, {"plds": LinearDynamics, "fa": FactorAnalysis},
        {"plds": EM(max_iterations=10, progress=False)}, [2, 3, 4],
        [(("plds", 3), ("plds", 2)), (("plds", 4), ("plds", 3)), (("plds", 3), ("fa", 3))],
    ),
    "encoders": Family(
        True, 40, 20, {"plds": LinearDynamics, "vae": VAE},
        {"plds": EM(max_iterations=10, progress=False), "vae": SHORT}, [3],
        [(("vae", 3), ("plds", 3))],
    ),
}  # fmt: skip


def recording(family: Family, weak: float, seed: int) -> Arrays:
    """Draw a data set of the population."""
    population, generator = np.random.default_rng(99), np.random.default_rng(seed)
    loadings = population.standard_normal((NEURONS, LATENTS)) * [0.5, 0.5, 0.5 * weak]
    shape = (family.num_trials, family.num_bins, LATENTS)
    steps = generator.standard_normal(shape)
    if not family.counts:
        noise = generator.standard_normal((*shape[:2], NEURONS))
        return Arrays((steps @ loadings.T + noise).astype(np.float32), bin_width=0.02)
    latents = np.empty(shape)
    latents[:, 0] = steps[:, 0]
    for time in range(1, shape[1]):
        latents[:, time] = 0.9 * latents[:, time - 1] + np.sqrt(1 - 0.9**2) * steps[:, time]
    counts = generator.poisson(np.exp(latents @ loadings.T - 1.0))
    return Arrays(np.minimum(counts, 50).astype(np.float32), bin_width=0.02)


def gains(family: Family, weak: float, seed: int, folds: tuple[int, int]) -> dict[str, Any]:
    """Cross-validate a data set: summed gains, (cell, model and size), and each cell's rows."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = crossvalidate(
            NeuralData(recording(family, weak, seed)), family.models, family.learners,
            dims=family.dims, trial_folds=folds[0], neuron_folds=folds[1], num_samples=10,
            out_dir=f"{folder}/cv", seed=seed, progress=False,
        )  # fmt: skip
    grids = {name: Grid(found.scores, name) for name in family.models}
    columns = [grids[name].of(dim) for name, dim in columns_of(family)]
    assert found.summary is not None
    return {
        "gains": np.stack(columns, axis=1),
        "rows": next(iter(grids.values())).rows,
        "sets": np.array([
            dim in found.summary["models"][name]["confidence_set"]
            for name, dim in columns_of(family)
        ]),
    }  # fmt: skip


def columns_of(family: Family) -> list[tuple[str, int]]:
    """Models and sizes, in the order of the columns."""
    return list(product(family.models, family.dims))


def row(
    of_sets: Float[np.ndarray, "set cell"], rows: Int[np.ndarray, " cell"]
) -> tuple[float, ...]:
    """Coverage, both ratios of true and reported error, and the false alarms at 1 %."""
    truth, spread = of_sets.sum(axis=1).mean(), of_sets.sum(axis=1).std(ddof=1)
    found = [interval(each, rows) for each in of_sets]
    held = np.mean([one.low <= truth <= one.high for one in found])
    errors = np.array([one.standard_error for one in found])
    far = stats.t.ppf(0.995, found[0].degrees_of_freedom) * errors
    alarms = np.mean(np.abs(of_sets.sum(axis=1) - truth) > far)
    cells = sum_error(of_sets.T)
    return float(held), spread / np.median(errors), spread / np.median(cells), float(alarms)


def table(name: str, weak: str, folds: str, done: list[Any]) -> Iterator[str]:
    """The lines of one condition."""
    family = FAMILIES[name]
    columns, all_gains = columns_of(family), np.stack([each["gains"] for each in done])
    rows = done[0]["rows"]
    for pair in family.pairs:
        one, other = (all_gains[:, :, columns.index(member)] for member in pair)
        words = " against ".join(f"{model} {dim}" for model, dim in pair)
        held, own, cells, alarms = row(one - other, rows)
        mean = (one - other).sum(axis=1).mean()
        yield (
            f"{weak:9}{folds:5}{words:24}{mean:8.1f}{held:9.3f}{own:8.2f}{cells:8.2f}{alarms:8.3f}"
            f"{len(done):6}"
        )
    members = np.mean([each["sets"] for each in done], axis=0)
    shares = ", ".join(
        f"{model} {dim}: {share:.2f}" for (model, dim), share in zip(columns, members, strict=True)
    )
    yield f"{weak:9}{folds:5}in the confidence set: {shares}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--signals", nargs="+", default=list(SIGNALS), choices=list(SIGNALS))
    parser.add_argument("--folds", nargs="+", default=["5x4", "2x2"])
    parser.add_argument("--num_sets", type=int, default=100)
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    head = f"{'signal':9}{'folds':5}{'difference':24}{'nats':>8}{'held':>9}{'true/se':>8}"
    print(f"{head}{'/cells':>8}{'>99 %':>8}{'sets':>6}")
    for name, weak, folds in product(arguments.families, arguments.signals, arguments.folds):
        done = []
        for seed in range(arguments.num_sets):
            path = folder / f"{name}_{weak}_{folds}_{seed}.npz"
            if not path.exists():
                first, second = (int(number) for number in folds.split("x"))
                np.savez(path, **gains(FAMILIES[name], SIGNALS[weak], seed, (first, second)))
            with np.load(path) as kept:
                done.append(dict(kept))
        print(*table(name, weak, folds, done), sep="\n", flush=True)


if __name__ == "__main__":
    main()
