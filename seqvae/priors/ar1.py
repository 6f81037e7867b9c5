"""Autoregressive prior of inferred inputs."""

from __future__ import annotations

import math

from seqvae.distributions import GaussianAR1
from seqvae.errors import InputError
from seqvae.priors.base import Prior
from seqvae.priors.parameters import log_parameter

# Past these the process is white noise or a constant to every purpose; they keep it finite.
_MIN_BINS = 0.02
_MAX_BINS = 1e6


class AR1(Prior):
    """Inferred inputs that remember: a stationary AR(1) process for each dimension.

        p(u_1) = N(0, s^2),  p(u_t | u_{t-1}) = N(a u_{t-1}, s^2 (1 - a^2)),  a = exp(-bin / tau)

    The time constant tau (seconds, held between 0.02 and 10^6 bins) and the stationary standard
    deviation s are learned. Being in seconds, tau means the same at every bin width.
    [Sussillo et al. 2016; Pandarinath et al. 2018]

    Args:
        latent_dim: size of the last axis of the latent.
        time_constant: tau to start from, in seconds.
        std: s to start from.

    Raises:
        InputError: ``time_constant`` or ``std`` is not positive.
    """

    def __init__(self, latent_dim: int, *, time_constant: float = 0.1, std: float = 0.3) -> None:
        super().__init__()
        self.log_time_constant = log_parameter("time_constant", time_constant, latent_dim)
        self.log_std = log_parameter("std", std, latent_dim)

    def forward(self, event_shape: tuple[int, ...], bin_width: float | None = None) -> GaussianAR1:
        """Return the process over ``event_shape`` = (time, latent).

        Raises:
            InputError: ``bin_width`` is unknown, or there is no time axis.
        """
        if bin_width is None:
            raise InputError(
                "bin_width is missing and the AR1 prior counts its time constant in seconds; "
                "give the recording a bin_width or use IIDNormal"
            )
        if len(event_shape) != 2:
            raise InputError(
                f"the AR1 prior is for a latent of shape (time, latent), got {tuple(event_shape)}; "
                "use LearnableNormal"
            )
        log_bins = self.log_time_constant - math.log(bin_width)
        log_bins = log_bins.clamp(math.log(_MIN_BINS), math.log(_MAX_BINS))
        log_decay = -(-log_bins).exp()
        return GaussianAR1(log_decay, self.log_std.exp(), event_shape[0], validate_args=False)
