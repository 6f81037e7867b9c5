"""What processes that train together do in the tests; they find it here by name."""

from __future__ import annotations

import os
import signal
import time
import warnings
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from pytorch_lightning import Trainer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from seqvae import FLDS, VAE, InputError, NeuralData, Run, fit
from seqvae.compute.ranks import gathered
from seqvae.data import CoordinatedDropout
from seqvae.data.sources import Lorenz, Sessions
from seqvae.encoders import MLP, DeltaHead, FreeGaussian, LinearReadIn
from seqvae.learning.observers import figures
from seqvae.objectives import Objective
from seqvae.priors import LearnableNormal
from tiny import SVAE, tiny_learner

# 65 trials in batches of 32: the last has one, and the second process none. As few to validate.
UNEVEN = Lorenz(num_trials=74, num_val=9, num_time_bins=10, num_neurons=6, num_heldout=2)
ONE_TO_VALIDATE = Lorenz(num_trials=20, num_val=1, num_time_bins=10, num_neurons=6, num_heldout=2)
SESSIONS = Sessions(
    [
        Lorenz(num_trials=20, num_val=3, num_time_bins=10, num_neurons=number, num_heldout=1,
               num_conditions=2, seed=number)
        for number in (4, 5, 6)
    ]
)  # fmt: skip
EPOCHS = 7


class Case(NamedTuple):
    """A fit."""

    model: Any
    data: dict[str, Any] = {}  # noqa: RUF012
    trainer: dict[str, Any] = {}  # noqa: RUF012
    learner: dict[str, Any] = {}  # noqa: RUF012


TINY_VAE = partial(VAE, latent_dim=2, factor_dim=4)
TINY_FLDS = partial(FLDS, latent_dim=2, decoder_dims=(4,))
RICH_SVAE = partial(
    SVAE,
    dropout=0.3,
    objective=Objective(beta_steps=6, recurrent_l2=1.0, recurrent_l2_steps=7),
)
RICH = {"coordinated_dropout": CoordinatedDropout(0.3, pass_rate=0.2), "speckled_fraction": 0.2}
DOUBLE, SINGLE, MIXED = ({"precision": p} for p in ("64-true", "32-true", "bf16-mixed"))
IMPATIENT = partial(
    TINY_VAE,
    objective=Objective(beta_steps=0),
    optimizer=partial(torch.optim.AdamW, lr=0.2),
    schedule=partial(ReduceLROnPlateau, factor=0.5, patience=0, threshold=0.0),
)

CASES = {
    "svae": Case(RICH_SVAE, RICH, DOUBLE),
    "vae": Case(TINY_VAE, RICH, DOUBLE),
    "flds": Case(TINY_FLDS, RICH, DOUBLE),
    "free_bits": Case(partial(TINY_VAE, objective=Objective(free_bits=0.2)), {}, DOUBLE),
    "kl_target": Case(
        partial(SVAE, objective=Objective(beta_steps=0, kl_target=2.0, kl_target_steps=9)),
        {},
        DOUBLE,
    ),
    "score_function": Case(
        partial(
            TINY_VAE,
            objective=Objective(gradient="score_function", num_samples=3, free_bits=0.2),
        ),
        {},
        DOUBLE,
    ),
    "iwae": Case(partial(TINY_VAE, objective=Objective(bound="iwae", num_samples=3)), {}, DOUBLE),
    "sessions": Case(
        partial(RICH_SVAE, read_in=LinearReadIn),
        {**RICH, "source": SESSIONS, "batch_size": 7, "sessions_per_batch": 1},
        DOUBLE,
    ),
    "accumulated": Case(
        SVAE, {}, {**DOUBLE, "accumulate_grad_batches": 2, "gradient_clip_val": 1.0}
    ),
    "few_trials": Case(SVAE, {"source": ONE_TO_VALIDATE, "batch_size": 6}, DOUBLE),
    "unused_parameters": Case(
        partial(
            VAE,
            latent_dim=2,
            encoder=partial(MLP, head=DeltaHead),
            prior=LearnableNormal,
            objective=Objective(beta=0.0),
        ),
        {},
        DOUBLE,
        {"select": "val/log_likelihood"},
    ),
    "unamortised": Case(
        partial(VAE, latent_dim=2, encoder=FreeGaussian),
        {},
        {**DOUBLE, "limit_val_batches": 0},
    ),
    "early_stopping": Case(IMPATIENT, {}, DOUBLE, {"patience": 2}),
    "refitted": Case(TINY_VAE, RICH, DOUBLE, {"refit": True, "average_weights": 0.8}),
    "single_svae": Case(RICH_SVAE, RICH, SINGLE),
    "single_vae": Case(TINY_VAE, RICH, SINGLE),
    "single_flds": Case(TINY_FLDS, RICH, SINGLE),
    "mixed_svae": Case(RICH_SVAE, RICH, MIXED),
    "mixed_vae": Case(TINY_VAE, RICH, MIXED),
    "mixed_flds": Case(TINY_FLDS, RICH, MIXED),
}


def fit_case(
    name: str, run_dir: str, *, devices: int, epochs: int = EPOCHS, resume: bool = False
) -> Run:
    """Do a fit, without figures."""
    model, data, trainer, learner = CASES[name]
    settings = {"source": UNEVEN, "batch_size": 32, "eval_batch_size": 4, **data}
    trainer = {"devices": devices, **trainer}
    with patch.object(figures, "draw_figures", lambda *_: {}):
        return fit(
            NeuralData(**settings),
            model,
            tiny_learner(epochs, trainer=trainer, **learner),
            run_dir=run_dir,
            resume=resume,
        )


def fit_all(folder: str) -> None:
    """Do every fit as one of two processes, and resume one of two and one of one."""
    for name in CASES:
        fit_case(name, f"{folder}/{name}", devices=2)
    fit_case("svae", f"{folder}/two_two", devices=2, epochs=3)
    fit_case("svae", f"{folder}/two_two", devices=2, resume=True)
    fit_case("svae", f"{folder}/two_one", devices=2, epochs=3)
    fit_case("svae", f"{folder}/one_two", devices=2, resume=True)
    train_plainly(folder, devices=2)


def train_plainly(folder: str, *, devices: int) -> None:
    """Train, score and predict with Lightning's own Trainer."""
    data = NeuralData(UNEVEN, batch_size=32, eval_batch_size=4)
    torch.manual_seed(0)
    model = partial(VAE, latent_dim=2, factor_dim=4)(data.spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            devices=devices, accelerator="cpu", strategy="ddp" if devices > 1 else "auto",
            precision="64-true", max_epochs=2, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, data)
        (told,) = trainer.validate(model, data, verbose=False)
        predicted = trainer.predict(model, data)
    told["predicted"] = sum(gathered(sum(len(batch["mean"]) for batch in predicted), devices))
    if trainer.is_global_zero:
        torch.save((model.state_dict(), told), f"{folder}/plain.pt")


def refuse() -> None:
    """The second refuses, while the first waits for it."""
    if os.environ["LOCAL_RANK"] == "1":
        raise InputError("lr must be below 1, got 2")
    time.sleep(60)


def be_killed() -> None:
    """The second is killed, and the first fails for it."""
    if os.environ["LOCAL_RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    raise RuntimeError("connection closed by peer")


def be_interrupted() -> None:
    """Both are interrupted, as by a terminal."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
