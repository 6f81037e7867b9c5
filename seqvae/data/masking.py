"""Hiding entries of a batch: coordinated dropout for learning, speckles for selection."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from seqvae.compute import noise
from seqvae.compute.noise import LEVELS, LOWEST
from seqvae.errors import InputError
from seqvae.types import Batch, DataSpec


@dataclass(frozen=True)
class CoordinatedDropout:
    """Hide entries from the encoder and score only what it did not see, so it cannot copy.

    Every entry given to the encoder is hidden with probability p = ``rate``; the deviations of the
    shown ones from ``center`` are scaled by 1 / (1 - p). A hidden entry is scored, a shown one with
    probability r = ``pass_rate``; whatever is scored has weight 1 / (p + (1 - p) r). So for a fixed
    ``Output`` the mean over masks is the log-likelihood without dropout. Entries never given to the
    encoder keep their weight. The probabilities to be hidden and to be scored are rounded to
    multiples of 1 / 65536. [Keshtkaran & Pandarinath 2019]

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
        *,
        center: Float[Tensor, " heldin"] | float = 0.0,
    ) -> Batch:
        """Return the batch with a fresh mask, by ``seqvae.compute.noise``.

        Args:
            batch: as ``NeuralData`` makes it.
            heldin: indices of the neurons in ``batch.observed``.
            center: what a hidden entry counts as; the mean of each neuron makes the dropout the
                same whatever the offset of the data.
        """
        if self.rate == 0:
            return batch
        num_hidden = min(max(round(self.rate * LEVELS), 1), LEVELS - 1)
        share_scored = self.rate + (1 - self.rate) * self.pass_rate
        num_scored = max(round(share_scored * LEVELS), num_hidden)
        mask = batch.observed_mask
        # one, so that what is hidden is scored
        draw = noise.int16(mask.shape, like=mask, axis=0)
        scored = torch.empty_like(draw, dtype=batch.weight.dtype)
        torch.le(draw, LOWEST + num_scored - 1, out=scored)
        factor = torch.where(mask, scored.mul_(LEVELS / num_scored), 1.0)
        return replace(
            _shown(batch, draw < LOWEST + num_hidden, num_hidden / LEVELS, center),
            weight=_among_all(factor, batch.weight, heldin, fill=1.0).mul_(batch.weight),
        )


def speckle(
    batch: Batch,
    spec: DataSpec,
    fraction: float,
    *,
    seed: int,
    center: Float[Tensor, " heldin"] | float = 0.0,
) -> Batch:
    """Hide a fixed random set of held-in encoded entries and score these alone.

    The set depends on ``seed`` and ``batch.trial`` only: an entry is hidden in whatever batch it
    comes. Shown entries are scaled about ``center`` by 1 / (1 - fraction), as coordinated dropout
    does; the weight is 1 at hidden entries that were observed, 0 elsewhere.

    Args:
        batch: as ``NeuralData`` makes it, of all neurons or some.
        spec: of all neurons.
        fraction: how many of the entries are hidden.
        seed: of the set.
        center: what a hidden entry of each held-in neuron counts as.
    """
    shape, heldin = (batch.observed.shape[1], spec.num_heldin), spec.heldin
    draws = [np.random.default_rng([seed, trial]).random(shape) for trial in batch.trial.tolist()]
    if batch.neurons is not None:
        places, heldin = spec.heldin_among(batch.neurons), spec.among(batch.neurons).heldin
        draws = [draw[:, places] for draw in draws]
        center = center[places] if isinstance(center, Tensor) else center
    hidden = torch.from_numpy(np.stack(draws) < fraction).to(batch.observed.device)
    scored = (hidden & batch.observed_mask).to(batch.weight.dtype)
    return replace(
        _shown(batch, hidden, fraction, center),
        weight=_among_all(scored, batch.weight, heldin, fill=0.0).mul_(batch.weight > 0),
    )


def _shown(
    batch: Batch, hidden: Tensor, rate: float, center: Float[Tensor, " heldin"] | float
) -> Batch:
    """Return the batch with ``observed`` and its mask without the hidden entries."""
    shown = batch.observed_mask & ~hidden
    center = torch.as_tensor(center).to(batch.observed)
    scaled = torch.lerp(center, batch.observed, 1 / (1 - rate))
    return replace(batch, observed=scaled.mul_(shown), observed_mask=shown)


def _among_all(
    block: Float[Tensor, "batch encoded_time heldin"],
    like: Float[Tensor, "batch time neuron"],
    heldin: tuple[int, ...],
    *,
    fill: float,
) -> Float[Tensor, "batch time neuron"]:
    """Return the block at its place among all bins and neurons, and ``fill`` elsewhere."""
    num_bins, num_neurons = like.shape[1:]
    first, last = heldin[0], heldin[0] + len(heldin) - 1
    if heldin == tuple(range(first, last + 1)):
        around = (first, num_neurons - 1 - last, 0, num_bins - block.shape[1])
        return functional.pad(block, around, value=fill)
    whole = torch.full_like(like, fill)
    index = torch.tensor(heldin, device=block.device)
    whole[:, : block.shape[1]].index_copy_(2, index, block)
    return whole
