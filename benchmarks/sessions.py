"""What several recorded sessions in one model gain over a model of each.

    python benchmarks/sessions.py --folder sessions
    python benchmarks/sessions.py --folder sessions --models nlds --num_sets 2
    python benchmarks/sessions.py --folder sessions --maze mc_maze_large_sub_20ms_cosmooth.h5

Three sessions of one Lorenz system, of different neurons (30 each, 8 held out, 10 spikes/s), have
40 trials each to learn from (8 of them validate) and 24 to be scored, over eight initial states
that sessions share. They are fitted jointly, aligned by conditions or by all trials, and each by
itself; a fourth session of 20 trials is added to the joint model, and fitted
by itself. Printed are, session by session, R2 with the true rates and bits per spike of held-out
neurons, in trials that no model saw; below, the means over sessions and data sets, and the paired
difference with its standard error over sessions of all data sets.

With a file of held-out neurons in two layouts its neurons are divided at random into two sessions,
each with half of the training trials; scored are bits per spike in the validation trials, which
choose nothing here: a fifth of the training trials does.

What is done is kept in the folder, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Trainer

import seqvae
from seqvae import EM, GradientLearner, NeuralData, Recording, Run
from seqvae.analysis.evaluation import Training, evaluate_model
from seqvae.data.sources import HDF5, Lorenz, Sessions
from seqvae.encoders import Direct, InformationMLP, LinearReadIn
from seqvae.learning import default_fit
from seqvae.models import FLDS, LinearDynamics, SequentialVAE

MODELS = ("plds", "nlds", "svae", "flds")
SCORES = ("rates_r2", "co_bps")
FOURTH = 20
STEPS = 900
"""Of the optimiser, in every fit by gradients."""


def session(
    number: int, data_set: int, trials: int, *, conditions: int | None, mean_count: float
) -> Lorenz:
    """Simulate a session; its last 24 trials are scored."""
    return Lorenz(
        num_trials=trials + 24,
        num_val=trials // 5,
        num_test=24,
        num_time_bins=50,
        num_neurons=30,
        num_heldout=8,
        mean_count=mean_count,
        seed=100 * data_set + number,
        num_conditions=conditions,
    )


def fitted(data: NeuralData, model: str) -> Run:
    """Fit a model; batches are small, as for few trials. One session is read without a read-in."""
    data.batch_size = 16
    read_in = LinearReadIn if data.sessions else Direct
    steps_an_epoch = math.ceil(len(data.trials("train")) / data.batch_size)
    trainer = partial(Trainer, max_epochs=math.ceil(STEPS / steps_an_epoch), accelerator="cpu")
    gradient = GradientLearner(trainer, patience=None, refit=True, progress=False)
    if model == "nlds":
        learner = replace(default_fit(data).learner, progress=False)
        return seqvae.fit(data, learner=learner, in_memory=True)
    if model == "plds":
        return seqvae.fit(data, LinearDynamics, EM(progress=False), in_memory=True)
    if model == "svae":
        factory: Any = partial(SequentialVAE, read_in=read_in)
    else:
        factory = partial(FLDS, encoder=partial(InformationMLP, read_in=read_in))
    return seqvae.fit(data, factory, gradient, in_memory=True)


def scores(run: Run, split: str) -> dict[str, dict[str, float]]:
    """Score each session of a run by itself."""
    data, model = run.data(), run.model()
    rates = Training(model, None, data.train_moments)
    found = {}
    for name in data.sessions or ("",):
        part = data.of_session(name) if name else data
        row = evaluate_model(model, part, split=split, num_samples=50, seed=0, training=rates)
        found[name] = {score: row[score] for score in SCORES if score in row}
    return found


def of_simulation(model: str, data_set: int, *, alignment: str, **simulation: Any) -> Any:
    """Fit jointly, singly and with a fourth session, and score."""
    parts = [session(number, data_set, 40, **simulation) for number in range(3)]
    fourth = session(3, data_set, FOURTH, **simulation)
    joint = fitted(NeuralData(Sessions(parts), alignment=alignment), model)
    added = seqvae.add_session(joint, NeuralData(fourth, alignment=alignment), in_memory=True)
    note = added.provenance["added_session"]
    return {
        "joint": list(scores(joint, "test").values()),
        "single": [scores(fitted(NeuralData(part), model), "test")[""] for part in parts],
        "added": [scores(added, "test")["3"]],
        "alone": [scores(fitted(NeuralData(fourth), model), "test")[""]],
        "share": note["parameters"] / note["of"],
    }


def of_halves(path: str, model: str, data_set: int, *, alignment: str) -> Any:
    """Divide the neurons of a recording into two sessions, and fit these jointly and singly."""
    whole = HDF5(path).load()
    generator = np.random.default_rng(data_set)
    neurons = np.arange(whole.num_neurons)
    seen = np.isin(neurons, whole.heldin)
    side = np.zeros(len(neurons), dtype=int)
    for some in (neurons[seen], neurons[~seen]):
        side[generator.permutation(some)[len(some) // 2 :]] = 1
    train = generator.permutation(np.flatnonzero(whole.split == "train"))
    scored = np.flatnonzero(whole.split == "val")
    parts = []
    for half, own in enumerate(np.array_split(train, 2)):
        trials = np.sort(np.concatenate([own, scored]))
        choose = set(own[: len(own) // 5].tolist())
        split = ["test" if t in scored else "val" if t in choose else "train" for t in trials]
        columns, some = np.flatnonzero(side == half), whole.select(trials)
        parts.append(
            Recording(
                some.read()[..., columns],
                whole.bin_width,
                behavior=some.behavior,
                condition=some.condition,
                split=np.array(split),
                heldin=np.flatnonzero(seen[columns]),
            )
        )
    joint = fitted(NeuralData(Sessions(parts), alignment=alignment), model)
    return {
        "joint": list(scores(joint, "test").values()),
        "single": [scores(fitted(NeuralData(part), model), "test")[""] for part in parts],
    }


def shown(model: str, results: list[Mapping[str, Any]]) -> str:
    """Lay out means, and paired differences."""
    lines = []
    for one, other in (("joint", "single"), ("added", "alone")):
        for score in SCORES:
            pairs = [
                (a[score], b[score])
                for result in results
                for a, b in zip(result.get(one, ()), result.get(other, ()), strict=True)
                if score in a
            ]
            if pairs:
                values = np.array(pairs)
                gain = values[:, 0] - values[:, 1]
                error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
                lines.append(
                    f"{model:6s} {score:9s} {one} {values[:, 0].mean():.3f}  {other} "
                    f"{values[:, 1].mean():.3f}  difference {gain.mean():+.3f} +- {error:.3f} "
                    f"(least {gain.min():+.3f}, {len(gain)} sessions)"
                )
    if results and "share" in results[0]:
        joint = np.mean([one["rates_r2"] for result in results for one in result["joint"]])
        added = np.mean([one["rates_r2"] for result in results for one in result["added"]])
        lines.append(
            f"{model:6s} added session: {results[0]['share']:.1%} of the parameters, rates_r2 "
            f"{added / joint:.1%} of the joint model's"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", required=True)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["svae"])
    parser.add_argument("--num_sets", type=int, default=3)
    parser.add_argument("--conditions", type=int, default=8, help="0: each trial has its own")
    parser.add_argument("--mean_count", type=float, default=0.15, help="spikes a bin of 10 ms")
    parser.add_argument("--alignment", choices=("conditions", "trials"), default="conditions")
    parser.add_argument("--maze", help="HDF5 file of a recording, in place of the simulation")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    kind = "halves" if options.maze else f"lorenz{options.conditions}-{options.mean_count:g}"
    for model in options.models:
        results = []
        for data_set in range(options.num_sets):
            file = folder / f"{kind}-{options.alignment}-{model}-{data_set}.json"
            if not file.exists():
                if options.maze:
                    result = of_halves(options.maze, model, data_set, alignment=options.alignment)
                else:
                    result = of_simulation(
                        model,
                        data_set,
                        alignment=options.alignment,
                        conditions=options.conditions or None,
                        mean_count=options.mean_count,
                    )
                file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            results.append(json.loads(file.read_text(encoding="utf-8")))
            print(file.name, json.dumps(results[-1]), flush=True)
        print(shown(model, results), flush=True)


if __name__ == "__main__":
    main()
