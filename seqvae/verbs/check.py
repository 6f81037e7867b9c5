"""Validate a recording and tell what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from seqvae.data import Recording, as_data
from seqvae.data.front import BinWidth, DataLike
from seqvae.data.sources import HDF5
from seqvae.data.sources.base import RecordingSource
from seqvae.distributions.kinds import kind_of


def check(data: DataLike, *, bin_width: BinWidth = None) -> dict[str, Any]:
    """Load and validate data, and return what is in them.

    Args:
        data: the recording, how it is split, and what inference may see.
        bin_width: seconds per bin, where ``data`` is an array or a file.

    Raises:
        InputError: naming the field, the first offending index and the cure.
    """
    data = as_data(data, bin_width)
    data.setup()
    recording, spec = data.recording, data.spec
    kind = kind_of(recording.read(trials) for trials in recording.chunks())
    mean = data.train_mean.numpy() if "train" in data.split else None
    summary: dict[str, Any] = {
        "trials" if data.start is None else "windows": data.num_trials,
        "time bins": spec.num_time_bins,
        "shortest trial (bins)": int(recording.lengths.min()),
        "forecast bins": spec.num_forecast_bins,
        "bin width (s)": spec.bin_width,
        "neurons held in": spec.num_heldin,
        "neurons held out": len(spec.heldout),
        "external inputs": spec.num_inputs,
        "behavior dimensions": 0 if recording.behavior is None else recording.behavior.shape[-1],
        "missing entries": sum(_missing(recording, trials) for trials in recording.chunks()),
        **({"axes": "in MATLAB's order (7.3)"} if _is_matlab(data.source) else {}),
        "values": f"{kind}" if kind.counts_events else f"{kind} numbers",
    }
    if kind.counts_events and spec.bin_width and mean is not None:
        rates = mean / spec.bin_width
        summary["mean rate (Hz)"] = round(float(rates.mean()), 3)
        summary["slowest and fastest neuron (Hz)"] = f"{rates.min():.3g} to {rates.max():.3g}"
    summary["checksum"] = recording.checksum
    return summary


def _missing(recording: Recording, trials: Int[np.ndarray, " chosen"]) -> int:
    """Count what is missing in some trials, padding left out."""
    values = recording.read(trials)
    inside = np.arange(recording.num_time_bins) < recording.lengths[trials][:, None]
    return int(np.isnan(values[inside]).sum())


def _is_matlab(source: RecordingSource) -> bool:
    return isinstance(source, HDF5) and source.is_matlab


def shown(summary: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Lay out what is in the data, a line each."""
    return "\n".join(f"{name}: {value}" for name, value in summary.items())
