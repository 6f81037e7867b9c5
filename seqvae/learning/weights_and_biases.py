"""Logging to Weights & Biases: into the run folder, offline without an account, one run a fit."""

from __future__ import annotations

import json
import netrc
import os
import re
import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import WandbLogger

from seqvae.errors import InputError, UnwritableError
from seqvae.storage.files import RunFiles, write_text
from seqvae.storage.yaml_json import read_json

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@contextmanager
def wandb_run(trainer: Trainer, folder: Path | None) -> Iterator[None]:
    """Start W&B runs in the run folder and close them after the fit; W&B never prompts.

    Without a W&B logger this does nothing. A W&B run that was open before stays open. The ids that
    W&B knows them by are kept in the run folder: a fit that is resumed goes on with its own. A W&B
    that fails is warned of, and costs no fit.

    Args:
        trainer: its loggers are looked at.
        folder: where W&B writes, unless the logger names a ``save_dir``, and where the ids are
            kept; None: W&B writes as it likes, and no id is kept.
    """
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    if not (loggers and trainer.is_global_zero):
        yield
        return
    import wandb

    before = wandb.run
    nameless = [logger for logger in loggers if logger._id is None]
    ids = [] if folder is None else kept_ids(folder, len(nameless))
    for logger in loggers:
        if logger.save_dir in (None, ".") and folder is not None:
            logger._wandb_init["dir"] = str(folder)  # W&B's own default is where you stand
        if logger._experiment is not before:
            logger._experiment = None  # an earlier fit with this logger has closed it
    with unprompted():
        try:
            for logger, wandb_id in zip(nameless, ids, strict=False):
                logger._id = logger._wandb_init["id"] = wandb_id
            for logger in loggers:
                _start(logger, trainer)
            yield
        finally:
            for logger in nameless:  # which may serve another fit
                logger._id = logger._wandb_init["id"] = None
            if wandb.run is not None and wandb.run is not before:
                _finish(wandb.run)


def _start(logger: WandbLogger, trainer: Trainer) -> None:
    """Start the run of a logger; one that cannot be started is left out of the fit."""
    try:
        _ = logger.experiment
    except Exception as error:
        warnings.warn(f"W&B cannot be started, and logs nothing: {error!r}", stacklevel=4)
        trainer.loggers = [other for other in trainer.loggers if other is not logger]


def _finish(run: Any) -> None:
    try:
        run.finish()
    except Exception as error:
        warnings.warn(f"W&B could not close its run: {error!r}", stacklevel=4)


def kept_ids(folder: Path, count: int) -> list[str]:
    """Return the ids by which W&B knows the runs of a folder; new ones are written there.

    A first id that the environment names, as an agent of a sweep does, is that of this folder, and
    a fit that is resumed later, without the agent, goes on with it.

    Args:
        folder: of a fit or of a cross-validation.
        count: how many runs there are.
    """
    path = RunFiles(folder).wandb_ids
    ids: list[str] = []
    with suppress(OSError, InputError, TypeError):
        there = read_json(path, str(path))
        ids = [one for one in there if isinstance(one, str) and _ID.fullmatch(one)]
    agents = os.environ.get("WANDB_RUN_ID", "")
    is_new = bool(_ID.fullmatch(agents)) and ids[:1] != [agents]
    if is_new:
        ids[:1] = [agents]
    if len(ids) < count or is_new:
        ids += [secrets.token_hex(4) for _ in range(count - len(ids))]
        with suppress(UnwritableError):  # what matters more will tell of that disk
            write_text(path, json.dumps(ids) + "\n")
    return ids[:count]


def wandb_loggers_of(learner: object) -> list[WandbLogger]:
    """Return the W&B loggers that a learner's Trainer is to have."""
    logger = getattr(getattr(learner, "trainer", None), "keywords", {}).get("logger")
    several = logger if isinstance(logger, Sequence) else [logger]
    return [one for one in several if isinstance(one, WandbLogger)]


def wandb_runs(loggers: Sequence[object]) -> list[Any]:
    """Return the W&B runs that are open for loggers."""
    return [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]


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
