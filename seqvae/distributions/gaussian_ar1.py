"""Stationary Gaussian autoregression of order one."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, Normal, constraints
from torch.types import _size

from seqvae.compute import noise


class GaussianAR1(Distribution):
    """A stationary AR(1) process for each latent, independent across latents.

        p(u_1) = N(0, s^2),    p(u_t | u_{t-1}) = N(a u_{t-1}, s^2 (1 - a^2)),    0 < a < 1.

    Event shape (time, latent), batch shape (). It is told by log a, because 1 - a^2 =
    -expm1(2 log a) keeps its digits for slow processes, where a rounds to one.

    Args:
        log_decay: log a, negative; -bin_width / time constant.
        stationary_std: s.
        num_steps: time bins.
        validate_args: as in ``torch.distributions``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "log_decay": constraints.less_than(0.0),
        "stationary_std": constraints.positive,
    }
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        log_decay: Float[Tensor, " latent"],
        stationary_std: Float[Tensor, " latent"],
        num_steps: int,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.log_decay = log_decay
        self.stationary_std = stationary_std
        event_shape = Size((num_steps, log_decay.shape[-1]))
        super().__init__(Size(), event_shape, validate_args=validate_args)

    @property
    def decay(self) -> Float[Tensor, " latent"]:
        """The factor a between neighbouring steps."""
        return self.log_decay.exp()

    @property
    def innovation_std(self) -> Float[Tensor, " latent"]:
        """The standard deviation s sqrt(1 - a^2) of a step given the one before."""
        return self.stationary_std * (-torch.expm1(2 * self.log_decay)).sqrt()

    @property
    def mean(self) -> Float[Tensor, "time latent"]:
        """Zero."""
        return torch.zeros_like(self.stationary_std).expand(self.event_shape)

    @property
    def variance(self) -> Float[Tensor, "time latent"]:
        """The variance s^2 of every step on its own."""
        return self.stationary_std.square().expand(self.event_shape)

    def conditional(
        self, previous: Float[Tensor, "*leading latent"]
    ) -> tuple[Float[Tensor, "*leading latent"], Float[Tensor, " latent"]]:
        """Return mean and standard deviation of p(u_t | u_{t-1} = previous)."""
        return self.decay * previous, self.innovation_std

    def conditionals(
        self, path: Float[Tensor, "*leading time latent"]
    ) -> tuple[Float[Tensor, "*leading time latent"], Float[Tensor, "time latent"]]:
        """Return mean and standard deviation of every p(u_t | u_{t-1}) along a path."""
        means, innovation_std = self.conditional(path[..., :-1, :])
        means = torch.cat([torch.zeros_like(path[..., :1, :]), means], dim=-2)
        later = innovation_std.expand(path.shape[-2] - 1, -1)
        return means, torch.cat([self.stationary_std[None], later])

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Draw paths of shape sample_shape + (time, latent), differentiable in a and s."""
        shape = self._extended_shape(Size(sample_shape))
        like = self.stationary_std
        draws = noise.normal(shape, like=like, axis=len(shape) - 3)
        steps = [self.stationary_std * draws[..., 0, :]]
        for white in draws[..., 1:, :].unbind(-2):
            mean, std = self.conditional(steps[-1])
            steps.append(mean + std * white)
        return torch.stack(steps, dim=-2)

    def log_prob_terms(
        self, value: Float[Tensor, "*leading time latent"]
    ) -> Float[Tensor, "*leading time latent"]:
        """Return log p(u_t | u_{t-1}) of every step and latent; their sum is ``log_prob``."""
        mean, std = self.conditionals(value)
        return Normal(mean, std, validate_args=False).log_prob(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(path), shape (*leading)."""
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_terms(value).sum((-2, -1))
