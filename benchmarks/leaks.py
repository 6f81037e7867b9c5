"""How often ``seqvae leakcheck`` alarms where nothing leaks: 50 checks over models and schemes.

    python benchmarks/leaks.py --folder leaks

Each is a short fit of a small simulated recording (Lorenz, counts), with test trials, with
validation trials only, with a report and an ensemble, or a cell of a cross-validation by each
scheme. Planted leaks are in ``tests/test_leakcheck.py`` and ``tests/test_leakcheck_cells.py``.

What is done is kept in the folder, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import warnings
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from seqvae import EM, FLDS, PCA, VAE, FactorAnalysis, GradientLearner, LinearDynamics, leakcheck
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays, Lorenz
from seqvae.learning import ClosedForm
from seqvae.models import NonlinearDynamics, SequentialVAE

GRADIENT = GradientLearner(partial(Trainer, max_epochs=2, accelerator="cpu"), progress=False)
MODELS: dict[str, tuple[Any, Any]] = {
    "vae": (partial(VAE, latent_dim=2), GRADIENT),
    "svae": (partial(SequentialVAE, factor_dim=2, generator_dim=6, initial_condition_dim=4,
                     inferred_input_dim=1, controller_dim=4, controller_encoder_dim=4), GRADIENT),
    "nonlinear": (partial(NonlinearDynamics, latent_dim=2), GRADIENT),
    "flds": (partial(FLDS, latent_dim=2), GRADIENT),
    "plds": (partial(LinearDynamics, latent_dim=2), EM(max_iterations=3, progress=False)),
    "fa": (partial(FactorAnalysis, latent_dim=2), ClosedForm()),
    "pca": (partial(PCA, latent_dim=2), ClosedForm()),
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "test": {},
    "val": {},
    "together": {"members": 2, "report": True},
    "fold_in": {"scheme": "fold_in"},
    "fold_in, ensemble": {"scheme": "fold_in", "members": 2},
    "speckled": {"scheme": "speckled"},
    "gabriel": {"scheme": "gabriel"},
}


def checks() -> list[tuple[str, str]]:
    """Return models and settings: all pairs that go together."""
    return [
        (model, setting)
        for setting, model in product(SETTINGS, MODELS)
        if setting != "gabriel" or model == "pca"
    ]


def data_of(setting: str, seed: int) -> NeuralData:
    """Draw a recording."""
    recording = Lorenz(
        num_trials=32, num_val=8, num_neurons=10, num_heldout=2, num_time_bins=12, seed=seed
    ).load()
    return NeuralData(
        Arrays(recording.read(), bin_width=recording.bin_width), val_fraction=0.2, heldout=[3, 7],
        test_fraction=0.0 if setting == "val" else 0.25, batch_size=16,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True)
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    answers = {}
    for number, (model, setting) in enumerate((checks() * 2)[:50]):
        path = folder / f"{number}.json"
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = leakcheck(data_of(setting, number), *MODELS[model], seed=number,
                                  **SETTINGS[setting])  # fmt: skip
            path.write_text(json.dumps(found["checks"]))
        asked = json.loads(path.read_text())
        leaks = [check["name"] for check in asked if check["passed"] is False]
        answers[number] = leaks
        print(f"{number:3} {setting:18}{model:10} {', '.join(leaks) or 'ok'}", flush=True)
    print(f"alarms in {sum(map(bool, answers.values()))} of {len(answers)} clean fits")


if __name__ == "__main__":
    main()
