"""What the recursion of the controlled decoder shares between its two passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.nn.gru_path import GRUPath, Steps, steps
from seqvae.nn.gru_products import CellWeights, InputSizes


class ControlledBuffers(NamedTuple):
    """What the recursion keeps for its backward pass, beside its results."""

    controller: GRUPath
    generator: GRUPath


class ControlledWeights(NamedTuple):
    """The parameters of the recursion.

    Attributes:
        controller: cell whose input is [encoding, factors].
        generator: cell whose input is [inferred input, external inputs].
        posterior: weight of [mean, raw std] of the inferred input.
        posterior_bias: its bias.
        factors: readout of the factors.
        start: first state of the controller.
    """

    controller: CellWeights
    generator: CellWeights
    posterior: Float[Tensor, "two_inferred controller"]
    posterior_bias: Float[Tensor, " two_inferred"]
    factors: Float[Tensor, "factor generator"]
    start: Float[Tensor, " controller"]


def input_sizes(
    encoding: Tensor, factors: Tensor, inferred: Tensor, external: Tensor
) -> tuple[InputSizes, InputSizes]:
    """Return the input sizes of controller and generator."""
    return (
        InputSizes(sequence=encoding.shape[1], feedback=factors.shape[1]),
        InputSizes(sequence=external.shape[1], feedback=inferred.shape[1], sequence_last=True),
    )


def masked_block(
    values: Float[Tensor, "time _ _"], mask: Float[Tensor, "time _ _"] | None, block: slice
) -> Float[Tensor, "steps _ _"]:
    """Return the values of a block of steps that dropout leaves."""
    return values[block] if mask is None else values[block] * mask[block]


def steps_or_none(mask: Tensor | None) -> Steps | None:
    """Return a mask step by step; None: no dropout."""
    return None if mask is None else steps(mask)


def with_bias(weights: ControlledWeights) -> Float[Tensor, "two_inferred controller_one"]:
    """Return the weight of the posterior with its bias as one more column."""
    return torch.cat([weights.posterior, weights.posterior_bias[:, None]], dim=1)


def flatten(weights: ControlledWeights) -> list[Tensor]:
    """Return the parameters as torch's autograd takes them, one after the other."""
    return [*weights.controller, *weights.generator, *weights[2:]]


def unflatten(flat: Sequence[Tensor]) -> ControlledWeights:
    """Return the parameters that ``flatten`` has laid out."""
    return ControlledWeights(CellWeights(*flat[:4]), CellWeights(*flat[4:8]), *flat[8:])
