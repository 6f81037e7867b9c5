"""The family of priors: shape -> p(z)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn
from torch.distributions import Distribution


class Prior(nn.Module, ABC):
    """Makes the prior of a latent; built as ``prior(latent_dim, **own_options)``."""

    @abstractmethod
    def forward(self, event_shape: tuple[int, ...], bin_width: float | None = None) -> Distribution:
        """Return p(z) for one trial.

        Args:
            event_shape: (latent,) for one latent a trial, (time, latent) for one a time bin.
            bin_width: seconds per bin, for priors that know about time.

        Returns:
            A distribution whose batch_shape + event_shape equals ``event_shape``.
        """
