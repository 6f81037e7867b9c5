"""Feed-forward blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from torch import nn

from seqvae.nn.dropout import Dropout


def feed_forward(
    input_dim: int,
    output_dim: int,
    *,
    hidden_dims: Sequence[int] = (),
    dropout: float = 0.0,
    activate_output: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
    trial_axis: int = 0,
) -> nn.Sequential:
    """Stack linear layers with an activation between them; acts on the last axis.

    Args:
        input_dim: size of the last axis of the input.
        output_dim: size of the last axis of the output.
        hidden_dims: sizes of the layers between.
        dropout: probability with which a hidden unit is dropped in training.
        activate_output: whether an activation follows the last layer too.
        activation: what follows a hidden layer.
        trial_axis: of the input, for the noise of the dropout.
    """
    dims = [input_dim, *hidden_dims, output_dim]
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(itertools.pairwise(dims)):
        layers.append(nn.Linear(before, after))
        if i < len(hidden_dims) or activate_output:
            layers.append(activation())
            if dropout > 0:
                layers.append(Dropout(dropout, trial_axis=trial_axis))
    return nn.Sequential(*layers)
