"""Spikes of neurons that follow the Lorenz system: chaos in three dimensions, with the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from seqvae.data.recording import Recording
from seqvae.data.sizes import check_extent
from seqvae.data.sources.base import RecordingSource
from seqvae.errors import InputError

_STEP = 0.005  # of the Runge-Kutta integration, in Lorenz time units
_BURN_IN = 10.0  # Lorenz time units to reach the attractor


@dataclass(frozen=True)
class Lorenz(RecordingSource):
    """Poisson counts with log-rates linear in the Lorenz system.

    z follows dz1 = 10 (z2 - z1), dz2 = z1 (28 - z3) - z2, dz3 = z1 z2 - 8/3 z3 from random initial
    conditions, standardised over the whole simulation; log r_tn = w_n . z_t + b, counts ~
    Poisson(r bin_width). The last trials are test, those before them val. ``rates`` are the truth
    r in Hz, ``behavior`` is z. [Lorenz 1963; as a test of sequential VAEs: Sussillo et al. 2016]

    Attributes:
        num_trials: all trials.
        num_val: of them for validation.
        num_test: of them for the test.
        num_time_bins: bins per trial.
        bin_width: seconds.
        num_neurons: all neurons.
        num_heldout: of them held out, drawn at random.
        speed: Lorenz time units per second.
        mean_count: counts per bin, averaged over neurons, trials and bins.
        log_rate_std: standard deviation of a neuron's log-rate over trials and bins, averaged
            over neurons (a single one has 0.5 to 1.5 times this).
        seed: of everything random.
    """

    num_trials: int = 200
    num_val: int = 50
    num_test: int = 0
    num_time_bins: int = 100
    bin_width: float = 0.01
    num_neurons: int = 50
    num_heldout: int = 13
    speed: float = 6.0
    mean_count: float = 0.25
    log_rate_std: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_time_bins", "bin_width", "speed", "mean_count", "log_rate_std"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        per_bin = max(1.0, self.speed * self.bin_width / _STEP)
        num_steps = _BURN_IN / _STEP + self.num_time_bins * per_bin
        check_extent("the integration", self.num_trials, num_steps)
        check_extent("the recording", self.num_trials, self.num_time_bins, self.num_neurons)
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
        """Simulate."""
        generator = np.random.default_rng(self.seed)
        z = self._trajectories(generator)
        direction = generator.standard_normal((3, self.num_neurons))
        drive = z @ direction
        std = self.log_rate_std * generator.uniform(0.5, 1.5, self.num_neurons)
        drive *= std / drive.std((0, 1))
        mean_counts = np.exp(drive)
        mean_counts *= self.mean_count / mean_counts.mean()
        heldout = generator.permutation(self.num_neurons)[: self.num_heldout]
        num_train = self.num_trials - self.num_val - self.num_test
        return Recording(
            generator.poisson(mean_counts),
            self.bin_width,
            rates=mean_counts / self.bin_width,
            behavior=z,
            split=np.repeat(["train", "val", "test"], [num_train, self.num_val, self.num_test]),
            heldin=np.setdiff1d(np.arange(self.num_neurons), heldout),
        )

    def _trajectories(self, generator: np.random.Generator) -> Float[np.ndarray, "trial time 3"]:
        state = generator.standard_normal((self.num_trials, 3)) * 10 + np.array([0.0, 0.0, 25.0])
        for _ in range(round(_BURN_IN / _STEP)):
            state = _runge_kutta(state, _STEP)
        substeps = max(1, round(self.speed * self.bin_width / _STEP))
        step = self.speed * self.bin_width / substeps
        path = np.empty((self.num_trials, self.num_time_bins, 3))
        for t in range(self.num_time_bins):
            path[:, t] = state
            for _ in range(substeps):
                state = _runge_kutta(state, step)
        return (path - path.mean((0, 1))) / path.std((0, 1))


def _velocity(z: Float[np.ndarray, "trial 3"]) -> Float[np.ndarray, "trial 3"]:
    x, y, w = z.T
    return np.stack([10 * (y - x), x * (28 - w) - y, x * y - 8 / 3 * w], axis=1)


def _runge_kutta(z: Float[np.ndarray, "trial 3"], step: float) -> Float[np.ndarray, "trial 3"]:
    k1 = _velocity(z)
    k2 = _velocity(z + step / 2 * k1)
    k3 = _velocity(z + step / 2 * k2)
    k4 = _velocity(z + step * k3)
    return z + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
