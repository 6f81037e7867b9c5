"""Spikes of neurons that follow an ordinary differential equation, with the truth."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float

from seqvae.config.arguments import InConfig
from seqvae.data.recording import Recording
from seqvae.data.sizes import check_extent
from seqvae.data.sources.base import RecordingSource
from seqvae.errors import InputError

_SHARED = 0
"""Seed of the initial states that all simulations share."""


@dataclass(frozen=True)
class Flow(RecordingSource):
    """Poisson counts with log-rates linear in the state of a flow, dz/dt = v(z).

    Each trial begins at a state of its own, so no initial condition is seen twice, unless
    ``num_conditions`` are asked for. The path is
    standardised over the whole simulation: log r_tn = w_n . z_t + b, counts ~ Poisson(r bin_width).
    The last trials are test, those before them val. ``rates`` are the truth r in Hz, ``behavior``
    is z. Subclasses fill in ``_begin`` and ``_velocity``.

    Attributes:
        num_trials: all trials.
        num_val: of them for validation.
        num_test: of them for the test.
        num_time_bins: bins per trial.
        bin_width: seconds.
        num_neurons: all neurons.
        num_heldout: of them held out, drawn at random.
        speed: time units of the flow per second.
        mean_count: counts per bin, averaged over neurons, trials and bins.
        log_rate_std: standard deviation of a neuron's log-rate over trials and bins, averaged
            over neurons (a single one has 0.5 to 1.5 times this).
        seed: of everything random.
        num_conditions: initial states that trials take in turn, the same in simulations of every
            seed: sessions of one system, of different neurons. None: each trial has its own.
    """

    step: ClassVar[float] = 0.005
    """Of the Runge-Kutta integration, in time units of the flow."""
    burn_in: ClassVar[float] = 0.0
    """Time units that pass before the first bin."""

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
    num_conditions: Annotated[int | None, InConfig(tells_default=False)] = None

    def __post_init__(self) -> None:
        for name in ("num_time_bins", "bin_width", "speed", "mean_count", "log_rate_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        per_bin = max(1.0, self.speed * self.bin_width / self.step)
        num_steps = self.burn_in / self.step + self.num_time_bins * per_bin
        check_extent("the integration", self.num_trials, num_steps)
        check_extent("the recording", self.num_trials, self.num_time_bins, self.num_neurons)
        if not 0 <= self.num_val + self.num_test < self.num_trials:
            raise InputError(
                f"num_val {self.num_val} and num_test {self.num_test} must leave some of the "
                f"{self.num_trials} trials to learn from"
            )
        if self.num_conditions is not None and not 1 <= self.num_conditions <= self.num_trials:
            raise InputError(
                f"num_conditions must be from 1 to num_trials {self.num_trials}, got "
                f"{self.num_conditions}"
            )
        if not 0 <= self.num_heldout < self.num_neurons:
            raise InputError(
                f"num_heldout must be from 0 to {self.num_neurons - 1}, got {self.num_heldout}"
            )

    @abstractmethod
    def _begin(self, generator: np.random.Generator) -> Float[np.ndarray, "trial dim"]:
        """Draw the state of each trial before the burn-in."""

    @abstractmethod
    def _velocity(self, z: Float[np.ndarray, "trial dim"]) -> Float[np.ndarray, "trial dim"]:
        """Return v(z), per time unit of the flow."""

    def load(self) -> Recording:
        """Simulate."""
        generator = np.random.default_rng(self.seed)
        condition = None
        if self.num_conditions is None:
            path = self._path(self._begin(generator))
        else:
            few = replace(self, num_trials=self.num_conditions, num_val=0, num_test=0)
            path = self._path(few._begin(np.random.default_rng(_SHARED)))
            condition = np.arange(self.num_trials) % self.num_conditions
        z = (path - path.mean((0, 1))) / path.std((0, 1))
        z = z if condition is None else z[condition]
        direction = generator.standard_normal((z.shape[-1], self.num_neurons))
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
            condition=condition,
            split=np.repeat(["train", "val", "test"], [num_train, self.num_val, self.num_test]),
            heldin=np.setdiff1d(np.arange(self.num_neurons), heldout),
        )

    def _path(self, state: Float[np.ndarray, "trial dim"]) -> Float[np.ndarray, "trial time dim"]:
        """Return the states at the beginnings of the bins, from a state before the burn-in."""
        for _ in range(round(self.burn_in / self.step)):
            state = self._moved(state, self.step)
        substeps = max(1, round(self.speed * self.bin_width / self.step))
        step = self.speed * self.bin_width / substeps
        path = np.empty((len(state), self.num_time_bins, state.shape[1]))
        for t in range(self.num_time_bins):
            path[:, t] = state
            for _ in range(substeps):
                state = self._moved(state, step)
        return path

    def _moved(
        self, z: Float[np.ndarray, "trial dim"], step: float
    ) -> Float[np.ndarray, "trial dim"]:
        """Return the state after one step of the fourth-order Runge-Kutta method."""
        k1 = self._velocity(z)
        k2 = self._velocity(z + step / 2 * k1)
        k3 = self._velocity(z + step / 2 * k2)
        k4 = self._velocity(z + step * k3)
        return z + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
