"""What goes into a run of the decoder's recursion at random, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

Conditional = Callable[[int, "Tensor | None"], "tuple[Tensor, Tensor]"]
"""t and u_{t-1} (None at the first bin) -> mean and standard deviation of p(u_t | u_{t-1})."""


class DecoderDraws(NamedTuple):
    """All that is random in a run of the recursion; a mask that is None drops nothing.

    Attributes:
        noise: standard normal, one for each inferred input.
        encoding_mask: dropout of e_t, the same for all samples of a trial.
        factor_mask: dropout of f_{t-1} on its way to the controller.
        state_mask: dropout of g_t on its way to the factors.
    """

    noise: Float[Tensor, "time inferred sample batch"]
    encoding_mask: Float[Tensor, "encoded_time encoding batch"] | None = None
    factor_mask: Float[Tensor, "encoded_time factor sample batch"] | None = None
    state_mask: Float[Tensor, "time state sample batch"] | None = None


class DecoderPath(NamedTuple):
    """One run of the recursion for every sample and trial.

    ``input_mean`` and ``input_std`` are the conditionals that the steps of ``inferred_inputs``
    were drawn from, along this very path.
    """

    factors: Float[Tensor, "sample batch time factor"]
    inferred_inputs: Float[Tensor, "sample batch time inferred"]
    input_mean: Float[Tensor, "sample batch time inferred"]
    input_std: Float[Tensor, "sample batch time inferred"]
