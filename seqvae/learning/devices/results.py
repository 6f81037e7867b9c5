"""What training in processes of their own brings back: the best weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from seqvae.learning.devices.spawning import in_processes
from seqvae.learning.observers import Observer, Stage
from seqvae.storage.weights import load_weights, save_weights


class BestWeights(Observer):
    """Writes the best weights to a file, for the process that has asked for them.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def best(self, stage: Stage, score: float, *, is_final: bool = False) -> None:
        """Write them."""
        save_weights(self.path, stage.model, step=stage.step, score=score)


def learn_in_processes(
    learn: Callable[..., None],
    model: nn.Module,
    observers: Sequence[Observer],
    *,
    count: int,
    former: Path | None,
) -> None:
    """Learn in ``count`` new processes, and give the model of this one the best weights.

    Args:
        learn: what each does, given ``observers``; to be pickled.
        model: takes the weights.
        observers: of the fit.
        count: of processes.
        former: the best weights of a fit that goes on, if nothing better is found; None: none.

    Raises:
        InputError: what ``in_processes`` refuses.
    """
    with tempfile.TemporaryDirectory(prefix="seqvae-fit-") as folder:
        result = BestWeights(Path(folder) / "weights.pt")
        in_processes(partial(learn, observers=(*observers, result)), count)
        path = result.path if result.path.exists() else former
        if path is not None and path.exists():
            load_weights(path, model)
