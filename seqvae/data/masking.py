"""Hiding entries of a batch: coordinated dropout for learning, speckles for selection."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.errors import InputError
from seqvae.types import Batch


@dataclass(frozen=True)
class CoordinatedDropout:
    """Hide entries from the encoder and score only what it did not see, so it cannot copy.

    Every entry given to the encoder is hidden with probability p = ``rate``; the deviations of the
    shown ones from ``center`` are scaled by 1 / (1 - p). A hidden entry is scored, a shown one with
    probability r = ``pass_rate``; whatever is scored has weight 1 / (p + (1 - p) r). So for a fixed
    ``Output`` the mean over masks is the log-likelihood without dropout. Entries never given to the
    encoder keep their weight. [Keshtkaran & Pandarinath 2019]

    Attributes:
        rate: p, probability that an entry is hidden; 0 switches the dropout off.
        pass_rate: r, probability that a shown entry is scored all the same.
    """

    rate: float
    pass_rate: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise InputError(
                f"coordinated_dropout.rate must be from 0 to below 1, got {self.rate:g}"
            )
        if not 0 <= self.pass_rate <= 1:
            raise InputError(
                f"coordinated_dropout.pass_rate must be from 0 to 1, got {self.pass_rate:g}"
            )

    def __call__(
        self,
        batch: Batch,
        heldin: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        center: Float[Tensor, " heldin"] | float = 0.0,
    ) -> Batch:
        """Return the batch with a fresh mask.

        Args:
            batch: as ``NeuralData`` makes it.
            heldin: indices of the neurons in ``batch.observed``.
            generator: source of randomness; None: torch's own.
            center: what a hidden entry counts as; the mean of each neuron makes the dropout the
                same whatever the offset of the data.
        """
        if self.rate == 0:
            return batch
        given, device = batch.observed_mask, batch.observed.device
        draw = torch.rand(given.shape, generator=generator, device=device)
        hidden = draw < self.rate
        share_scored = self.rate + (1 - self.rate) * self.pass_rate
        factor = (draw < share_scored) / share_scored
        factor = torch.where(given, factor, 1).to(batch.weight.dtype)
        block = _encoded_weight(batch, heldin) * factor
        return replace(
            batch,
            **_shown(batch, hidden, self.rate, center),
            weight=_with_encoded_weight(batch.weight, block, heldin),
        )


def speckle(
    batch: Batch,
    heldin: tuple[int, ...],
    fraction: float,
    *,
    seed: int,
    center: Float[Tensor, " heldin"] | float = 0.0,
) -> Batch:
    """Hide a fixed random set of held-in encoded entries and score these alone.

    The set hangs on ``seed`` and ``batch.trial`` only: an entry is hidden in whatever batch it
    comes. Shown entries are scaled about ``center`` by 1 / (1 - fraction), as coordinated dropout
    does; the weight is 1 at hidden entries that were observed, 0 elsewhere.
    """
    shape = tuple(batch.observed.shape[1:])
    draws = [np.random.default_rng([seed, trial]).random(shape) for trial in batch.trial.tolist()]
    hidden = torch.from_numpy(np.stack(draws) < fraction).to(batch.observed.device)
    scored = hidden & batch.observed_mask & (_encoded_weight(batch, heldin) > 0)
    return replace(
        batch,
        **_shown(batch, hidden, fraction, center),
        weight=_with_encoded_weight(
            torch.zeros_like(batch.weight), scored.to(batch.weight.dtype), heldin
        ),
    )


def _shown(
    batch: Batch, hidden: Tensor, rate: float, center: Float[Tensor, " heldin"] | float
) -> dict[str, Tensor]:
    """Return ``observed`` and its mask without the hidden entries."""
    shown = batch.observed_mask & ~hidden
    scaled = center + (batch.observed - center) / (1 - rate)
    return {"observed": torch.where(shown, scaled, 0), "observed_mask": shown}


def _covers_all(weight: Tensor, heldin: tuple[int, ...]) -> bool:
    return heldin == tuple(range(weight.shape[2]))


def _encoded_weight(
    batch: Batch, heldin: tuple[int, ...]
) -> Float[Tensor, "batch encoded_time heldin"]:
    block = batch.weight[:, : batch.observed.shape[1]]
    if _covers_all(batch.weight, heldin):
        return block
    return block.index_select(2, torch.tensor(heldin, device=block.device))


def _with_encoded_weight(
    weight: Float[Tensor, "batch time neuron"],
    block: Float[Tensor, "batch encoded_time heldin"],
    heldin: tuple[int, ...],
) -> Float[Tensor, "batch time neuron"]:
    num_encoded = block.shape[1]
    if not _covers_all(weight, heldin):
        index = torch.tensor(heldin, device=weight.device)
        block = weight[:, :num_encoded].index_copy(2, index, block)
    return torch.cat([block, weight[:, num_encoded:]], dim=1)
