"""Linear dynamics that switch: a discrete state says which ones hold in each bin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.nn import functional

from seqvae.compute.threads import one_thread
from seqvae.distributions import ContinuedChain, GaussianMarkovChain, SwitchingMarkovChain
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
    Switches,
    SwitchingStateSpace,
    continued_moments,
    continued_sample,
    infer_switching,
    seen_bins,
)
from seqvae.types import Batch, DataSpec, Expectations, Latent, Output


class SwitchingLinearDynamics(Model):
    """Linear dynamics that switch between discrete states, read out linearly; learned by EM.

        m_1 ~ pi,   m_t ~ P[m_{t-1}, :],   z_1 ~ N(m, V),   k = m_t,
        z_t = A_k z_{t-1} + B_k u_t + b_k + w_t,   w_t ~ N(0, Q_k),   x_tn ~ p(x | z_t)

    with external inputs u; one readout serves all states. The first step of a path is the same in
    all states: the many steps after it tell a state, the one first bin of a trial cannot. The
    posterior is q(z) q(m), a Gaussian Markov chain of the path and a Markov chain of the states,
    found by turns from the held-in neurons in the encoded bins [Ghahramani & Hinton 2000]. From the
    last bin seen both run on by the prior. The factors are the latents; ``states`` are one-hot.

    Args:
        spec: facts of the data.
        latent_dim: size of z.
        num_states: discrete states.
        observation: factory (latent_dim, num_neurons): ``Poisson`` or ``Gaussian``.
        inference: how q(z) is found given q(m): ``exact`` (Gaussian readout only), ``laplace``,
            ``variational`` (the Gaussian of highest bound), or ``auto``: exact where it can be,
            else variational.

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
        num_states: int = 2,
        observation: Callable[[int, int], Observation] = Poisson,
        inference: Inference = "auto",
    ) -> None:
        super().__init__(spec)
        for name, size in (("latent_dim", latent_dim), ("num_states", num_states)):
            if size < 1:
                raise InputError(f"{name} must be at least 1, got {size}")
        self.latent_dim = latent_dim
        self.num_states = num_states
        self.inference = inference
        self.observation = observation(latent_dim, spec.num_neurons).double()
        require_linear_readout(self.observation, "SwitchingLinearDynamics")
        identity = torch.eye(latent_dim, dtype=torch.float64)
        zeros, each = identity.new_zeros, identity.expand(num_states, -1, -1)
        sticky = 0.1 / num_states + 0.9 * torch.eye(num_states, dtype=torch.float64)
        self.transition = nn.Parameter(0.9 * each)
        self.input_matrix = nn.Parameter(zeros(num_states, latent_dim, spec.num_inputs))
        self.offset = nn.Parameter(zeros(num_states, latent_dim))
        self.noise_root = nn.Parameter((1 - 0.9**2) ** 0.5 * each)
        self.initial_mean = nn.Parameter(zeros(latent_dim))
        self.initial_root = nn.Parameter(identity.clone())
        self.state_initial_logits = nn.Parameter(zeros(num_states))
        self.state_transition_logits = nn.Parameter(sticky.log())
        self.requires_grad_(False)  # EM needs no gradient
        self.e_step()

    def e_step(self, inference: str = "auto") -> EStep:
        """Return the E-step of q(z) of a name; ``auto`` is the model's own.

        Raises:
            InputError: for ``exact`` where it is not, or another name.
        """
        name = self.inference if inference == "auto" else inference
        return named_e_step(self.observation, name)

    @property
    def state_space(self) -> SwitchingStateSpace:
        """All parameters, as the functions of ``seqvae.state_space`` take them."""
        dynamics = Dynamics(
            self.transition,
            self.input_matrix,
            self.offset,
            self.noise_root @ self.noise_root.mT,
            self.initial_mean,
            self.initial_root @ self.initial_root.mT,
        )
        switches = Switches(
            self.state_initial_logits.log_softmax(-1), self.state_transition_logits.log_softmax(-1)
        )
        return SwitchingStateSpace(dynamics, switches, emission_of(self.observation))

    @torch.no_grad()
    def take(self, learned: SwitchingStateSpace) -> None:
        """Take parameters that were learned."""
        dynamics, switches, emission = learned
        self.transition.copy_(dynamics.transition)
        self.input_matrix.copy_(dynamics.input_matrix)
        self.offset.copy_(dynamics.offset)
        self.noise_root.copy_(torch.linalg.cholesky(dynamics.noise_covariance))
        self.initial_mean.copy_(dynamics.initial_mean)
        self.initial_root.copy_(torch.linalg.cholesky(dynamics.initial_covariance))
        self.state_initial_logits.copy_(switches.log_initial)
        self.state_transition_logits.copy_(switches.log_transition)
        take_emission(self.observation, emission)

    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        """Infer path and states of each trial, draw samples and read them out; see the class."""
        model = self.state_space
        later = batch.target.shape[1] - batch.observed.shape[1]
        weight = functional.pad(batch.observed_mask.to(self.offset), (0, 0, 0, later))
        target = functional.pad(batch.observed.to(self.offset), (0, 0, 0, later))
        # whatever stands in the padding is no input
        inputs = torch.where(batch.time_mask[..., None], batch.inputs, 0.0).to(self.offset)
        with one_thread():
            densities = model.densities(inputs, seen_bins(weight))
            path, states = infer_switching(
                model._replace(emission=model.emission.select(list(self.spec.heldin))),
                densities,
                self.e_step(),
                target=torch.where(weight > 0, target, 0.0),
                weight=weight,
            )
            beginning = GaussianMarkovChain(
                path.mean, path.precision, lengths=densities.mask.sum(1), validate_args=False
            )
            moments = continued_moments(
                densities, states, mean=path.mean, covariance=path.covariance
            )
            state_sample = states.sample(Size((num_samples,)))
            begun = beginning.rsample(Size((num_samples,)))
            sample = continued_sample(densities, state_sample, begun)
        prior = SwitchingMarkovChain(densities, state_sample, states.probabilities)
        latents = {
            "latents": Latent(ContinuedChain(beginning, *moments), prior, sample, densities.mask),
            "states": Latent(
                states, model.switches.chain(*target.shape[:2]), state_sample, batch.time_mask
            ),
        }
        return Output(latents, sample, self.observation(sample))

    def expectations(self, output: Output, batch: Batch) -> Expectations:
        """Return what the posterior expects, in closed form as far as it goes.

        Up to the last bin seen the path is Gaussian. What runs on from there is a mixture over
        states with known moments, which are all that factors and Gaussian data need; for the rates
        of counts in those bins stands the mean over samples, and so for log E_q[p(x | z)] of all.
        """
        latent = output.latents["latents"]
        assert isinstance(latent.posterior, ContinuedChain)
        observation = self.observation
        closed = linear_expectations(
            observation, latent.posterior.mean, latent.posterior.covariance, target=batch.target
        )._replace(log_predictive=None)
        assert latent.mask is not None
        if isinstance(observation, Gaussian) or bool((latent.mask | ~batch.time_mask).all()):
            return closed
        rates = output.emission.mean
        sampled = {
            "mean": rates.mean(0),
            "mean_sd": rates.std(0, correction=0),
            "log_prob": output.emission.log_prob(batch.target).mean(0),
        }
        seen, known = latent.mask[..., None], closed._asdict()
        merged: dict[str, Any] = {
            name: torch.where(seen, known[name], value) for name, value in sampled.items()
        }
        return closed._replace(**merged)

    def sample(
        self, num_trials: int, inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Output:
        """Draw new trials from the prior; ``inputs`` None: 0 everywhere."""
        num_steps = self.spec.num_time_bins if inputs is None else inputs.shape[1]
        if inputs is None:
            inputs = self.offset.new_zeros(num_trials, num_steps, self.spec.num_inputs)
        model = self.state_space
        none = torch.zeros(num_trials, num_steps, dtype=torch.bool, device=self.offset.device)
        densities = model.densities(inputs.to(self.offset), none)
        states = model.switches.chain(num_trials, num_steps)
        state_sample = states.sample(Size((1,)))
        path = self.offset.new_zeros(1, num_trials, num_steps, self.latent_dim)
        sample = continued_sample(densities, state_sample, path)
        prior = SwitchingMarkovChain(densities, state_sample, states.probabilities)
        latents = {
            "latents": Latent(prior, prior, sample),
            "states": Latent(states, states, state_sample),
        }
        return Output(latents, sample, self.observation(sample))
