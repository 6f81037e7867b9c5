"""What the data alone tell: channels of which nothing can be learned, and odd values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from seqvae.analysis.diagnosis.cures import choose
from seqvae.analysis.diagnosis.facts import Checkup, Finding, OddChannels
from seqvae.data import NeuralData, Recording
from seqvae.data.pieces import pieces
from seqvae.data.sizes import spread_out
from seqvae.distributions.kinds import DataKind, Real

LARGE_COUNT = 10.0
"""Mean count from which on a Gaussian is near enough to a Poisson (its skewness is below 1/3)."""
MOST_ZEROS = 0.25
"""Share of exact zeros among real values, of which a Gaussian has none."""
FARTHEST = 1e5
"""Deviations from 0 at which single precision leaves two digits of a deviation."""
FEWEST_EVENTS = 3
"""Values other than 0 by which two channels that are equal are not so by chance."""


class Values(NamedTuple):
    """What is there of a recording: its mean, the share of zeros, and the least."""

    mean: float
    zeros: float
    least: float

    @classmethod
    def of(cls, recording: Recording) -> Values:
        """Read all of a recording, piece by piece."""
        total, zeros, count, least = 0.0, 0, 0, math.inf
        for piece in pieces(recording):
            values = piece.values[np.isfinite(piece.values)]
            total += float(values.sum(dtype=np.float64))
            zeros, count = zeros + int((values == 0).sum()), count + len(values)
            least = min(least, float(values.min(initial=math.inf)))
        return cls(total / count, zeros / count, least)


def odd_channels(data: NeuralData, kind: DataKind) -> OddChannels:
    """Find the odd channels in the training trials of some data.

    Args:
        data: the data.
        kind: what the observation model takes them for.
    """
    recording = data.recording
    assert recording.neuron_ids is not None
    names = [str(name) for name in recording.neuron_ids]
    low, high = np.full((2, recording.num_neurons), np.nan)
    trials, twins = data.trials("train"), []
    for own, neurons in data.each_session(trials):
        some = spread_out(trials[own], (len(own), recording.num_time_bins, len(neurons)))
        values = recording.read(some, neurons if len(neurons) < len(names) else None)
        values = values.reshape(-1, len(neurons))
        seen = np.isfinite(values)
        low[neurons] = np.where(seen, values, np.inf).min(axis=0)
        high[neurons] = np.where(seen, values, -np.inf).max(axis=0)
        varies = low[neurons] < high[neurons]
        pairs = _twins(values, seen, np.flatnonzero(varies))
        twins += [(names[neurons[one]], names[neurons[other]]) for one, other in pairs]
    mean, std = (moment.numpy() for moment in data.train_moments[:2])
    real, flat = kind == Real(), low == high
    mute = flat & (high == 0) & (not real)
    far = real & ~flat & (low < high) & (np.abs(mean) > FARTHEST * std)

    def named(chosen: np.ndarray) -> list[str]:
        return [names[neuron] for neuron in np.flatnonzero(chosen)]

    return OddChannels(named(mute), named(flat & ~mute), named(far), twins)


def _twins(
    values: Float[np.ndarray, "entry neuron"],
    seen: Bool[np.ndarray, "entry neuron"],
    neurons: Int[np.ndarray, " varying"],
) -> list[tuple[int, int]]:
    """Return pairs of channels that are equal, and have events enough not to be so by chance."""
    firsts: dict[bytes, int] = {}
    twins = []
    for neuron in neurons.tolist():
        if int((seen[:, neuron] & (values[:, neuron] != 0)).sum()) >= FEWEST_EVENTS:
            first = firsts.setdefault(values[:, neuron].tobytes(), neuron)
            twins += [(first, neuron)] if first != neuron else []
    return twins


def odd_channel_findings(checkup: Checkup) -> list[Finding]:
    """Tell of channels of which nothing can be learned, or nothing that is new."""
    odd, findings = checkup.channels, []
    if odd.constant:
        sentence = f"{_channels(odd.constant)} one value in all training trials: "
        otherwise = "leave them out of the data, or mend the recording"
        findings.append(
            Finding("constant_channels", sentence + _listed(odd.constant), (), otherwise)
        )
    if odd.silent:
        event = "spike" if checkup.kind.counts_events else "event"
        number = len(odd.silent)
        sentence = f"{number} {'neuron has' if number == 1 else 'neurons have'} no {event} in the "
        sentence += f"training trials: {_listed(odd.silent)}"
        findings.append(Finding("silent_neurons", sentence, (), "leave them out of the data"))
    if odd.twins:
        pairs = [f"{one} and {other}" for one, other in odd.twins]
        sentence = f"channels are equal in all training trials: {_listed(pairs)}"
        otherwise = "leave one of each pair out of the data"
        findings.append(Finding("equal_channels", sentence, (), otherwise))
    if odd.far:
        sentence = (
            f"{_channels(odd.far)} a mean above {FARTHEST:g} deviations, of which single precision "
            f"keeps two digits: {_listed(odd.far)}"
        )
        otherwise = "subtract the offset from the data, in double precision"
        findings.append(Finding("far_offset", sentence, (), otherwise))
    return findings


def _channels(names: Sequence[str]) -> str:
    return "1 channel has" if len(names) == 1 else f"{len(names)} channels have"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")


def gaussian_of_other_data(checkup: Checkup) -> list[Finding]:
    """Find data that no Gaussian can have made."""
    if checkup.kind != Real():
        return []
    observation = f"its observation is {checkup.observation}"
    others = "a model that is learned by gradients reads them"
    if checkup.are_counts and checkup.mean < LARGE_COUNT:
        sentence = f"the data are counts of {checkup.mean:.3g} on average; {observation}"
        cures = tuple(choose("model.observation", name) for name in ("Poisson", "NegativeBinomial"))
        return [Finding("gaussian_counts", sentence, cures, others)]
    if not checkup.are_counts and checkup.zeros > MOST_ZEROS:
        sentence = f"{checkup.zeros:.0%} of the values are exactly zero; {observation}"
        cures = (choose("model.observation", "ZeroInflatedGamma"),) if checkup.least >= 0 else ()
        otherwise = "give traces without a threshold, or events as counts"
        return [Finding("many_zeros", sentence, cures, otherwise)]
    return []
