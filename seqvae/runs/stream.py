"""A causal model bin by bin, as in a closed loop: one bin in, rates out."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from seqvae.compute.threads import one_thread
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.types import DataSpec

_COUNTED = 1_000_000
"""Bins of which the latency is kept."""


class Stream:
    """Bins one after the other; state is kept, and nothing waits for what comes later.

        with run.stream() as stream:
            for counts in source:
                rates = stream.step(counts)

    At its end it prints the latency; ``print(stream)`` does so at any time.

    Args:
        model: a causal model.

    Attributes:
        rates_sd: standard deviation of the last rates (of real values: of the last means).
        factors: mean of the last factors.
        factors_sd: their standard deviation.

    Raises:
        InputError: for a model that is not causal.
    """

    def __init__(self, model: Model) -> None:
        self._spec: DataSpec = model.spec
        self._filter = model.filter()
        counts = model.observation.kind.counts_events
        self._scale = 1.0 / self._spec.bin_width if counts and self._spec.bin_width else 1.0
        self.restart()

    def restart(self) -> None:
        """Forget all bins, as at the start of a trial or after a break."""
        self._filter.restart()
        self._seconds: list[float] = []
        self.rates_sd = self.factors = self.factors_sd = np.empty(0)

    def step(self, values: Any, inputs: Any = None) -> Float[np.ndarray, " neuron"]:
        """Take the next bin and return the rates of all neurons in it.

        Args:
            values: counts (or real values) of the bin, after the transforms of the run: of all its
                neurons or of those that are held in; what is held out is not looked at. NaN =
                missing.
            inputs: external inputs, where the model has some.

        Returns:
            Rates in Hz, those of held-out neurons, too; of real values the means.

        Raises:
            InputError: for another number of neurons or inputs.
        """
        start = time.perf_counter()
        seen = torch.from_numpy(self._seen(values))
        driven = torch.from_numpy(self._driven(inputs))
        with one_thread():
            answer = self._filter.step(seen, driven)
        self.factors, self.factors_sd = answer.latents.numpy(), answer.latents_sd.numpy()
        self.rates_sd = self._scale * answer.mean_sd.numpy()
        rates: np.ndarray = self._scale * answer.mean.numpy()
        if len(self._seconds) < _COUNTED:
            self._seconds.append(time.perf_counter() - start)
        return rates

    def _seen(self, values: Any) -> Float[np.ndarray, " heldin"]:
        spec, row = self._spec, np.asarray(values, dtype=np.float64).reshape(-1)
        if len(row) == spec.num_neurons:
            row = row[list(spec.heldin)]
        if len(row) != spec.num_heldin:
            raise InputError(
                f"values: a bin of {len(row)} neurons, but the model has {spec.num_neurons}, of "
                f"which {spec.num_heldin} are held in; give the same neurons"
            )
        if np.isinf(row).any():
            raise InputError(f"values[{int(np.argmax(np.isinf(row)))}] is infinite; NaN = missing")
        return row

    def _driven(self, inputs: Any) -> Float[np.ndarray, " input"]:
        row = np.asarray([] if inputs is None else inputs, dtype=np.float64).reshape(-1)
        if len(row) != self._spec.num_inputs or not np.isfinite(row).all():
            raise InputError(
                f"inputs: give {self._spec.num_inputs} numbers for each bin, got {inputs!r}"
            )
        return row

    @property
    def latency(self) -> dict[str, float]:
        """Seconds from a bin to its rates: ``median``, ``p99`` and ``longest``, and ``bins``."""
        times = np.array(self._seconds) if self._seconds else np.full(1, np.nan)
        return {
            "bins": float(len(self._seconds)),
            "median": float(np.median(times)),
            "p99": float(np.quantile(times, 0.99)),
            "longest": float(times.max()),
        }

    def __str__(self) -> str:
        """Tell how many bins there were, and how long each took."""
        if not self._seconds:
            return "stream: no bin yet"
        latency = self.latency
        words = ", ".join(f"{name} {1e3 * latency[name]:.2f} ms" for name in
                          ("median", "p99", "longest"))  # fmt: skip
        return f"stream: {len(self._seconds)} bins, latency {words}"

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        print(self)
