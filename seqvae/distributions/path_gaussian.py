"""A posterior whose every step depends on the sampled steps before it."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints


class PathGaussian(Distribution):
    """The conditionals q(u_t | u_<t, x) = N(mean_t, std_t^2) along the path that was sampled.

    Where a controller sees what its own inputs did, mean_t and std_t are functions of the sampled
    u_<t. They are known along that one path only: its density is the product of the conditionals,
    and another path cannot be drawn from them (``rsample`` is not implemented; a fresh draw would
    lose the correlation between steps). Batch shape (sample, batch), event shape (time, latent).

    Args:
        conditional_mean: mean_t along the path.
        conditional_std: std_t along the path.
        validate_args: as in ``torch.distributions``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "conditional_mean": constraints.independent(constraints.real, 2),
        "conditional_std": constraints.independent(constraints.positive, 2),
    }
    support = constraints.independent(constraints.real, 2)

    def __init__(
        self,
        conditional_mean: Float[Tensor, "sample batch time latent"],
        conditional_std: Float[Tensor, "sample batch time latent"],
        validate_args: bool | None = None,
    ) -> None:
        self.conditional_mean = conditional_mean
        self.conditional_std = conditional_std
        shape = conditional_mean.shape
        super().__init__(shape[:-2], shape[-2:], validate_args=validate_args)

    @property
    def mean(self) -> Float[Tensor, "sample batch time latent"]:
        """The conditional means along the path; their average over samples is the marginal one."""
        return self.conditional_mean

    @property
    def variance(self) -> Float[Tensor, "sample batch time latent"]:
        """The conditional variances along the path."""
        return self.conditional_std.square()

    @property
    def stddev(self) -> Float[Tensor, "sample batch time latent"]:
        """The conditional standard deviations along the path."""
        return self.conditional_std

    def log_prob_terms(
        self, value: Float[Tensor, "sample batch time latent"]
    ) -> Float[Tensor, "sample batch time latent"]:
        """Return log q(u_t | u_<t, x) of every step; ``value`` must be the path itself."""
        conditionals = Normal(self.conditional_mean, self.conditional_std, validate_args=False)
        return conditionals.log_prob(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q(path), shape (sample, batch); ``value`` must be the path itself."""
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_terms(value).sum((-2, -1))
