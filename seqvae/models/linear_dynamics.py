"""Linear dynamical systems: the Kalman smoother's model, and its like for spike counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from seqvae.compute.threads import one_thread
from seqvae.data import NeuralData
from seqvae.data.session_alignment import Aligned, aligned
from seqvae.distributions import GaussianMarkovChain
from seqvae.errors import InputError
from seqvae.models.base import Model
from seqvae.models.linear_readout import (
    Inference,
    emission_of,
    linear_expectations,
    named_e_step,
    require_linear_readout,
    take_emission,
)
from seqvae.observations import Gaussian, Observation, Poisson
from seqvae.state_space import (
    Dynamics,
    EStep,
    LinearEmission,
    LinearFilter,
    LinearStateSpace,
    dynamics_along,
    exact,
    laplace,
    laplace_evidence,
    readout_along,
)
from seqvae.state_space.e_steps import converged
from seqvae.types import Batch, DataSpec, Expectations, Latent, Output


class LinearDynamics(Model):
    """Linear dynamics, read out linearly; learned by EM, in double precision.

        z_1 ~ N(m, V),   z_t = A z_{t-1} + B u_t + b + w_t,   w_t ~ N(0, Q),   x_tn ~ p(x | z_t)

    with external inputs u. With Gaussian noise this is the classical linear dynamical system
    (Kalman; Rauch, Tung & Striebel), with Poisson counts that of Smith & Brown 2003 and Macke et
    al. 2011. The posterior of the path is a Gaussian Markov chain, found from the held-in neurons
    in the encoded bins by Newton's method: exact for a Gaussian readout. Forecast bins are the
    posterior run on. The factors are the latents.

    Args:
        spec: facts of the data.
        latent_dim: size of z.
        observation: factory (latent_dim, num_neurons): ``Poisson`` or ``Gaussian``.
        inference: ``exact`` (Gaussian readout only), ``laplace`` (the most likely path, and the
            curvature there), ``variational`` (the Gaussian of highest bound), or ``auto``: exact
            where it can be, else variational.

    Attributes:
        is_aligned: whether the parameters are those at which several sessions are aligned, so that
            learning begins there alone.

    Raises:
        InputError: for a size below 1 or a readout that has no such inference.
    """

    dimension_argument: ClassVar[str] = "latent_dim"
    serves_any_heldin: ClassVar[bool] = True
    reads_inputs: ClassVar[bool] = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: int = 8,
        observation: Callable[[int, int], Observation] = Poisson,
        inference: Inference = "auto",
    ) -> None:
        super().__init__(spec)
        if latent_dim < 1:
            raise InputError(f"latent_dim must be at least 1, got {latent_dim}")
        self.latent_dim = latent_dim
        self.inference = inference
        self.observation = observation(latent_dim, spec.num_neurons).double()
        require_linear_readout(self.observation, "LinearDynamics")
        identity = torch.eye(latent_dim, dtype=torch.float64)
        zeros = identity.new_zeros
        self.transition = nn.Parameter(0.9 * identity)
        self.input_matrix = nn.Parameter(zeros(latent_dim, spec.num_inputs))
        self.offset = nn.Parameter(zeros(latent_dim))
        self.noise_root = nn.Parameter((1 - 0.9**2) ** 0.5 * identity)
        self.initial_mean = nn.Parameter(zeros(latent_dim))
        self.initial_root = nn.Parameter(identity.clone())
        self.requires_grad_(False)  # EM needs no gradient
        self.is_aligned = False
        self.e_step()

    def e_step(self, inference: str = "auto") -> EStep:
        """Return the E-step of a name; ``auto`` is the model's own.

        Raises:
            InputError: for ``exact`` where it is not, or another name.
        """
        name = self.inference if inference == "auto" else inference
        return named_e_step(self.observation, name)

    @property
    def state_space(self) -> LinearStateSpace:
        """All parameters, as the functions of ``seqvae.state_space`` take them."""
        dynamics = Dynamics(
            self.transition,
            self.input_matrix,
            self.offset,
            self.noise_root @ self.noise_root.mT,
            self.initial_mean,
            self.initial_root @ self.initial_root.mT,
        )
        return LinearStateSpace(dynamics, emission_of(self.observation))

    @torch.no_grad()
    def take(self, learned: LinearStateSpace) -> None:
        """Take parameters that were learned."""
        dynamics, emission = learned
        self.transition.copy_(dynamics.transition)
        self.input_matrix.copy_(dynamics.input_matrix)
        self.offset.copy_(dynamics.offset)
        self.noise_root.copy_(torch.linalg.cholesky(dynamics.noise_covariance))
        self.initial_mean.copy_(dynamics.initial_mean)
        self.initial_root.copy_(torch.linalg.cholesky(dynamics.initial_covariance))
        take_emission(self.observation, emission)

    def initialize(self, data: NeuralData) -> None:
        """Take the training means; of several sessions begin where they are aligned."""
        super().initialize(data)
        common = aligned(data, self.latent_dim)
        if common is not None:
            emission = self.aligned_emission(data, common)
            batch = data.compact(common.trials, among=common.trials[:0]).to(self.offset)
            path = torch.from_numpy(common.path).to(self.offset)
            self.take(LinearStateSpace(dynamics_along(emission, batch, path), emission))
            self.is_aligned = True

    @torch.no_grad()
    def aligned_emission(self, data: NeuralData, common: Aligned) -> LinearEmission:
        """Return the readout of the path that sessions share, learned session by session."""
        whole = self.state_space.emission
        fields = {name: value.clone() for name, value in vars(whole).items()}
        path = torch.from_numpy(common.path).to(self.offset)
        for own, neurons in data.each_session(common.trials):
            batch = self.scored(data.compact(common.trials[own]).to(self.offset))
            model, batch = self.narrowed(batch)
            emission = readout_along(model.state_space.emission, batch, path[own], ridge=1.0)
            for name, value in fields.items():
                value[neurons] = getattr(emission, name)
        return replace(whole, **fields)

    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        """Infer the path of each trial, draw samples and read them out; see the class."""
        with one_thread():
            prior, emission, target, weight = self._problem(batch)
            moments = converged(self.e_step(), prior, emission, target=target, weight=weight)
            posterior = GaussianMarkovChain(moments.mean, moments.precision, validate_args=False)
            sample = posterior.rsample(Size((num_samples,)))
        latent = Latent(posterior, prior, sample, batch.time_mask)
        observation = self.observation
        return Output({"latents": latent}, sample, observation(sample))

    def expectations(self, output: Output, batch: Batch) -> Expectations:
        """Return what the Gaussian posterior expects, in closed form."""
        posterior = output.latents["latents"].posterior
        assert isinstance(posterior, GaussianMarkovChain)
        return linear_expectations(
            self.observation,
            posterior.mean,
            posterior.covariance,
            target=batch.target,
        )

    def emission_given(
        self, latents: dict[str, Float[Tensor, "sample batch ..."]], batch: Batch
    ) -> Distribution:
        """Read out a given path, ``latents`` (sample, batch, time, latent)."""
        return self.observation(latents["latents"])

    def evidence(self, batch: Batch) -> dict[str, Float[Tensor, " batch"]]:
        """Return log p of what inference sees: exact, or by Laplace's approximation for counts."""
        is_exact = isinstance(self.observation, Gaussian)
        with one_thread():
            prior, emission, target, weight = self._problem(batch)
            e_step = exact if is_exact else laplace
            mode = e_step(prior, emission, target=target, weight=weight)
            log_evidence = laplace_evidence(prior, emission, mode, target=target, weight=weight)
        return {"log_evidence" if is_exact else "laplace_evidence": log_evidence}

    def filter(self) -> LinearFilter:
        """Return the Kalman filter of the model; for counts, Laplace's approximation of it."""
        scored = self.observation.scored
        return LinearFilter(self.state_space, list(self.spec.heldin), scored=scored)

    def _problem(self, batch: Batch) -> _Problem:
        """Return what inference knows of a batch."""
        dynamics, emission = self.state_space
        later = batch.target.shape[1] - batch.observed.shape[1]
        # whatever stands in the padding is no input
        inputs = torch.where(batch.time_mask[..., None], batch.inputs, 0.0).to(self.offset)
        weight = functional.pad(batch.observed_mask.to(self.offset), (0, 0, 0, later))
        target = functional.pad(batch.observed.to(self.offset), (0, 0, 0, later))
        return _Problem(
            dynamics.chain(inputs),
            emission.select(list(self.spec.heldin)),
            torch.where(weight > 0, target, 0.0),
            weight,
        )

    def sample(
        self, num_trials: int, inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Output:
        """Draw new trials from the prior; ``inputs`` None: 0 everywhere."""
        if inputs is None:
            inputs = self.offset.new_zeros(
                num_trials, self.spec.num_time_bins, self.spec.num_inputs
            )
        prior = self.state_space.dynamics.chain(inputs.to(self.offset))
        sample = prior.rsample(Size((1,)))
        latent = Latent(prior, prior, sample)
        return Output({"latents": latent}, sample, self.observation(sample))


class _Problem(NamedTuple):
    """Prior, readout of the held-in neurons, and what is seen of these: data and weights."""

    prior: GaussianMarkovChain
    emission: LinearEmission
    target: Float[Tensor, "batch time heldin"]
    weight: Float[Tensor, "batch time heldin"]
