"""Linear dynamics read out by a network, with an amortised posterior; learned by gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional
from torch.optim import AdamW

from seqvae.data import NeuralData
from seqvae.distributions import GaussianMarkovChain
from seqvae.encoders import InformationEncoder, InformationMLP
from seqvae.errors import InputError
from seqvae.models.base import Model
from seqvae.models.latent_dynamics import LatentDynamicsModel
from seqvae.models.latent_variable import DEFAULT_SCHEDULE
from seqvae.models.linear_beginning import aligned_linear, check_fits
from seqvae.models.linear_dynamics import LinearDynamics
from seqvae.models.linear_readout import has_linear_readout, linear_expectations
from seqvae.models.trained import OptimizerFactory, ScheduleFactory
from seqvae.nn import feed_forward
from seqvae.objectives import Objective
from seqvae.observations import Gaussian, GeneralizedLinear, Observation, Poisson
from seqvae.scores.floors import LEAST_COUNT
from seqvae.state_space import GaussianEmission
from seqvae.types import Batch, DataSpec, Expectations, Latent, Output


class FLDS(LatentDynamicsModel):
    """Linear dynamics with a nonlinear readout, fLDS (Archer et al. 2015; Gao et al. 2016).

        z_1 ~ N(m, V),   z_t = A z_{t-1} + B u_t + b + w_t,   w_t ~ N(0, Q),
        f_t = (z_t, MLP(z_t)),   x_t ~ p(x | f_t),
        q(z | x) proportional to p(z) prod_t exp(h_t . z_t - z_t' J_t z_t / 2),

    with external inputs u, and h and J by a network from the held-in neurons. The precision of q is
    that of p(z) plus J_t on its diagonal blocks: block-tridiagonal, so that one factorisation in
    linear time gives mean, draws and the KL in closed form, in double precision. Bins without any
    observed entry (missing, padded, forecast) have no factor: there q is p(z) run on. Where the
    readout is linear and Gaussian such a q can be exact.

    Args:
        spec: facts of the data.
        latent_dim: size of z.
        decoder_dims: layers of the MLP; none makes the readout linear, and the factors the latents.
        dropout: probability with which a unit of the MLP is dropped in training.
        encoder: factory (input_dim, latent_dim) -> encoder of h and J.
        observation: factory (factor_dim, num_neurons) -> observation model.
        start: run folder of a fitted ``LinearDynamics`` of the same size to begin learning from:
            its dynamics and readout, what its readout tells of z, and nothing yet from the MLP. It
            is read by ``fit`` when learning begins only. None: begin at random.
        objective: weights of the bound's terms and their warm-up.
        optimizer: factory, parameters -> optimiser.
        schedule: factory, optimiser -> learning-rate schedule; None keeps the rate constant.
        validation_samples: posterior samples for each trial in validation.

    Raises:
        InputError: for a size below 1.
    """

    dimension_argument: ClassVar[str] = "latent_dim"
    reads_inputs: ClassVar[bool] = True
    starts_from: ClassVar[type[Model]] = LinearDynamics

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: int = 8,
        decoder_dims: Sequence[int] = (32, 32),
        dropout: float = 0.0,
        encoder: Callable[[int, int], InformationEncoder] = InformationMLP,
        observation: Callable[[int, int], Observation] = Poisson,
        start: str | None = None,
        objective: Objective = Objective(beta_steps=0),  # noqa: B008 (frozen)
        optimizer: OptimizerFactory = partial(AdamW, lr=1e-2, weight_decay=0.1),
        schedule: ScheduleFactory | None = DEFAULT_SCHEDULE,
        validation_samples: int = 4,
    ) -> None:
        super().__init__(
            spec,
            latent_dim=latent_dim,
            objective=objective,
            optimizer=optimizer,
            schedule=schedule,
            validation_samples=validation_samples,
        )
        self.start = start
        self.encoder = encoder(spec.num_heldin, latent_dim)
        self.decoder: nn.Sequential | None = None
        factor_dim = latent_dim
        if decoder_dims:
            *before, last = decoder_dims
            self.decoder = feed_forward(
                latent_dim,
                last,
                hidden_dims=before,
                dropout=dropout,
                activate_output=True,
                trial_axis=1,
            )
            factor_dim += last
        self.observation = observation(factor_dim, spec.num_neurons)

    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        """Infer the path of each trial, draw samples and decode them; see the class."""
        information = self.encoder(self.standardized(batch), batch)
        seen = batch.observed_mask.any(-1)
        later = batch.target.shape[1] - seen.shape[1]
        # whatever stands in the padding is no input
        inputs = torch.where(batch.time_mask[..., None], batch.inputs, 0.0)
        with torch.autocast(inputs.device.type, enabled=False):
            vector = torch.where(seen[..., None], information.vector, 0.0).double()
            matrix = torch.where(seen[..., None, None], information.matrix, 0.0).double()
            vector = functional.pad(vector, (0, 0, 0, later))
            matrix = functional.pad(matrix, (0, 0, 0, 0, 0, later))
            prior = self.dynamics.chain(inputs.double())
            posterior = GaussianMarkovChain.from_information(
                prior.precision.matvec(prior.mean) + vector,
                prior.precision.plus_diagonal(matrix),
                validate_args=False,
            )
            sample = self.draw(posterior, num_samples).to(self.offset.dtype)
        latent = Latent(posterior, prior, sample, batch.time_mask)
        return self._decoded(latent)

    def expectations(self, output: Output, batch: Batch) -> Expectations | None:
        """Return what the posterior expects, in closed form, if the readout is linear."""
        posterior = output.latents["latents"].posterior
        observation = self.observation
        if self.decoder is not None or not has_linear_readout(observation):
            return None
        assert isinstance(posterior, GaussianMarkovChain)
        return linear_expectations(
            observation, posterior.mean, posterior.covariance, target=batch.target
        )

    def sample(
        self, num_trials: int, inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Output:
        """Draw new trials from the prior; ``inputs`` None: 0 everywhere."""
        if inputs is None:
            inputs = self.no_inputs(num_trials)
        prior = self.dynamics.chain(inputs.double())
        sample = prior.rsample(Size((1,))).to(self.offset.dtype)
        return self._decoded(Latent(prior, prior, sample))

    def emission_given(
        self, latents: dict[str, Float[Tensor, "sample batch ..."]], batch: Batch
    ) -> Distribution:
        """Decode a given path, ``latents`` (sample, batch, time, latent)."""
        return self.observation(self._factors(latents["latents"]))

    def _decoded(self, latent: Latent) -> Output:
        factors = self._factors(latent.sample)
        return Output({"latents": latent}, factors, self.observation(factors))

    def _factors(
        self, path: Float[Tensor, "sample batch time latent"]
    ) -> Float[Tensor, "sample batch time factor"]:
        return path if self.decoder is None else torch.cat([path, self.decoder(path)], dim=-1)

    def setup(self, stage: str) -> None:
        """Start at the data, once.

        Raises:
            InputError: for a ``start`` that nobody has read.
        """
        if self.start is not None and not self.initialized:
            raise InputError(
                "start is read by fit; with a Trainer of your own leave it out, and call "
                "initialize(data) and begin_from(Run(...).model())"
            )
        super().setup(stage)

    def initialize(self, data: NeuralData) -> None:
        """Take the training means; of several sessions begin where they are aligned."""
        super().initialize(data)
        linear = aligned_linear(self, data, self.latent_dim)
        if linear is not None and has_linear_readout(self.observation):
            self._begin_at(linear)

    @torch.no_grad()
    def begin_from(self, other: Model, *, leading_blocks: bool = False) -> list[str]:
        """Begin at a fitted linear model of the same size, neurons and inputs, or as any model.

        Dynamics and rates are then those of the linear model, and the encoder starts at what its
        readout tells about z: exactly for Gaussian noise; for counts by the slope and curvature
        that log p(x | z) has on average under the prior, where the mean count of a neuron is its
        expected rate. To be called after ``initialize``.

        Raises:
            InputError: if the two do not fit.
        """
        if isinstance(other, LinearDynamics):
            self._begin_at(other)
            self.has_begun = True
            return []
        return super().begin_from(other, leading_blocks=leading_blocks)

    @torch.no_grad()
    def _begin_at(self, fitted: LinearDynamics) -> None:
        if not self.initialized:
            raise InputError("the training means are not known yet; call initialize first")
        dynamics, emission = fitted.state_space
        check_fits(self, fitted)
        readout = getattr(self.observation, "readout", None)
        if not isinstance(readout, nn.Linear):
            name = type(self.observation).__name__
            raise InputError(f"observation {name} has no linear readout; leave start out")
        link = getattr(self.observation, "link", "exp")
        if link != "exp":
            raise InputError(
                f"observation.link is {link!r}, but a linear model tells log rates; leave out "
                f"start, or link"
            )
        self.take_dynamics(dynamics)
        if isinstance(self.observation, Gaussian) and isinstance(emission, GaussianEmission):
            emission = emission.in_units(self.observation.origin, self.observation.unit)
            self.observation.take_std(emission.std)
        readout.weight.zero_()
        readout.weight[:, : self.latent_dim] = emission.loadings
        readout.bias.copy_(emission.bias)
        self.start_inference()

    @torch.no_grad()
    def start_inference(self) -> None:
        """Start the encoder at what the readout tells of z, nothing yet from the network."""
        if not isinstance(self.observation, GeneralizedLinear):
            return
        heldin = list(self.spec.heldin)
        weight, bias = (part.double() for part in self.observation.loadings_of(heldin))
        loadings, mean = weight[:, : self.latent_dim], self.observed_mean.double()
        # log p(x | eta) is about slope (x - mean) (eta - centre) - curvature (eta - centre)^2 / 2
        if isinstance(self.observation, Gaussian):
            slope = curvature = self.observation.std[heldin].double().square().reciprocal()
            centre = mean
        else:
            slope, curvature = torch.ones_like(mean), mean.clamp_min(LEAST_COUNT)
            still = mean.new_zeros(1, self.spec.num_time_bins, self.spec.num_inputs)
            centre = loadings @ self.dynamics.chain(still).mean.mean((0, 1)) + bias
        self.encoder.start(
            gain=loadings * (slope * self.observed_scale)[:, None],
            offset=loadings * (curvature * (centre - bias))[:, None],
            root=loadings * curvature.sqrt()[:, None],
        )
