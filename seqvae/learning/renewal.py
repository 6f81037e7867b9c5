"""Going on from a checkpoint with another optimiser or schedule than it was saved with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from seqvae.runs.folder import CHECKPOINT_SETTINGS, RENEWABLE, settings_of


class Renewal(Callback):
    """Notes the settings of optimiser and schedule in checkpoints, and lets new ones win.

    A setting of the optimiser that differs from the checkpoint's is in force from the next step
    on; its moments are kept, unless it is of another class. With another learning rate, schedule
    or class of optimiser the schedule begins anew, at the learning rate of the settings.

    Args:
        config: the complete config tree of the fit.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        arguments = config["model"].get("init_args", {})
        self.settings = {name: arguments.get(name) for name in RENEWABLE}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note the settings."""
        checkpoint[CHECKPOINT_SETTINGS] = self.settings

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put what is new in the place of what was, before Lightning restores it."""
        former = settings_of(checkpoint)
        if former is not None and former != self.settings:
            _renew(checkpoint, pl_module, former=former, now=self.settings)


def _renew(
    checkpoint: dict[str, Any], model: Any, *, former: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    optimizer = model.make_optimizer(model.parameter_groups())
    if model.make_schedule is not None:
        model.make_schedule(optimizer)  # which may set the learning rate of its first epoch
    names = _differing(former["optimizer"], now["optimizer"])
    begins_anew = former["schedule"] != now["schedule"] or bool(names & {"class_path", "lr"})
    if begins_anew:
        checkpoint["lr_schedulers"] = []
        names = set(optimizer.param_groups[0]) - {"params"}
    if former["optimizer"]["class_path"] != now["optimizer"]["class_path"]:
        checkpoint["optimizer_states"] = [optimizer.state_dict()]
    (state,) = checkpoint["optimizer_states"]
    for group, fresh in zip(state["param_groups"], optimizer.param_groups, strict=True):
        group.update({name: fresh[name] for name in names & set(fresh)})


def _differing(former: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """Return the names of the settings in which two parts differ, ``class_path`` among them."""
    one, other = (
        {"class_path": part["class_path"], **part.get("init_args", {})} for part in (former, now)
    )
    return {name for name in {**one, **other} if one.get(name) != other.get(name)}
