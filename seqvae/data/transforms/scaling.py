"""Channels in units of their own spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from seqvae.data.lazy import parts
from seqvae.data.recording import Recording
from seqvae.data.transforms.base import Transform
from seqvae.errors import InputError


def zscore(
    recording: Recording, trials: Int[np.ndarray, " chosen"] | list[int] | None = None
) -> Recording:
    """Return the recording with each channel as (x - mean) / sd; one that never varies gets 0.

    Args:
        recording: any.
        trials: those of which mean and sd are taken; None: all.
    """
    chosen = np.arange(recording.num_trials) if trials is None else np.asarray(trials)
    return ZScore().learned(recording, chosen)(recording)


@dataclass(frozen=True)
class ZScore(Transform):
    """Each channel as (x - mean) / sd, both over the observed bins of the training trials.

    Attributes:
        mean: of each channel; None: to be learned.
        sd: of each channel, 1 where it never varies.
        ids: names of the channels, by which others of another order are known; None: by position.
    """

    mean: list[float] | None = None
    sd: list[float] | None = None
    ids: list[int | str] | None = None

    @property
    def learns(self) -> bool:
        """Whether mean and sd are not known yet."""
        return self.mean is None or self.sd is None

    def learned(self, recording: Recording, trials: Int[np.ndarray, " chosen"]) -> ZScore:
        """Return the transform with mean and sd of some trials, in double precision."""
        if not self.learns:
            return self
        total = square = count = np.zeros(recording.num_neurons)
        for part in parts(recording.activity, trials):
            values = part.astype(np.float64)
            total = total + np.nansum(values, axis=0)
            count = count + np.isfinite(values).sum(axis=0)
        mean = total / np.maximum(count, 1)
        for part in parts(recording.activity, trials):
            values = part.astype(np.float64)
            square = square + np.nansum((values - mean) ** 2, axis=0)
        sd = np.sqrt(square / np.maximum(count, 1))
        varies = sd > 1e-9 * np.abs(mean)  # less is rounding
        names = recording.neuron_names
        return ZScore(
            mean.tolist(),
            np.where(varies, sd, 1.0).tolist(),
            None if names is None else names.tolist(),
        )

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording with its activity in these units."""
        if self.mean is None or self.sd is None:
            return zscore(recording)
        mean, sd, names = np.array(self.mean), np.array(self.sd), recording.neuron_names
        if names is not None and self.ids is not None and mean.shape == sd.shape:
            place = {str(name): column for column, name in enumerate(self.ids)}
            order = [place.get(str(name), -1) for name in names]
            if -1 in order or len(place) != len(mean):
                raise InputError(
                    f"zscore: mean and sd of neuron {names[order.index(-1)]!r} are not known; give "
                    "the neurons that they were learned of"
                )
            mean, sd = mean[order], sd[order]
        if not mean.shape == sd.shape == (recording.num_neurons,) or not (sd > 0).all():
            raise InputError(
                f"zscore: mean and sd must hold a number for each of the {recording.num_neurons} "
                "channels, those of sd above 0; leave both out to learn them"
            )
        scaled = np.empty(recording.shape, dtype=np.float32)
        for trial in range(recording.num_trials):
            scaled[trial] = (recording.read([trial])[0] - mean) / sd
        return recording.changed(activity=scaled)
