"""Models against each other on recordings: held-out neurons of trials that none of them saw.

    python benchmarks/recordings.py --folder cv/recordings maze.h5 reaches.h5
    python benchmarks/recordings.py --folder cv/recordings taps.h5 --num_trials 300 --cells 0,0 1,1
    python benchmarks/recordings.py --folder cv/recordings --lorenz

A recording is divided into three folds of trials and two of neurons. In each cell every model
learns from two thirds of the trials, in which the held-out neurons are seen by the likelihood only,
and predicts the rates of these neurons in the last third, from the others. Settings are the same
everywhere: those of ``configs/maze_*.yaml``, and what ``fit`` takes if no model is named
(``default``). ``together`` is the mean of the rates of ``default``, FLDS and linear dynamics;
``seeds``, where ``default_1`` and ``default_2`` are among ``--models``, that of three seeds of the
default.

Printed is, for each cell, the score in bits per spike and the paired difference to ``--against``
with its standard error over the test trials, which knows nothing of the luck of training trials or
of a seed; then the mean over cells, with the error over the trials of the recording, the cells of a
trial added up; and the minutes that learning took. ``--lorenz`` takes 320 training trials of a
Lorenz system whose initial conditions differ.

What is done is kept in the folder, and the same command goes on; other settings need another one.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pytorch_lightning import Trainer
from torch.optim import AdamW

from seqvae import EM, GradientLearner, NeuralData
from seqvae.analysis.posterior import deterministic
from seqvae.baselines.smoothing_glm import SmoothingGLM
from seqvae.crossvalidation.division import Division
from seqvae.crossvalidation.learned import learning_data
from seqvae.crossvalidation.scoring import mean_rate_of, seen_data
from seqvae.data import CoordinatedDropout, Recording
from seqvae.data.sources import HDF5, Lorenz
from seqvae.distributions.kinds import kind_of
from seqvae.encoders import InformationMLP
from seqvae.learning import Learner, completed_fit, default_learner
from seqvae.models import FLDS, FactorAnalysis, LinearDynamics, NonlinearDynamics, SequentialVAE
from seqvae.priors import IIDNormal
from seqvae.runs import begin

TRIAL_FOLDS, NEURON_FOLDS, SAMPLES = 3, 2, 50
ENSEMBLES = {
    "together": ("default", "flds", "plds"),
    "seeds": ("default", "default_1", "default_2"),
}


class Contestant(NamedTuple):
    """A model, how it is learned, and what differs in how it is given the data."""

    model: Any
    learner: Learner | None = None
    settings: Mapping[str, Any] = {}
    seed: int = 0


def _epochs(number: int, patience: int) -> GradientLearner:
    trainer = partial(Trainer, max_epochs=number, check_val_every_n_epoch=2, accelerator="cpu")
    return GradientLearner(trainer, patience=patience, progress=False)


CONTESTANTS = {
    "glm": Contestant(SmoothingGLM),
    "fa": Contestant(partial(FactorAnalysis, latent_dim=8)),
    "plds": Contestant(partial(LinearDynamics, latent_dim=8), EM(progress=False)),
    "svae": Contestant(
        partial(
            SequentialVAE, factor_dim=20, generator_dim=100, inferred_input_dim=2, dropout=0.3,
            inferred_input_prior=IIDNormal, optimizer=partial(AdamW, lr=4e-3, weight_decay=1.0),
        ),
        _epochs(600, 60),
        {"batch_size": 34, "coordinated_dropout": CoordinatedDropout(0.3)},
    ),
    "flds": Contestant(
        partial(
            FLDS, latent_dim=8, dropout=0.3, encoder=partial(InformationMLP, dropout=0.3),
            optimizer=partial(AdamW, lr=5e-3, weight_decay=1.0),
        ),
        _epochs(200, 40),
        {"batch_size": 34},
    ),
    "default": Contestant(NonlinearDynamics),
    "default_1": Contestant(NonlinearDynamics, seed=1),
    "default_2": Contestant(NonlinearDynamics, seed=2),
}  # fmt: skip
USUAL = [name for name, contestant in CONTESTANTS.items() if contestant.seed == 0]


Rates = Float[np.ndarray, "trial time neuron"]


def predicted(name: str, division: Division, rows: int, columns: int) -> Rates:
    """Learn in a cell, and predict all neurons in the trials left out from those held in."""
    factory, learner, changes, seed = CONTESTANTS[name]
    settings: dict[str, Any] = {"val_fraction": 0.2, "eval_batch_size": 256, **changes}
    part, heldin = division.part(rows, columns), division.heldin(columns)

    def data_for(learner: Learner) -> NeuralData:
        given = {"learner": learner, "settings": settings, "seed": 0}
        return learning_data(division, rows, heldin, **given)

    data = data_for(GradientLearner())
    if factory is SmoothingGLM:
        activity = data.recording.read()
        return SmoothingGLM.fit(
            activity[data.trials("train")], activity[data.trials("val")], heldin=np.array(heldin),
            num_encoded_bins=data.spec.num_encoded_bins, kind=kind_of([activity]), refit=True,
        ).predict(part.seen.read())  # fmt: skip
    if (chosen := completed_fit(factory, data, scores_others=True)) is not None:
        factory, learner = chosen.model, replace(chosen.learner, progress=False)
    learner = learner or default_learner(factory.func)()
    data = data_for(learner)
    torch.manual_seed(seed)
    model = begin(factory, data, seed=seed)
    learner.learn(model, data)
    return rates_of(model.eval(), seen_data(part, settings))


def rates_of(model: Any, data: NeuralData) -> Rates:
    """Return the posterior mean of the expected counts, as scores take it."""
    chunks = []
    with deterministic(model, 0):
        for batch in data.batches("all", 32):
            output = model(batch, SAMPLES)
            expected = model.expectations(output, batch)
            mean = output.emission.mean.mean(dim=0) if expected is None else expected.mean
            chunks.append(mean.double().numpy())
    return np.concatenate(chunks)


class Scored(NamedTuple):
    """Of a cell: what each trial gains over the mean rate, in nats, and the spikes of all."""

    gains: Float[np.ndarray, " trial"]
    spikes: float


def scored(rates: Rates, division: Division, rows: int, columns: int) -> Scored:
    """Score held-out neurons by the Poisson likelihood at the predicted rates."""
    train = division.train(rows)
    null = mean_rate_of(train, kind_of([train.read()]))
    truth = division.part(rows, columns).truth
    asked = np.isfinite(truth) & null.is_known
    target = torch.from_numpy(np.where(asked, truth, 0.0)).double()
    better = null.around(null.kind.clamp(torch.from_numpy(rates))).log_prob(target)
    gain = torch.where(torch.from_numpy(asked), better - null.distribution().log_prob(target), 0.0)
    return Scored(gain.sum(dim=(1, 2)).numpy(), float(target.sum()))


def recordings(arguments: argparse.Namespace) -> Iterator[tuple[str, Recording]]:
    """Yield what is asked for, by its name."""
    for path in arguments.files:
        recording = NeuralData(HDF5(str(path))).pool()
        if arguments.num_trials and arguments.num_trials < recording.num_trials:
            chosen = np.random.default_rng(0).permutation(recording.num_trials)
            recording = recording.select(np.sort(chosen[: arguments.num_trials]))
        yield f"{path.stem}_{recording.num_trials}", recording
    if arguments.lorenz:
        simulated = Lorenz(num_trials=480, num_val=0, num_test=0, num_time_bins=30, bin_width=0.02)
        yield "lorenz_480", simulated.load()


def words(done: Mapping[str, Scored], minutes: Mapping[str, float], against: str) -> str:
    """Return of each model its score, what it gains over one of them, and its minutes."""
    scale = np.log(2) * done[against].spikes
    told = []
    for model, one in done.items():
        paired = one.gains - done[against].gains
        error = np.sqrt(len(paired)) * paired.std(ddof=1) / scale
        gain = f"{paired.sum() / scale:+.4f} +- {error:.4f}"
        spent = f", {minutes[model]:.1f} min" if model in minutes else ""
        told.append(f"{model} {one.gains.sum() / scale:.4f} ({gain}{spent})")
    return "; ".join(told)


def cell(
    division: Division, rows: int, columns: int, models: list[str], folder: Path
) -> tuple[dict[str, Scored], dict[str, float]]:
    """Return the scores of a cell and the minutes that learning took, done or read."""
    rates, minutes = {}, {}
    for model in models:
        path = folder / f"{model}_{rows}_{columns}.npz"
        if not path.exists():
            began = time.process_time()
            found = predicted(model, division, rows, columns)
            np.savez(path, rates=found, seconds=time.process_time() - began)
        with np.load(path) as kept:
            rates[model], minutes[model] = kept["rates"], float(kept["seconds"]) / 60
    for name, members in ENSEMBLES.items():
        if set(members) <= set(rates):
            rates[name] = np.mean([rates[member] for member in members], axis=0)
    return {name: scored(one, division, rows, columns) for name, one in rates.items()}, minutes


def compare(
    recording: Recording, places: list[tuple[int, int]], arguments: argparse.Namespace, folder: Path
) -> None:
    """Print the cells of a recording, and all of them together."""
    division = Division.of(
        recording, scheme="fold_in", rows="trials", trial_folds=TRIAL_FOLDS,
        neuron_folds=NEURON_FOLDS, gap=None, seed=0,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    totals: dict[str, Float[np.ndarray, " trial"]] = {}
    spent: Counter[str] = Counter()
    spikes = 0.0
    for rows, columns in places:
        done, minutes = cell(division, rows, columns, arguments.models, folder)
        print(f"cell {rows},{columns}: {words(done, minutes, arguments.against)}", flush=True)
        spent.update(minutes)
        spikes += done[arguments.against].spikes
        for model, one in done.items():
            total = totals.setdefault(model, np.zeros(recording.num_trials))
            total[division.trial_fold == rows] += one.gains
    took_part = np.isin(division.trial_fold, [rows for rows, _ in places])
    whole = {model: Scored(total[took_part], spikes) for model, total in totals.items()}
    print(f"all cells: {words(whole, spent, arguments.against)}", flush=True)


def parser_of(description: str) -> argparse.ArgumentParser:
    """Return a parser of what ``recordings`` reads, and of the folder that keeps what is done."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--lorenz", action="store_true")
    parser.add_argument("--num_trials", type=int, help="at most so many, chosen by chance")
    return parser


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(CONTESTANTS), default=USUAL)
    parser.add_argument("--cells", nargs="+", help="such as 0,1: fold of trials, fold of neurons")
    parser.add_argument("--against", choices=list(CONTESTANTS), default="flds")
    arguments = parser.parse_args()
    if arguments.against not in arguments.models:
        parser.error(f"--against {arguments.against} is not among --models")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    asked = [cell.split(",") for cell in arguments.cells or ()]
    places = [(int(rows), int(columns)) for rows, columns in asked]
    for name, recording in recordings(arguments):
        print(f"{name}: {recording.num_trials} trials, {recording.num_neurons} neurons")
        everywhere = list(product(range(TRIAL_FOLDS), range(NEURON_FOLDS)))
        compare(recording, places or everywhere, arguments, arguments.folder / name)


if __name__ == "__main__":
    main()
