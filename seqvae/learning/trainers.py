"""Lightning's Trainer, made from the user's settings and ours."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from seqvae.errors import Terminated
from seqvae.learning.checkpoints import SaveLast, WholeFiles
from seqvae.learning.progress import Progress

DEFAULT_TRAINER = partial(
    Trainer,
    max_epochs=300,
    gradient_clip_val=200.0,
    accelerator="auto",
    devices=1,
    logger=False,
    check_val_every_n_epoch=1,
    num_sanity_val_steps=0,
    log_every_n_steps=1,
    enable_model_summary=False,
)


def build_trainer(
    factory: partial[Trainer],
    callbacks: Sequence[Callback],
    *,
    bar: Progress | None,
    folder: Path | None,
    changes: Mapping[str, Any],
) -> Trainer:
    """Build a Trainer, our callbacks after the user's.

    Args:
        factory: with the user's settings.
        callbacks: ours.
        bar: the progress bar, unless the user has one; None: none is shown.
        folder: where files of the fit may lie.
        changes: settings in place of the user's.
    """
    user_settings: dict[str, Any] = factory.keywords
    user_callbacks = callbacks_of(factory)
    is_shown = bar is not None and user_settings.get("enable_progress_bar", True)
    has_own_bar = any(isinstance(callback, ProgressBar) for callback in user_callbacks)
    bars = [bar] if bar is not None and is_shown and not has_own_bar else []
    saves = any(isinstance(callback, SaveLast) for callback in callbacks)
    settings = {
        "default_root_dir": None if folder is None else str(folder),
        **user_settings,
        **changes,
        "callbacks": [*user_callbacks, *callbacks, *bars],
        # SaveLast; Lightning's own is not added beside it
        "enable_checkpointing": saves or user_settings.get("enable_checkpointing", False),
        "enable_progress_bar": is_shown,
    }
    if settings["accelerator"] == "auto" and torch.backends.mps.is_available():
        settings["accelerator"] = "cpu"  # scores are summed in float64, which MPS lacks
    trainer: Trainer = factory.func(**settings)
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeFiles()
    return trainer


def callbacks_of(factory: partial[Trainer]) -> list[Callback]:
    """Return the user's callbacks."""
    callbacks = factory.keywords.get("callbacks") or []
    return callbacks if isinstance(callbacks, list) else [callbacks]


@contextmanager
def interruptible() -> Iterator[None]:
    """Let an interrupt or a termination surface as what it is; Lightning leaves SIGINT ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException as exit_:
        raise Terminated from exit_
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt) and not isinstance(exit_, Terminated):
            raise KeyboardInterrupt from exit_
        raise
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
