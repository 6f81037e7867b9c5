"""Nonlinear dynamics with a nonlinear readout, inferred by iterated linearisation."""

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
from seqvae.distributions import GaussianMarkovChain, NonlinearMarkovChain
from seqvae.errors import InputError
from seqvae.linalg import normal_equations
from seqvae.models.base import Model
from seqvae.models.latent_dynamics import LatentDynamicsModel
from seqvae.models.linear_beginning import check_fits, fitted_linear, readout_at
from seqvae.models.linear_dynamics import LinearDynamics
from seqvae.models.sight import Sight, sight_of
from seqvae.models.trained import OptimizerFactory, ScheduleFactory
from seqvae.nn.smooth import Linearized, SmoothMLP
from seqvae.objectives import Objective, weighted_log_prob
from seqvae.observations import GeneralizedLinear, Observation, Poisson
from seqvae.types import Batch, DataSpec, Latent, Output

FIRST_SIZE = 0.1
"""Of the networks' last weights, next to what they would begin with."""

BLOCK_BINS = 512
"""Bins, over trials, whose readout is linearised at once: so many stay in a processor's cache."""

SHARES = (1.0, 0.5, 0.25, 0.1)
"""Of a step towards the mean of a linearised posterior; the first that helps is taken."""


class NonlinearDynamics(LatentDynamicsModel):
    """A nonlinear state-space model whose posterior follows from the model itself.

        z_1 ~ N(m, V),   z_t = A z_{t-1} + r(z_{t-1}) + B u_t + b + w_t,   w_t ~ N(0, Q),
        f_t = (z_t, s(z_t)),   x_t ~ p(x | f_t),

    with external inputs u, and networks r and s. There is no encoder to overfit: q(z | x) is the
    Gaussian chain that has dynamics and readout linearised about a path,

        q(z | x) proportional to p~(z) prod_t exp(h_t . z_t - z_t' J_t z_t / 2),
        J_t = G_t' W_t G_t,   h_t = G_t' (score_t + W_t G_t z~_t),

    G_t the derivative of the held-in neurons' predictors at the path z~, W_t their Fisher
    information, p~ the prior with A + r'(z~_{t-1}) in place of A. The path is the mean of the
    posterior before; the first is that of a readout linear about the origin, its information read
    halfway between data and mean. So any entries may be missing, and learning goes through the
    last linearisation: neurons that inference does not see shape what it makes of the others.
    Iterations are Gauss-Newton's for the most likely path, damped from the first guess on so that
    log p(x, z) does not fall; the last one, which is learned through, is damped (and the mean not
    learned through) only in trials where log p(x, z) would fall below that of the origin
    [Bell 1994, SIAM J. Optim. 4:626; as inference for learned dynamics: Hernandez et al. 2018,
    arXiv:1811.02459]. The KL is unbiased, along the drawn path
    (``NonlinearMarkovChain.kl_terms``). Paths and chains are in double precision, the networks in
    that of the weights.

    Learning begins at linear dynamics after a few iterations of EM on all neurons.

    Args:
        spec: facts of the data.
        latent_dim: size of z.
        dynamics_dims: layers of r, then a linear one; none makes the dynamics linear.
        decoder_dims: layers of s; none makes the readout linear, and the factors the latents.
        dropout: probability with which a unit of s is dropped when a drawn path is decoded in
            training; inference reads all of s. It holds a hundred trials from over-fitting and
            starves a thousand; ``default_fit`` says how much, and how much weight decay, suits how
            many bins.
        linearizations: how often dynamics and readout are linearised, after the first guess.
        em_iterations: of EM before learning begins; 0 begins at slow latents of unit variance.
        observation: factory (factor_dim, num_neurons) -> observation model with one predictor a
            neuron: ``Poisson``, ``NegativeBinomial``, ``Bernoulli`` or ``Gaussian``.
        objective: weights of the bound's terms and their warm-up.
        optimizer: factory, parameters -> optimiser.
        schedule: factory, optimiser -> learning-rate schedule; None keeps the rate constant, as
            suits averaged weights.
        validation_samples: posterior samples for each trial in validation.

    Raises:
        InputError: for a size below 1, or an observation model of another form.
    """

    dimension_argument: ClassVar[str] = "latent_dim"
    reads_inputs: ClassVar[bool] = True
    observation: GeneralizedLinear

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: int = 8,
        dynamics_dims: Sequence[int] = (32,),
        decoder_dims: Sequence[int] = (64, 64),
        dropout: float = 0.4,
        linearizations: int = 2,
        em_iterations: int = 5,
        observation: Callable[[int, int], Observation] = Poisson,
        objective: Objective = Objective(beta_steps=0),  # noqa: B008 (frozen)
        optimizer: OptimizerFactory = partial(AdamW, lr=5e-3, weight_decay=0.2),
        schedule: ScheduleFactory | None = None,
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
        for name, number, least in (
            ("linearizations", linearizations, 1),
            ("em_iterations", em_iterations, 0),
        ):
            if number < least:
                raise InputError(f"{name} must be at least {least}, got {number}")
        self.linearizations = linearizations
        self.em_iterations = em_iterations
        self.residual: SmoothMLP | None = None
        self.residual_readout: nn.Linear | None = None
        if dynamics_dims:
            self.residual = SmoothMLP((latent_dim, *dynamics_dims))
            self.residual_readout = nn.Linear(dynamics_dims[-1], latent_dim)
            with torch.no_grad():
                self.residual_readout.weight.mul_(FIRST_SIZE)
                self.residual_readout.bias.zero_()
        self.decoder: SmoothMLP | None = None
        factor_dim = latent_dim
        if decoder_dims:
            self.decoder = SmoothMLP((latent_dim, *decoder_dims), dropout=dropout, trial_axis=1)
            factor_dim += decoder_dims[-1]
        observed = observation(factor_dim, spec.num_neurons)
        if not isinstance(observed, GeneralizedLinear):
            raise InputError(
                f"observation: NonlinearDynamics reads models with one predictor a neuron, such as "
                f"Poisson or Gaussian, not {type(observed).__name__}; take a SequentialVAE"
            )
        self.observation = observed
        with torch.no_grad():
            self.observation.readout.weight[:, latent_dim:] *= FIRST_SIZE

    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        """Infer the path of each trial, draw samples and decode them; see the class."""
        # whatever stands in the padding is no input
        inputs = torch.where(batch.time_mask[..., None], batch.inputs, 0.0)
        with torch.autocast(inputs.device.type, enabled=False):
            prior = self._prior(inputs)
            posterior = self._posterior(batch, prior)
            path = self.draw(posterior, num_samples)
        latent = Latent(posterior, prior, path.to(self.offset.dtype), batch.time_mask)
        return self._decoded(latent)

    def sample(
        self, num_trials: int, inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Output:
        """Draw new trials from the prior; ``inputs`` None: 0 everywhere."""
        prior = self._prior(self.no_inputs(num_trials) if inputs is None else inputs)
        path = prior.rsample(Size((1,))).to(self.offset.dtype)
        return self._decoded(Latent(prior, prior, path))

    def emission_given(
        self, latents: dict[str, Float[Tensor, "sample batch ..."]], batch: Batch
    ) -> Distribution:
        """Decode a given path, ``latents`` (sample, batch, time, latent)."""
        return self.observation(self._factors(latents["latents"]))

    def initialize(self, data: NeuralData) -> None:
        """Take the training means, and begin at linear dynamics after a few iterations of EM."""
        super().initialize(data)
        if self.em_iterations and not self.has_begun:
            linear = fitted_linear(self, data, iterations=self.em_iterations)
            if linear is not None:
                self._begin_at(linear)

    @torch.no_grad()
    def begin_from(self, other: Model, *, leading_blocks: bool = False) -> list[str]:
        """Begin at fitted linear dynamics of the same size, neurons and inputs, or as any model.

        Raises:
            InputError: if the two do not fit.
        """
        if isinstance(other, LinearDynamics):
            self._begin_at(other)
            self.has_begun = True
            return []
        return super().begin_from(other, leading_blocks=leading_blocks)

    def _begin_at(self, linear: LinearDynamics) -> None:
        check_fits(self, linear)
        readout = readout_at(self.observation, linear)
        self.take_dynamics(linear.state_space.dynamics)
        with torch.no_grad():
            self.observation.readout.weight[:, : self.latent_dim] = readout.weight
            self.observation.readout.bias.copy_(readout.bias)

    def _prior(self, inputs: Float[Tensor, "batch time input"]) -> NonlinearMarkovChain:
        dynamics = self.dynamics
        offset = dynamics.offset + inputs[:, 1:].double() @ dynamics.input_matrix.mT
        return NonlinearMarkovChain(
            self._step,
            offset,
            noise_covariance=dynamics.noise_covariance,
            initial_mean=dynamics.initial_mean,
            initial_covariance=dynamics.initial_covariance,
        )

    def _step(self, path: Float[Tensor, "*leading latent"]) -> Float[Tensor, "*leading latent"]:
        """Return A z + r(z)."""
        linear = path @ self.transition.to(path).mT
        if self.residual is None or self.residual_readout is None:
            return linear
        hidden = self.residual(path.to(self.offset.dtype))
        return linear + self.residual_readout(hidden).to(path)

    def _posterior(self, batch: Batch, prior: NonlinearMarkovChain) -> GaussianMarkovChain:
        """Linearise, solve, and again about the mean of the solution."""
        with torch.no_grad():
            sight = sight_of(batch, self.spec, self.observation)
            path = prior.initial_mean.new_zeros(1, *prior.event_shape)
            origin = log_joint = self._log_joint(prior, path, sight)
            for number in range(self.linearizations):
                guess = self._solved(prior, path, sight, is_first=number == 0).mean
                path, log_joint = self._ahead(prior, path, log_joint, sight, to=guess)
        posterior = self._solved(prior, path, sight)
        with torch.no_grad():
            is_fine = self._log_joint(prior, posterior.mean, sight) >= origin
            if is_fine.all():
                return posterior
            damped, _ = self._ahead(prior, path, origin, sight, to=posterior.mean)
        return posterior.with_mean(torch.where(is_fine[:, None, None], posterior.mean, damped))

    def _ahead(
        self,
        prior: NonlinearMarkovChain,
        path: Float[Tensor, "#batch time latent"],
        log_joint: Float[Tensor, " batch"],
        sight: Sight,
        *,
        to: Float[Tensor, "batch time latent"],
    ) -> tuple[Float[Tensor, "batch time latent"], Float[Tensor, " batch"]]:
        """Go from a path towards another, trial by trial as far as log p(x, z) does not fall."""
        start = path = path.expand_as(to)
        waits = torch.ones_like(log_joint, dtype=torch.bool)
        for share in SHARES:
            ahead = start + share * (to - start)
            there = self._log_joint(prior, ahead, sight)
            goes = waits & (there >= log_joint)
            path = torch.where(goes[:, None, None], ahead, path)
            log_joint = torch.where(goes, there, log_joint)
            waits = waits & ~goes
            if not waits.any():
                break
        return path, log_joint

    def _log_joint(
        self, prior: NonlinearMarkovChain, path: Float[Tensor, "#batch time latent"], sight: Sight
    ) -> Float[Tensor, " batch"]:
        """Return log p(x, z) of each trial, x what inference sees; without dropout."""
        factors = path.to(self.offset.dtype)[None]
        if self.decoder is not None:
            factors = torch.cat([factors, self.decoder.whole(factors)], dim=-1)
        emission = sight.observation(factors)
        return weighted_log_prob(emission, sight.target, sight.weight)[0] + prior.log_prob(path)

    def _solved(
        self,
        prior: NonlinearMarkovChain,
        path: Float[Tensor, "#batch time latent"],
        sight: Sight,
        *,
        is_first: bool = False,
    ) -> GaussianMarkovChain:
        """Return the posterior with dynamics and readout linearised about a path."""
        about = path.to(self.offset.dtype)
        precision, information = prior.linearized(*self._linear_step(about[:, :-1]))
        length = max(1, BLOCK_BINS // len(sight.values)) if about.is_cpu else about.shape[1]
        blocks = zip(about.split(length, dim=1), sight.in_blocks(length), strict=True)
        told = [self._evidence(*block, is_first=is_first) for block in blocks]
        matrix, vector = (torch.cat(parts, dim=1).double() for parts in zip(*told, strict=True))
        vector = vector + (matrix @ path[..., None])[..., 0]
        return GaussianMarkovChain.from_information(
            information + vector, precision.plus_diagonal(matrix), validate_args=False
        )

    def _evidence(
        self, about: Float[Tensor, "#batch time latent"], sight: Sight, *, is_first: bool
    ) -> tuple[Float[Tensor, "batch time latent latent"], Float[Tensor, "batch time latent"]]:
        """Return J, and h but for J z~, with the readout linearised about some bins of a path.

        The first time the path is the origin, and the score that of predictors halfway between data
        and mean: as far from the data as the mean is, a step by the curvature there overshoots.
        """
        observation, heldin = sight.observation, sight.heldin
        predictor, slopes = self._linear_readout(about, sight)
        point = predictor
        if is_first:
            mean = observation.response(predictor, heldin).mean
            point = observation.predictor_of((sight.values + mean) / 2, heldin)
        response = observation.response(point, heldin)
        weight = torch.where(sight.seen, response.information, 0.0)
        score = torch.where(sight.seen, response.score(sight.values), 0.0)
        if is_first:
            score = score + weight * (point - predictor)
        return normal_equations(slopes, weight, score)

    def _linear_step(
        self, path: Float[Tensor, "#batch links latent"]
    ) -> tuple[Float[Tensor, "#batch links latent latent"], Float[Tensor, "#batch links latent"]]:
        """Return F' and c with A z + r(z) about F z + c near the path, in double precision."""
        linear = self.transition.double().mT
        if self.residual is None or self.residual_readout is None:
            shape = (*path.shape, self.latent_dim)
            return linear.expand(shape), linear.new_zeros(path.shape)
        hidden = self.residual.linearized(path)
        slopes = functional.linear(hidden.slopes, self.residual_readout.weight)
        drift = self.residual_readout(hidden.value) - (path[..., None, :] @ slopes)[..., 0, :]
        return linear + slopes.double(), drift.double()

    def _linear_readout(
        self, path: Float[Tensor, "#batch time latent"], sight: Sight
    ) -> Linearized:
        """Return predictors of the held-in neurons, and their derivatives by z."""
        weight, bias = sight.observation.loadings_of(sight.heldin)
        if self.decoder is None:
            return Linearized(path @ weight.mT + bias, weight.mT.expand(*path.shape, len(weight)))
        direct, indirect = weight.tensor_split([self.latent_dim], dim=1)
        decoded = self.decoder.linearized(path)
        predictor = path @ direct.mT + decoded.value @ indirect.mT + bias
        return Linearized(predictor, functional.linear(decoded.slopes, indirect).add_(direct.mT))

    def _decoded(self, latent: Latent) -> Output:
        factors = self._factors(latent.sample)
        return Output({"latents": latent}, factors, self.observation(factors))

    def _factors(
        self, path: Float[Tensor, "sample batch time latent"]
    ) -> Float[Tensor, "sample batch time factor"]:
        return path if self.decoder is None else torch.cat([path, self.decoder(path)], dim=-1)
