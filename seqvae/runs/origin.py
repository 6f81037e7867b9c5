"""Fine-tuning: the fitted model whose weights a fit begins with."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqvae.data import NeuralData
from seqvae.data.neurons import check_same_neurons
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.runs.beginning import take_over
from seqvae.runs.run import Run

_MOST_SENTENCES = 10


@dataclass(frozen=True)
class Origin:
    """A fitted model to begin from, and what is noted of it.

    Attributes:
        run: the run folder, as it was given, or what else there is to be said of a run in memory.
        model: its model, with its best weights.
        names: of its neurons, where it knows them.
    """

    run: str
    model: Model
    names: np.ndarray | None = None

    @classmethod
    def read(cls, run: Run | str, *, trust: bool = False) -> Origin:
        """Read the model of a run: its weights, without pickle.

        Args:
            run: a run or its folder.
            trust: allow its config to import classes from anywhere.

        Raises:
            InputError: if it is no run, or cannot be read.
        """
        try:
            fitted = run if isinstance(run, Run) else Run(run)
            model, names = fitted.model(trust=trust), fitted.neuron_names(trust=trust)
        except InputError as error:
            raise InputError(f"init_from: {error}") from error
        if fitted.members:
            listed = ", ".join(member["run"] for member in fitted.members.values())
            raise InputError(f"init_from: {run} is an ensemble; begin with a member ({listed})")
        return cls(str(fitted.folder or fitted), model, names)

    @classmethod
    def again(
        cls, content: Mapping[str, Any], where: Path, *, trust: bool = False
    ) -> Origin | None:
        """Read the model that a fit has begun from, as its provenance tells; None: from none.

        Args:
            content: of the provenance.
            where: the run that it tells of, for the error.
            trust: allow the config of the former run to import classes from anywhere.

        Raises:
            InputError: if it is gone, or other than it was.
        """
        note = content.get("init_from")
        if note is None:
            return None
        what = f"init_from: {where} began from {note['run']!r}"
        try:
            origin = cls.read(note["run"], trust=trust)
        except InputError as error:
            reason = str(error).removeprefix("init_from: ")
            raise InputError(f"{what}, which cannot be read: {reason}") from error
        if origin.note != note:
            raise InputError(f"{what}, which has learned other weights since; give init_from, "
                             "a copy of what it was")  # fmt: skip
        return origin

    @property
    def note(self) -> dict[str, str]:
        """What provenance tells: the folder, and a hash of the weights."""
        return {"run": self.run, "hash": weights_hash(self.model.state_dict())}

    def check(self, data: NeuralData, model: Model) -> None:
        """Refuse weights of other neurons than the data have, in so far as they have a place.

        Args:
            data: to learn from.
            model: that begins.

        Raises:
            InputError: naming the first neuron that differs.
        """
        try:
            check_same_neurons(
                data.spec,
                data.recording.neuron_names,
                self.model.spec,
                self.names,
                reads_heldin=not (self.model.serves_any_heldin and model.serves_any_heldin),
            )
        except InputError as error:
            raise InputError(f"init_from: {error}") from error

    def hand_over(self, model: Model) -> None:
        """Give its weights to an initialised model, and warn of what does not fit.

        Raises:
            InputError: if nothing does.
        """
        apart = take_over(model, self.model, key="init_from")
        if apart:
            more = len(apart) - _MOST_SENTENCES
            told = [*apart[:_MOST_SENTENCES], *([f"and {more} more"] if more > 0 else [])]
            warnings.warn(
                f"init_from: not everything is taken over from {self.run}: {'; '.join(told)}",
                stacklevel=3,
            )


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Sixteen hex digits of names, shapes and numbers."""
    digest = hashlib.sha256()
    for name, weight in state.items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        plain = weight.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
