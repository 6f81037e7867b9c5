"""Anderson's acceleration of a fixed-point iteration."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

RIDGE = 1e-8


class Anderson:
    """Extrapolates x <- g(x) from its last steps.

    Of the affine combinations of former x it takes the one whose residual g(x) - x would be
    smallest if g were linear, and proposes the same combination of their g(x):

        g_k - dG c,   c = argmin |f_k - dF c|^2,   f = g(x) - x,

    dF and dG being the differences of successive f and g; c is found with a ridge of 1e-8 in units
    of each difference [Anderson 1965, J. ACM 12:547; Henderson & Varadhan 2019, J. Comput. Graph.
    Stat. 28:834, where it accelerates EM]. A proposal may be worse than g(x), so it is to be asked
    before it is taken.

    Args:
        memory: differences that it remembers at most.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._images: list[Tensor] = []
        self._residuals: list[Tensor] = []

    def proposal(
        self, point: Float[Tensor, " parameter"], image: Float[Tensor, " parameter"]
    ) -> Float[Tensor, " parameter"] | None:
        """Return where to go on, or None while there is nothing to extrapolate from.

        Args:
            point: x.
            image: g(x).
        """
        self._images = [*self._images[-self.memory :], image]
        self._residuals = [*self._residuals[-self.memory :], image - point]
        if len(self._images) == 1:
            return None
        images, residuals = (
            torch.stack(each, dim=1).diff(dim=1) for each in (self._images, self._residuals)
        )
        unit = residuals.norm(dim=0).clamp_min(torch.finfo(residuals.dtype).tiny ** 0.5)
        scaled = residuals / unit
        square = scaled.mT @ scaled + RIDGE * torch.eye(len(unit)).to(scaled)
        weights = torch.linalg.solve_ex(square, scaled.mT @ self._residuals[-1]).result
        return image - (images / unit) @ weights
