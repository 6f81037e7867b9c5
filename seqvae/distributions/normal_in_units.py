"""Normal distributions of real values in the units of the data."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal


class NormalInUnits(Normal):
    """x = origin + unit y with y ~ N(mean, std^2), elementwise.

    log p(x) = log N((x - origin) / unit; mean, std^2) - log unit: the origin is taken off before
    anything is squared, so that neither a large offset nor a small unit costs precision.

    Args:
        mean: of y.
        std: of y.
        origin: where the scale of each channel begins, in data units.
        unit: of each channel, in data units.
    """

    def __init__(
        self,
        mean: Float[Tensor, "*leading neuron"],
        std: Float[Tensor, " neuron"],
        *,
        origin: Float[Tensor, " neuron"],
        unit: Float[Tensor, " neuron"],
    ) -> None:
        self.standard = Normal(mean, std, validate_args=False)
        self.origin = origin
        self.unit = unit
        Distribution.__init__(self, self.standard.batch_shape, validate_args=False)

    @property
    def loc(self) -> Float[Tensor, "*leading neuron"]:  # type: ignore[override]
        """The mean in data units."""
        return self.origin + self.unit * self.standard.loc

    @property
    def scale(self) -> Float[Tensor, "*leading neuron"]:  # type: ignore[override]
        """The standard deviation in data units."""
        return self.unit * self.standard.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of values in data units."""
        return self.standard.log_prob((value - self.origin) / self.unit) - self.unit.log()
