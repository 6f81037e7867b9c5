"""What models share that learn the Gaussian dynamics of a path by gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.errors import InputError
from seqvae.models.latent_variable import LatentVariableModel
from seqvae.models.trained import OptimizerFactory, ScheduleFactory
from seqvae.objectives import Objective
from seqvae.state_space import Dynamics
from seqvae.types import DataSpec


class LatentDynamicsModel(LatentVariableModel):
    """A model whose latent is a path, with the parameters of its linear dynamics.

        z_1 ~ N(m, V),   z_t = A z_{t-1} + B u_t + b + w_t,   w_t ~ N(0, Q),

    with external inputs u; what a subclass adds to A z is its own. Learning begins at slow latents
    of unit variance, A = 0.95.

    Args:
        spec: facts of the data.
        latent_dim: size of z.
        objective: weights of the bound's terms and their warm-up.
        optimizer: factory, parameters -> optimiser.
        schedule: factory, optimiser -> learning-rate schedule; None keeps the rate constant.
        validation_samples: posterior samples for each trial in validation.

    Raises:
        InputError: for a size below 1.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: int,
        objective: Objective,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None,
        validation_samples: int,
    ) -> None:
        super().__init__(
            spec,
            objective=objective,
            optimizer=optimizer,
            schedule=schedule,
            validation_samples=validation_samples,
        )
        if latent_dim < 1:
            raise InputError(f"latent_dim must be at least 1, got {latent_dim}")
        self.latent_dim = latent_dim
        identity = torch.eye(latent_dim)
        self.transition = nn.Parameter(0.95 * identity)
        self.input_matrix = nn.Parameter(torch.zeros(latent_dim, spec.num_inputs))
        self.offset = nn.Parameter(torch.zeros(latent_dim))
        self.log_noise_root = nn.Parameter(identity * math.log(1 - 0.95**2) / 2)
        self.initial_mean = nn.Parameter(torch.zeros(latent_dim))
        self.log_initial_root = nn.Parameter(torch.zeros(latent_dim, latent_dim))

    @property
    def dynamics(self) -> Dynamics:
        """The parameters of p(z), in double precision; covariances are positive whatever they are.

        ``log_noise_root`` holds the Cholesky factor of Q below its diagonal, and the logarithm of
        its diagonal; ``log_initial_root`` that of V. What stands above is not used.
        """
        return Dynamics(
            self.transition.double(),
            self.input_matrix.double(),
            self.offset.double(),
            _covariance(self.log_noise_root),
            self.initial_mean.double(),
            _covariance(self.log_initial_root),
        )

    @torch.no_grad()
    def take_dynamics(self, dynamics: Dynamics) -> None:
        """Take the parameters of p(z)."""
        self.transition.copy_(dynamics.transition)
        self.input_matrix.copy_(dynamics.input_matrix)
        self.offset.copy_(dynamics.offset)
        self.log_noise_root.copy_(_log_root(dynamics.noise_covariance))
        self.initial_mean.copy_(dynamics.initial_mean)
        self.log_initial_root.copy_(_log_root(dynamics.initial_covariance))

    def no_inputs(self, num_trials: int) -> Float[Tensor, "batch time input"]:
        """Return external inputs of 0."""
        return self.offset.new_zeros(num_trials, self.spec.num_time_bins, self.spec.num_inputs)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the matrices of the networks, which weight decay may shrink, and all the rest.

        Decay of A would make the dynamics forget.
        """
        dynamics = {id(parameter) for parameter in self.parameters(recurse=False)}
        matrices, rest = (group["params"] for group in super().parameter_groups())
        unshrunk = [parameter for parameter in matrices if id(parameter) in dynamics]
        shrunk = [parameter for parameter in matrices if id(parameter) not in dynamics]
        return [{"params": shrunk}, {"params": [*rest, *unshrunk], "weight_decay": 0.0}]


def _covariance(log_root: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    log_root = log_root.double()
    root = log_root.tril(-1) + log_root.diagonal().exp().diag()
    return root @ root.mT


def _log_root(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    root = torch.linalg.cholesky(covariance)
    return root.tril(-1) + root.diagonal().log().diag()
