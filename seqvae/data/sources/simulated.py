"""Trials of linear dynamical systems, switching or not, with the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqvae.data.recording import Recording
from seqvae.data.sizes import check_extent
from seqvae.data.sources.base import RecordingSource
from seqvae.errors import InputError

_BIAS_STD = 0.3  # of the log mean counts between neurons


class LinearSimulation(NamedTuple):
    """A recording and what made it.

    Attributes:
        recording: what ``load`` returns.
        latents: z.
        states: m, from 0.
        transition: A of each state.
        noise_covariance: Q, the same in all states.
        state_transition: P.
        loadings: the c_n.
        bias: the d_n.
    """

    recording: Recording
    latents: Float[np.ndarray, "trial time latent"]
    states: Int[np.ndarray, "trial time"]
    transition: Float[np.ndarray, "state latent latent"]
    noise_covariance: Float[np.ndarray, "latent latent"]
    state_transition: Float[np.ndarray, "state state"]
    loadings: Float[np.ndarray, "neuron latent"]
    bias: Float[np.ndarray, " neuron"]


@dataclass(frozen=True)
class SimulatedLinearDynamics(RecordingSource):
    """Counts or real values read from damped rotations, which may switch.

        z_1 ~ N(0, I),    z_t = A_k z_{t-1} + w_t,    w_t ~ N(0, drive_std^2 I),    k = m_t,

    where each A_k is ``radius`` times a rotation. The planes of rotation are the same in all
    states; their angles fall evenly from ``fastest`` to ``slowest``, first over the planes of state
    0, then of state 1 and so on (an odd last dimension only decays). With drive_std^2 = 1 -
    radius^2 the variance stays 1, with less the paths die away from where they began. The state
    stays with probability ``stay``, else it goes to any other. With one state it is an (P)LDS, with
    more a switching one. Each neuron sees eta = c_n . z_t + d_n:

        poisson:   x ~ Poisson(exp(eta)),    gaussian:   x ~ N(eta, noise_std^2).

    The last trials are test, those before them val. ``behavior`` is z; for counts ``rates`` are the
    true rates in Hz. The states are no part of a recording: ``simulate`` returns them too, with all
    parameters.

    Attributes:
        num_states: discrete states; 1 for dynamics that do not switch.
        latent_dim: size of z.
        observation: ``poisson`` or ``gaussian``.
        num_trials: all trials.
        num_val: of them for validation.
        num_test: of them for the test.
        num_time_bins: bins per trial.
        bin_width: seconds.
        num_neurons: all neurons.
        num_heldout: of them held out, drawn at random.
        radius: modulus of the eigenvalues.
        fastest: largest angle, radians per bin.
        slowest: smallest angle, radians per bin.
        drive_std: standard deviation of the noise that drives each latent.
        stay: probability that the state stays.
        mean_count: counts per bin, averaged over trials and bins, of the typical neuron.
        predictor_std: standard deviation of c_n . z_1, of the log-rate or in data units, averaged
            over neurons (a single one has 0.5 to 1.5 times this).
        noise_std: of real values, in data units.
        seed: of everything random.
    """

    num_states: int = 1
    latent_dim: int = 2
    observation: Literal["poisson", "gaussian"] = "poisson"
    num_trials: int = 100
    num_val: int = 25
    num_test: int = 0
    num_time_bins: int = 100
    bin_width: float = 0.02
    num_neurons: int = 45
    num_heldout: int = 11
    radius: float = 0.98
    fastest: float = 0.35
    slowest: float = 0.10
    drive_std: float = 0.2
    stay: float = 0.98
    mean_count: float = 0.3
    predictor_std: float = 1.0
    noise_std: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.observation not in ("poisson", "gaussian"):
            raise InputError(f"observation must be poisson or gaussian, got {self.observation!r}")
        for name in ("num_states", "latent_dim", "num_time_bins"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("bin_width", "mean_count", "predictor_std", "drive_std", "noise_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        widest = max(self.num_neurons, self.latent_dim, 50)  # a bin costs time, too
        check_extent("the recording", self.num_trials, self.num_time_bins, widest)
        check_extent("the dynamics", self.num_states, self.latent_dim, widest)
        if not 0 <= self.radius < 1:
            raise InputError(f"radius must be at least 0 and below 1, got {self.radius}")
        if not 0 <= self.stay <= 1:
            raise InputError(f"stay must be from 0 to 1, got {self.stay}")
        if not 0 <= self.num_val + self.num_test < self.num_trials:
            raise InputError(
                f"num_val {self.num_val} and num_test {self.num_test} must leave some of the "
                f"{self.num_trials} trials to learn from"
            )
        if not 0 <= self.num_heldout < self.num_neurons:
            raise InputError(
                f"num_heldout must be from 0 to {self.num_neurons - 1}, got {self.num_heldout}"
            )

    def load(self) -> Recording:
        """Simulate, and return the recording alone."""
        return self.simulate().recording

    def simulate(self) -> LinearSimulation:
        """Simulate."""
        generator = np.random.default_rng(self.seed)
        size, num_neurons = self.latent_dim, self.num_neurons
        basis, _ = np.linalg.qr(generator.standard_normal((size, size)))
        transition = np.stack([self.radius * basis @ turn @ basis.T for turn in self._rotations()])
        noise_covariance = self.drive_std**2 * np.eye(size)
        loadings = generator.standard_normal((num_neurons, size))
        loadings /= np.linalg.norm(loadings, axis=1, keepdims=True)
        loadings *= self.predictor_std * generator.uniform(0.5, 1.5, (num_neurons, 1))
        bias = _BIAS_STD * generator.standard_normal(num_neurons)
        if self.observation == "poisson":  # E[exp(c . z)] = exp(|c|^2 v / 2)
            decay = self.radius ** (2.0 * np.arange(self.num_time_bins))
            variance = decay + self.drive_std**2 * (1 - decay) / (1 - self.radius**2)
            gain = np.exp(0.5 * (loadings**2).sum(1)[:, None] * variance).mean(1)
            bias += np.log(self.mean_count / gain)
        away = (1 - self.stay) / max(self.num_states - 1, 1)
        state_transition = np.full((self.num_states, self.num_states), away)
        np.fill_diagonal(state_transition, self.stay if self.num_states > 1 else 1.0)

        states = self._states(generator, state_transition)
        noise = generator.standard_normal((self.num_trials, self.num_time_bins, size))
        latents = noise.copy()
        for t in range(1, self.num_time_bins):
            moved = np.einsum("bij,bj->bi", transition[states[:, t]], latents[:, t - 1])
            latents[:, t] = moved + self.drive_std * noise[:, t]
        predictor = latents @ loadings.T + bias
        rates = None
        if self.observation == "poisson":
            activity = generator.poisson(np.exp(predictor)).astype(float)
            rates = np.exp(predictor) / self.bin_width
        else:
            activity = predictor + self.noise_std * generator.standard_normal(predictor.shape)
        heldout = generator.permutation(num_neurons)[: self.num_heldout]
        num_train = self.num_trials - self.num_val - self.num_test
        recording = Recording(
            activity,
            self.bin_width,
            rates=rates,
            behavior=latents,
            split=np.repeat(["train", "val", "test"], [num_train, self.num_val, self.num_test]),
            heldin=np.setdiff1d(np.arange(num_neurons), heldout),
        )
        dynamics = latents, states, transition, noise_covariance, state_transition
        return LinearSimulation(recording, *dynamics, loadings, bias)

    def _rotations(self) -> Float[np.ndarray, "state latent latent"]:
        planes = self.latent_dim // 2
        angles = np.linspace(self.fastest, self.slowest, self.num_states * planes)
        turns = np.tile(np.eye(self.latent_dim), (self.num_states, 1, 1))
        for turn, state_angles in zip(turns, angles.reshape(self.num_states, planes), strict=True):
            for plane, angle in enumerate(state_angles):
                cosine, sine = np.cos(angle), np.sin(angle)
                block = slice(2 * plane, 2 * plane + 2)
                turn[block, block] = [[cosine, -sine], [sine, cosine]]
        return turns

    def _states(
        self, generator: np.random.Generator, state_transition: Float[np.ndarray, "state state"]
    ) -> Int[np.ndarray, "trial time"]:
        states = np.empty((self.num_trials, self.num_time_bins), dtype=np.int64)
        states[:, 0] = generator.integers(self.num_states, size=self.num_trials)
        chance = generator.random(states.shape)
        up_to = state_transition.cumsum(1)
        up_to[:, -1] = 1.0  # a sum of probabilities may end below 1
        for t in range(1, self.num_time_bins):
            states[:, t] = (chance[:, t, None] >= up_to[states[:, t - 1]]).sum(1)
        return states
