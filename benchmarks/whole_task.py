"""What whole tasks cost: a fit until its score is there, a grid of dimensions, growth with sizes.

    python benchmarks/whole_task.py --fits maze.h5 --rounds 3
    python benchmarks/whole_task.py --grid maze.h5 --dims 2 4 8 12 16
    python benchmarks/whole_task.py --growth

``--fits``: each model of ``recordings.py`` is fitted to a file as it is divided, again with each
round's seed, models in turn. Printed are the score at the end in bits per spike (``co_bps`` of the
validation trials), the seconds until 99 % of it was first seen at a validation, those of the whole
fit, both with all validations, and the peak memory over that of the imported packages. ``default``
and ``svae`` are validated more often than by themselves, so that the moment is seen.

``--grid``: ``crossvalidate`` of each model over the dimensions, 2 x 2 folds.

``--growth``: seconds of an epoch, or of an iteration of EM, on random counts while one size grows
and the others stay; the slope in log-log between the two largest, and what theory has for large
sizes.

Seconds are of one processor, by one thread; each figure is of a process of its own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import Trainer
from recordings import CONTESTANTS

from seqvae import EM, GradientLearner, NeuralData, crossvalidate
from seqvae.baselines.smoothing_glm import SmoothingGLM
from seqvae.data.sources import HDF5, Arrays
from seqvae.learning import Learner, completed_fit, default_learner
from seqvae.learning.observers import Observer, Stage
from seqvae.learning.validation import validation_scores
from seqvae.models import (
    FLDS,
    VAE,
    LinearDynamics,
    NonlinearDynamics,
    SequentialVAE,
)
from seqvae.runs import begin

SHARE = 0.99
"""Of the final score, whose time is told."""

VALIDATIONS = 40
"""In a fit that would be validated less often."""

ACCELERATED = EM(acceleration=10, tolerance=1e-5, validate_every=2, progress=False)
FITS = {
    **{name: one for name, one in CONTESTANTS.items() if one.model is not SmoothingGLM},
    "plds": CONTESTANTS["plds"]._replace(learner=EM(validate_every=5, progress=False)),
    "plds_accelerated": CONTESTANTS["plds"]._replace(learner=ACCELERATED),
}


class Watch(Observer):
    """Notes the processor's seconds at each epoch or iteration, and what validation scores."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.scores: list[tuple[float, float]] = []
        self._seen = 0

    def progress(self, stage: Stage) -> None:
        """Look at the watch and at the last row."""
        self.seconds.append(time.process_time())
        row = stage.rows[-1] if len(stage.rows) > self._seen else {}
        self._seen = len(stage.rows)
        if not math.isnan(score := row.get("val/co_bps", math.nan)):
            self.scores.append((self.seconds[-1], float(score)))


class Fit(NamedTuple):
    """Score at the end, seconds until most of it was there and of all, and MiB at the peak."""

    score: float
    until: float
    seconds: float
    mib: float


def fitted(name: str, path: str, seed: int) -> Fit:
    """Fit a model to a file, and say when its score was there."""
    factory, learner, settings = FITS[name]
    data = NeuralData(HDF5(path), seed=seed, eval_batch_size=256, **settings)
    data.setup()
    began, peak = time.process_time(), _peak()
    if (chosen := completed_fit(factory, data)) is not None:
        factory, learner = chosen
    if isinstance(learner, GradientLearner):
        learner = _often_validated(learner)
    learner = learner or default_learner(factory.func)()
    torch.manual_seed(seed)
    model, watch = begin(factory, data, seed=seed), Watch()
    learner.learn(model, data, observers=[watch])
    seconds = time.process_time() - began
    final = validation_scores(model.eval(), data)["val/co_bps"]
    there = [at - began for at, score in watch.scores if score >= SHARE * final]
    return Fit(final, there[0] if there else seconds, seconds, _peak() - peak)


