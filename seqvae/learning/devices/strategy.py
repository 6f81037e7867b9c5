"""On which devices a training runs, and who starts a process for each."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from seqvae.compute.ranks import Place
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.models import LatentVariableModel
from seqvae.objectives import training_loss

_BARE = {"logger": False, "callbacks": None, "enable_checkpointing": False}
_UNUSED = "_find_unused_parameters_true"


class DevicePlan(NamedTuple):
    """How a training is spread over devices.

    Attributes:
        settings: of the Trainer, in place of the user's.
        place: of this process among those that run the same command.
        to_start: processes that this one must start, which then train in its stead; 0: it trains.
        seeks_unused: whether parameters without a gradient must be looked for.
        warning: what the user should know.
    """

    settings: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    place: Place = Place()
    to_start: int = 0
    seeks_unused: bool = False
    warning: str | None = None


def plan_devices(trainer: partial[Trainer]) -> DevicePlan:
    """Decide how to train on the devices that the settings of a Trainer ask for.

    One device needs nothing. For several on one machine the processes are started from here, unless
    that was done already, by ``srun`` or ``torchrun``. An explicit strategy stays; ``ddp_spawn`` is
    what is done without.

    Raises:
        InputError: for settings that Lightning refuses, or that are not what has been started.
    """
    strategy = trainer.keywords.get("strategy", "auto")
    if not isinstance(strategy, str):  # an instance serves one Trainer only
        rank = getattr(rank_zero_only, "rank", None) or 0
        return DevicePlan(place=Place(rank, started=rank + 1))
    try:
        with quiet():
            warnings.simplefilter("ignore")  # told when the real one is made
            probe = trainer.func(**{**trainer.keywords, **_BARE})
            lightning_strategy = probe.strategy
            environment = getattr(lightning_strategy, "cluster_environment", None)
            if environment is not None and probe.world_size > 1:
                environment.validate_settings(probe.num_devices, probe.num_nodes)
    except (ValueError, MisconfigurationException) as error:
        raise InputError(f"trainer: {error}") from error
    is_ours = strategy == "auto" or strategy.startswith("ddp_spawn")
    if probe.world_size == 1:
        if TorchElasticEnvironment.detect() and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise InputError(
                f"trainer.devices is 1, but torchrun has started {os.environ['WORLD_SIZE']} "
                "processes; set it to those of a node"
            )
        return DevicePlan({"strategy": "auto"} if is_ours else {})
    if not isinstance(lightning_strategy, ParallelStrategy) or not is_ours:
        return DevicePlan(place=Place(probe.global_rank, probe.world_size))
    assert environment is not None
    settings = {"strategy": "ddp"}
    if environment.creates_processes_externally or probe.num_nodes > 1:
        return DevicePlan(settings, Place(probe.global_rank, probe.world_size), seeks_unused=True)
    if hasattr(sys, "ps1"):
        first = 1 if isinstance(probe.accelerator, CPUAccelerator) else probe.device_ids[:1]
        message = (
            f"trainer.devices: a notebook cannot start a process for each of {probe.num_devices} "
            "devices, so one is used; train on several from a script or the command line"
        )
        return DevicePlan({"strategy": "auto", "devices": first}, warning=message)
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)  # a script without a guard: whoever has started this one says so
    return DevicePlan(settings, to_start=probe.num_devices, seeks_unused=True)


def unused_parameters(model: LatentVariableModel, data: NeuralData) -> list[str]:
    """Return the names of the parameters that the loss does not depend on."""
    wanted = {n: p for n, p in model.named_parameters() if p.requires_grad and p.numel()}
    batch = data.batch(data.trials("train")[:2]).to(model.null_counts)
    with torch.random.fork_rng(), torch.enable_grad():
        output = model(batch, model.objective.num_samples)
        loss = training_loss(model.objective, output, batch, step=0).value
        gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return [name for name, gradient in zip(wanted, gradients, strict=True) if gradient is None]


def strategy_for(
    device_plan: DevicePlan, model: LatentVariableModel, data: NeuralData
) -> dict[str, Any]:
    """Return a plan's settings for a model: parameters without a gradient must be looked for."""
    if device_plan.seeks_unused and unused_parameters(model, data):
        return {**device_plan.settings, "strategy": device_plan.settings["strategy"] + _UNUSED}
    return device_plan.settings


def check_strategy(
    device_plan: DevicePlan, strategy: object, model: LatentVariableModel, data: NeuralData
) -> None:
    """Refuse a strategy of the user's own that would fail on a model, before anything is written.

    Raises:
        InputError: naming a parameter that has no gradient.
    """
    if strategy in ("ddp", "ddp_find_unused_parameters_false") and device_plan.place.started > 1:
        unused = unused_parameters(model, data)
        if unused:
            raise InputError(
                f"trainer.strategy={strategy!r} cannot train {type(model).__name__} as it is set, "
                f"whose parameter {unused[0]!r} has no gradient; set "
                f"'ddp{_UNUSED}' or leave strategy out"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's advice that does not apply here."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        # a resumed run may have another learner
        warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
