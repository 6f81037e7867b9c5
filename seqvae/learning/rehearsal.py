"""What training by gradients needs, tried before anything is written."""

from __future__ import annotations

from functools import partial

from pytorch_lightning import Trainer

from seqvae.analysis.posterior import deterministic
from seqvae.data import NeuralData
from seqvae.errors import InputError, nearest
from seqvae.learning.devices.strategy import check_strategy, plan_devices
from seqvae.models import LatentVariableModel
from seqvae.objectives import has_elbo

_ABOVE_ZERO = (
    "max_epochs",
    "check_val_every_n_epoch",
    "val_check_interval",
    "accumulate_grad_batches",
    "limit_train_batches",
)


def check_select(
    select: str, trainer: partial[Trainer], model: LatentVariableModel, data: NeuralData
) -> None:
    """Refuse a score that the validation of a model on some data does not have.

    Args:
        select: its name.
        trainer: factory of the Trainer.
        model: the model to train.
        data: the data to train it on.

    Raises:
        InputError: naming the score and what it needs.
    """
    if select.startswith("val/speckled") and data.speckled_fraction == 0:
        raise InputError(
            f"select={select!r} needs hidden entries: set data.speckled_fraction, e.g. 0.1"
        )
    if select == "val/co_bps" and not data.spec.heldout:
        raise InputError("select='val/co_bps' needs held-out neurons: set data.heldout, e.g. 0.2")
    validates = "val" in data.split and trainer.keywords.get("limit_val_batches") != 0
    if model.keeps_trials and validates:
        raise InputError(
            f"select={select!r}: an encoder that keeps a posterior for each trial knows "
            "nothing of validation trials, so they can select nothing; set "
            "trainer.limit_val_batches to 0"
        )
    scores = ["heldin_elbo", "elbo", "iwae", "log_likelihood", "speckled_log_likelihood"]
    scores += ["heldout_log_likelihood"] if data.spec.heldout else []
    if model.observation.kind.counts_events:
        scores += ["bits_per_spike", "co_bps", "speckled_bps"]
        scores += ["fp_bps"] if data.spec.num_forecast_bins else []
    if select not in (names := [f"val/{score}" for score in scores]):
        raise InputError(f"select={select!r} is no validation score{nearest(select, names)}")


def rehearse(
    select: str, trainer: partial[Trainer], model: LatentVariableModel, data: NeuralData
) -> None:
    """Make what training needs, and show the model two trials, for what they may refuse.

    Args:
        select: name of the score that picks the best weights.
        trainer: factory of the Trainer.
        model: the model to train.
        data: the data to train it on.

    Raises:
        InputError: naming the setting and what it needs.
    """
    settings = trainer.keywords
    for name in _ABOVE_ZERO:
        if settings.get(name) == 0:
            raise InputError(f"trainer.{name} must be above 0, got {settings[name]}")
    check_strategy(plan_devices(trainer), settings.get("strategy", "auto"), model, data)
    try:
        optimizer = model.make_optimizer(model.parameter_groups())
        if model.make_schedule is not None:
            model.make_schedule(optimizer)
    except ValueError as error:
        raise InputError(f"optimizer or schedule: {error}") from error
    with deterministic(model, seed=0):
        output = model(data.batch(data.trials("train")[:2]))
    if select in ("val/heldin_elbo", "val/elbo", "val/iwae") and not has_elbo(output):
        raise InputError(
            f"select={select!r} needs a posterior with a density, which a point has not; "
            "select 'val/log_likelihood' or a speckled score"
        )