def _often_validated(learner: GradientLearner) -> GradientLearner:
    given: dict[str, Any] = learner.trainer.keywords
    every = min(given.get("check_val_every_n_epoch", 1), given["max_epochs"] // VALIDATIONS)
    trainer = partial(learner.trainer, check_val_every_n_epoch=max(every, 1))
    return replace(learner, trainer=trainer, progress=False, patience=None)


def grid(name: str, path: str, dims: list[int]) -> tuple[float, int]:
    """Cross-validate a model over dimensions; return the seconds and the chosen one."""
    factory, learner, settings = CONTESTANTS[name]
    began = time.process_time()
    model_class = getattr(factory, "func", factory)
    given = {"batch_size": 34, "eval_batch_size": 256, **settings}
    with TemporaryDirectory() as folder:
        result = crossvalidate(
            NeuralData(HDF5(path), **given), {name: model_class if learner is None else factory},
            {} if learner is None else {name: learner}, dims=dims, trial_folds=2, neuron_folds=2,
            out_dir=folder, progress=False,
        )  # fmt: skip
    return time.process_time() - began, result.chosen_dim(name)


class Growing(NamedTuple):
    """A model by its size, how it learns, and how its cost grows with that size in theory."""

    model: Any
    argument: str
    learner: Learner
    theory: str


def _epochs(number: int) -> GradientLearner:
    trainer = partial(Trainer, max_epochs=number, accelerator="cpu", enable_checkpointing=False)
    return GradientLearner(trainer, progress=False)


NUM_TURNS = 6
BASE = {"trials": 100, "bins": 100, "neurons": 50, "dim": 8}
FACTORS = (1, 2, 4)
GROWING = {
    "plds": Growing(
        LinearDynamics, "latent_dim",
        EM(max_iterations=NUM_TURNS, validate_every=1, progress=False),
        "2 (neurons D^2), at last 3",
    ),
    "flds": Growing(FLDS, "latent_dim", _epochs(NUM_TURNS), "2 (neurons D^2), at last 3"),
    "default": Growing(
        partial(NonlinearDynamics, em_iterations=1), "latent_dim", _epochs(NUM_TURNS),
        "2 (neurons D^2), at last 3",
    ),
    "svae": Growing(SequentialVAE, "generator_dim", _epochs(NUM_TURNS), "at last 2"),
    "vae": Growing(VAE, "latent_dim", _epochs(NUM_TURNS), "at most 1"),
}  # fmt: skip


def turn(name: str, sizes: dict[str, int]) -> float:
    """Return the seconds of an epoch, or an iteration, at some sizes."""
    one = GROWING[name]
    shape = (sizes["trials"], sizes["bins"], sizes["neurons"])
    counts = np.random.default_rng(0).poisson(0.2, shape).astype(np.float32)
    data = NeuralData(Arrays(counts, bin_width=0.02), batch_size=25, val_fraction=0.0)
    data.setup()
    size = sizes["dim"] * (10 if one.argument == "generator_dim" else 1)
    model, watch = begin(partial(one.model, **{one.argument: size}), data, seed=0), Watch()
    one.learner.learn(model, data, observers=[watch])
    return statistics.median(np.diff(watch.seconds)[1:])


def growth(name: str) -> Iterator[str]:
    """Yield a line for each size that grows."""
    for what, start in BASE.items():
        seconds = [alone(turn, name, {**BASE, what: start * factor}) for factor in FACTORS]
        slope = math.log2(seconds[-1] / seconds[-2])
        theory = (
            GROWING[name].theory if what == "dim" else "1" if what != "neurons" else "at most 1"
        )
        found = "  ".join(f"{1000 * one:8.1f}" for one in seconds)
        yield f"{name:9}{what:9}{found} ms   slope {slope:5.2f}   theory {theory}"


def alone(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1, _quiet) as pool:
        return pool.apply(function, arguments)


def _quiet() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fits", type=Path, metavar="FILE")
    parser.add_argument("--grid", type=Path, metavar="FILE")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--models", nargs="+", choices=sorted({*FITS, *GROWING}))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dims", nargs="+", type=int, default=[2, 4, 8, 12, 16])
    chosen = parser.parse_args()
    if chosen.fits:
        found: dict[str, list[Fit]] = {name: [] for name in chosen.models or FITS}
        for seed in range(chosen.rounds):
            for name, fits in found.items():
                fits.append(alone(fitted, name, str(chosen.fits), seed))
        print(f"{'':17} co_bps   s until 99 %   s of all   MiB (medians of {chosen.rounds})")
        for name, fits in found.items():
            score, until, seconds, mib = map(statistics.median, zip(*fits, strict=True))
            print(f"{name:17} {score:.4f} {until:14.1f} {seconds:10.1f} {mib:5.0f}", flush=True)
    if chosen.grid:
        for name in chosen.models or ("fa", "plds", "flds", "default", "svae"):
            seconds, dim = alone(grid, name, str(chosen.grid), chosen.dims)
            print(f"{name:17} {seconds:8.1f} s, dimension {dim}", flush=True)
    if chosen.growth:
        for name in chosen.models or GROWING:
            for line in growth(name):
                print(line, flush=True)


if __name__ == "__main__":
    main()
