"""Whether cross-validation finds the dimension of nonlinear dynamics, and the rates at that size.

    python benchmarks/dynamical_dimension.py --folder cv/dynamical
    python benchmarks/dynamical_dimension.py --folder cv/dynamical --models nonlinear --seeds 0 1
    python benchmarks/dynamical_dimension.py --folder cv/dynamical --models FLDS --systems lorenz

Neurons follow the Lorenz system (dimension 3) or a limit cycle (2); initial conditions are random,
so those of no two trials are alike. For every seed, of the simulation and of the folds, a model of
each size is learned on half of 900 trials and scored, in bits per spike, on held-out neurons of the
others (2 x 2 folds). Two rules choose: ``within_1pct``, the smallest size that has 99 % of what the
best one gains, and ``paired_1se``. A model of the size that the first one chose is then fitted, and
the rates that it infers on 100 test trials, of which none of this knew, are compared with the
truth: R2, mean over neurons. ``nonlinear`` is ``NonlinearDynamics`` with a linear readout;
``residual`` and ``gru`` are SequentialVAEs without inferred inputs, their state as large as the
factors; any other name is a class of ``seqvae.models`` with its defaults, learned by its default
learner.

What is done is kept in the folder, and the same command goes on; other settings need another one.
"""

from __future__ import annotations

import argparse
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

import seqvae.models
from seqvae import GradientLearner, NeuralData, crossvalidate, fit, infer
from seqvae.data.sources import LimitCycle, Lorenz
from seqvae.encoders import TrialGRU
from seqvae.generators import GRU, ResidualMLP
from seqvae.learning import Learner, default_learner
from seqvae.models import NonlinearDynamics, SequentialVAE
from seqvae.objectives import Objective
from seqvae.runs import Run
from seqvae.scores import R2

SIZES = {
    "num_trials": 1000, "num_val": 100, "num_test": 100, "num_time_bins": 30, "bin_width": 0.02,
    "num_neurons": 40, "num_heldout": 10, "mean_count": 2.0,
}  # fmt: skip
SYSTEMS = {
    "lorenz": (partial(Lorenz, **SIZES, speed=2.5), 3, [2, 3, 4]),
    "limit_cycle": (partial(LimitCycle, **SIZES, speed=19.0), 2, [1, 2, 3]),
}
EPOCHS, NONLINEAR_EPOCHS = 120, 50
NONLINEAR = partial(
    NonlinearDynamics,
    dynamics_dims=(64,),
    decoder_dims=(),
    optimizer=partial(AdamW, lr=5e-3, weight_decay=0.01),
    schedule=partial(CosineAnnealingLR, T_max=NONLINEAR_EPOCHS),
)
AUTONOMOUS = partial(
    SequentialVAE,
    generator_dim=None,
    initial_condition_dim=16,
    inferred_input_dim=0,
    dropout=0.0,
    encoder=partial(TrialGRU, hidden_dim=48),
    objective=Objective(beta_steps=100),
    optimizer=partial(AdamW, lr=4e-3, weight_decay=0.01),
    schedule=partial(CosineAnnealingLR, T_max=EPOCHS),
)
MODELS = {
    "nonlinear": (NONLINEAR, NONLINEAR_EPOCHS, 0.98),
    "residual": (
        partial(AUTONOMOUS, generator=partial(ResidualMLP, hidden_dims=(128, 128))),
        EPOCHS,
        0.0,
    ),
    "gru": (partial(AUTONOMOUS, generator=GRU), EPOCHS, 0.0),
}
"""A factory, epochs, and how the weights are averaged."""


def model_and_learner(name: str) -> tuple[Any, Learner, str]:
    """Return a model's factory, how it is learned, and the argument that is its size."""
    if name not in MODELS:
        model = getattr(seqvae.models, name)
        return model, default_learner(model)(), model.dimension_argument
    model, epochs, average = MODELS[name]
    trainer = partial(Trainer, max_epochs=epochs, check_val_every_n_epoch=5, accelerator="cpu")
    learner = GradientLearner(trainer, patience=None, progress=False, average_weights=average)
    return model, learner, model.func.dimension_argument


def cell(system: str, name: str, seed: int, folder: Path) -> dict[str, float]:
    """Return the chosen dimension and the R2 of the rates at that size, done or read."""
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    make_source, _, dims = SYSTEMS[system]
    data = NeuralData(make_source(seed=seed), batch_size=40, eval_batch_size=500)
    model, learner, size = model_and_learner(name)
    one_se, dim = (  # of the same cells
        crossvalidate(
            data, {name: model}, {name: learner}, dims=dims, trial_folds=2, neuron_folds=2,
            rule=rule, num_samples=20, seed=seed, out_dir=str(folder / "cv"), progress=False,
        ).chosen_dim(name)
        for rule in ("paired_1se", "within_1pct")
    )  # fmt: skip
    row = {"dim": dim, "one_se": one_se, "rates_r2": 0.0}  # of dimension 0, the mean rate
    if dim > 0:
        run = fit(data, partial(model, **{size: dim}), learner, in_memory=True, seed=seed)
        row["rates_r2"] = r2_on_test(run, data)
    result.write_text(json.dumps(row))
    return row


def r2_on_test(run: Run, data: NeuralData) -> float:
    """Return R2 of the inferred rates of the test trials against the truth, mean over neurons."""
    inferred = torch.from_numpy(infer(run, split="test", num_samples=50)["rates"].values)
    truth = torch.from_numpy(data.recording.rates[data.trials("test")].copy())
    r2 = R2(data.spec.num_neurons)
    r2.update(inferred, truth, torch.ones(truth.shape[:2], dtype=torch.bool))
    return float(r2.compute())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--models", nargs="+", default=["nonlinear", "gru"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*largest of the grid")
    for system in arguments.systems:
        for name in arguments.models:
            rows = []
            for seed in arguments.seeds:
                folder = arguments.folder / system / name / str(seed)
                rows.append(cell(system, name, seed, folder))
                row = rows[-1]
                of_each = f"dimension {row['dim']} (by one error {row['one_se']})"
                told = f"seed {seed:3}  {of_each}  R2 of rates {row['rates_r2']:.3f}"
                print(f"{system:12}{name:20}{told}", flush=True)
            truth = SYSTEMS[system][1]
            right, sharp = (sum(row[rule] == truth for row in rows) for rule in ("dim", "one_se"))
            r2 = np.array([row["rates_r2"] for row in rows])
            of_all = f"dimension {truth} in {right} of {len(rows)} (by one error {sharp})"
            spread = f"R2 of rates: median {np.median(r2):.3f}, least {r2.min():.3f}"
            print(f"{system:12}{name:20}{of_all}; {spread}")


if __name__ == "__main__":
    main()
