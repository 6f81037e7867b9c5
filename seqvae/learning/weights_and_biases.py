"""Logging to Weights & Biases: into the run folder, offline without an account, one run a fit."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import WandbLogger


@contextmanager
def wandb_run(trainer: Trainer, folder: Path | None) -> Iterator[None]:
    """Start W&B runs in the run folder and close them after the fit; W&B never prompts.

    Without a W&B logger this does nothing. A W&B run that was open before stays open.

    Args:
        trainer: its loggers are looked at.
        folder: where W&B writes, unless the logger names a ``save_dir``; None: as W&B likes.
    """
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    if not (loggers and trainer.is_global_zero):
        yield
        return
    import wandb

    before = wandb.run
    for logger in loggers:
        if logger.save_dir in (None, ".") and folder is not None:
            logger._wandb_init["dir"] = str(folder)  # W&B's own default is where you stand
        if logger._experiment is not before:
            logger._experiment = None  # an earlier fit with this logger has closed it
    with unprompted():
        try:
            yield
        finally:
            if wandb.run is not None and wandb.run is not before:
                wandb.run.finish()


@contextmanager
def unprompted() -> Iterator[None]:
    """Keep W&B silent, and offline without an account, unless the environment says otherwise."""
    settings = {"WANDB_SILENT": "true"} | ({} if has_account() else {"WANDB_MODE": "offline"})
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def has_account() -> bool:
    """Whether W&B would find a key without asking: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1]
    home = Path.home()
    places = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [home / ".netrc"]
    for path in [*places, home / "_netrc"]:
        try:
            if server.split("/")[0].split(":")[0] in netrc.netrc(path).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
