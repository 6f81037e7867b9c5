"""A posterior of its own for each trial, without a network: variational inference unamortised."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from seqvae.distributions.unconstrained import gaussian_of_root
from seqvae.encoders.base import Encoder
from seqvae.errors import InputError
from seqvae.types import Batch

Covariance = Literal["diagonal", "full"]


class FreeGaussian(Encoder):
    """Mean-field variational inference: q(z) = N(m, S) with m and S free for each trial and bin.

    The model makes room for the trials of a recording when it is shown the data, and asks by their
    index. A trial that was not learned from is answered as at the start: it knows nothing until it
    is refined (``seqvae.analysis.refine``). Of a trial that was, it knows all that the objective
    scored, held-out neurons and forecast bins, too: score new trials.

    Args:
        input_dim: held-in neurons; no network reads them.
        covariance: "diagonal", or "full" over the latent dimensions of a bin.
        initial_std: standard deviation before learning.

    Raises:
        InputError: ``initial_std`` is not positive, or ``covariance`` is another word.
    """

    keeps_trials: ClassVar[bool] = True

    def __init__(
        self,
        input_dim: int,
        latent_dim: int,
        *,
        covariance: Covariance = "diagonal",
        initial_std: float = 1.0,
    ) -> None:
        super().__init__()
        if not initial_std > 0:
            raise InputError(f"initial_std must be positive, got {initial_std}")
        if covariance not in get_args(Covariance):
            raise InputError(f"covariance must be 'diagonal' or 'full', got {covariance!r}")
        log_root = torch.full((latent_dim,), math.log(initial_std))
        self._log_root = log_root.diag() if covariance == "full" else log_root
        self.mean = nn.Parameter(torch.zeros(0, latent_dim))
        self.log_root = nn.Parameter(self._log_root[None, :0])

    def make_room(self, *leading: int) -> None:
        """Start anew for so many trials, or trials and bins."""
        shape = (*leading, *self._log_root.shape)
        self.mean = nn.Parameter(self.mean.new_zeros(*leading, self.mean.shape[-1]))
        self.log_root = nn.Parameter(self._log_root.to(self.log_root).expand(shape).clone())

    def forward(
        self, observed: Float[Tensor, "batch encoded_time heldin"], batch: Batch
    ) -> Distribution:
        """Return q(z) of each trial, with shape (batch, latent) or (batch, time, latent).

        The data are not read.

        Raises:
            InputError: for a trial that there is no room for.
        """
        trial = batch.trial
        if len(trial) and int(trial.max()) >= len(self.mean):
            raise InputError(
                f"encoder FreeGaussian keeps a posterior for each of {len(self.mean)} trials, and "
                f"has none for trial {int(trial.max())}; show the model its data by initialize"
            )
        return gaussian_of_root(self.mean[trial], self.log_root[trial])
