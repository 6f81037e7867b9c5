"""Validate a recording and tell what is in it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Bool, Int

from seqvae.config import to_config
from seqvae.data import NeuralData, Recording, as_data
from seqvae.data.front import BinWidth, DataLike
from seqvae.data.pieces import Piece, pieces
from seqvae.data.sources import HDF5
from seqvae.data.sources.base import RecordingSource
from seqvae.data.survey import settled_source
from seqvae.data.validation import names_of
from seqvae.distributions.kinds import kind_of
from seqvae.errors import InputError
from seqvae.storage.files import write_text

SHOWN_SESSIONS = 40
HELDOUT = 0.2
"""Share of the neurons that a written config holds out, where the file holds out none."""


def check(
    data: DataLike, *, bin_width: BinWidth = None, write_config: str | None = None
) -> dict[str, Any]:
    """Load and validate data, and return what is in them.

    Of a file, or of those of several sessions (``monkey/*.npz``), nothing need be said, neither
    ``keys``, ``dims`` and ``bin_width`` (HDF5, npz, npy, MATLAB) nor the settings of ``NWB``: what
    the entries are is guessed, each guess is told with its reason, and where there is doubt one
    question is asked.

    Args:
        data: the recording, how it is split, and what inference may see.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        write_config: file to write a config to that reads the data so, without a guess.

    Raises:
        InputError: naming the field, the first offending index and the cure.
    """
    if write_config is not None and Path(write_config).exists():
        raise InputError(f"write_config: {write_config!r} is there already; name a new file")
    data, looks = with_guesses(as_data(data, bin_width))
    data.setup()
    recording, spec, lengths = data.recording, data.spec, data.recording.lengths
    kind = kind_of(piece.values for piece in pieces(recording))
    mean = data.train_mean.numpy() if "train" in data.split else None
    valued = _valued(recording)
    summary: dict[str, Any] = looks | {
        **_sessions(recording),
        "trials" if data.start is None else "windows": data.num_trials,
        "time bins": spec.num_time_bins,
        "shortest trial (bins)": int(lengths.min()),
        "forecast bins": spec.num_forecast_bins,
        "bin width (s)": spec.bin_width or "unknown; give --data.source.bin_width, in seconds",
        "neurons held in": spec.num_heldin,
        "neurons held out": len(spec.heldout),
        "external inputs": spec.num_inputs,
        "behavior dimensions": 0 if recording.behavior is None else recording.behavior.shape[-1],
        "missing entries": sum(
            _missing(lengths, piece, spec.num_neurons) for piece in pieces(recording)
        ),
        **_unknown(recording, valued),
        **({"axes": "in MATLAB's order (7.3)"} if _is_matlab(data.source) else {}),
        "values": f"{kind}" if kind.counts_events else f"{kind} numbers",
    }
    if kind.counts_events and spec.bin_width and mean is not None:
        rates = mean[valued] / spec.bin_width
        summary["mean rate (Hz)"] = round(float(rates.mean()), 3)
        summary["slowest and fastest neuron (Hz)"] = f"{rates.min():.3g} to {rates.max():.3g}"
    summary["checksum"] = recording.checksum
    if write_config is not None:
        tree: dict[str, Any] = {"data": {"source": to_config(data.source, key="data.source")}}
        if _lacks_heldout(data):
            tree["data"]["heldout"] = HELDOUT
            summary["heldout in the config"] = (
                f"{HELDOUT}, as the file holds no neuron out, and only neurons that a model does "
                "not see tell what it predicts"
            )
        write_text(Path(write_config), yaml.safe_dump(tree, sort_keys=False))
        summary["config"] = write_config
    return summary


def with_guesses(data: NeuralData) -> tuple[NeuralData, dict[str, Any]]:
    """Return data whose source needs no guess, and what of their files was seen and guessed."""
    found = settled_source(data.source)
    if found.entries is None and not found.guesses:
        return data, {}
    settled = copy.copy(data)
    settled.source = found.source
    entries = {} if found.entries is None else {"entries": found.entries}
    return settled, entries | ({"guessed": found.guesses} if found.guesses else {})


def _sessions(recording: Recording) -> dict[str, list[str]]:
    """Tell of each of several sessions what it has."""
    of_trials, of_neurons = recording.trial_sessions, recording.neuron_sessions
    if of_trials is None or of_neurons is None:
        return {}
    trials, neurons = Counter(of_trials.tolist()), Counter(of_neurons.tolist())
    lines = [f"{name}: {trials[name]} trials, {neurons[name]} neurons" for name in neurons]
    more = [f"and {len(lines) - SHOWN_SESSIONS} more"] if len(lines) > SHOWN_SESSIONS else []
    return {"sessions": lines[:SHOWN_SESSIONS] + more}


def _lacks_heldout(data: NeuralData) -> bool:
    """Whether nothing tells what a model predicts, and a share of the neurons could."""
    spec = data.spec
    is_set = data.heldout is not None or bool(spec.heldout) or bool(spec.num_forecast_bins)
    is_image = data.recording.image_shape is not None
    return not is_set and not is_image and spec.num_neurons * HELDOUT >= 1


def _missing(lengths: Int[np.ndarray, " trial"], piece: Piece, num_neurons: int) -> int:
    """Count what is missing in some trials, padding left out."""
    values, lengths = piece.values, lengths[piece.trials]
    inside = np.arange(values.shape[1]) < lengths[:, None]
    of_others = (num_neurons - values.shape[2]) * int(lengths.sum())
    return int(np.isnan(values[inside]).sum()) + of_others


def _valued(recording: Recording) -> Bool[np.ndarray, " neuron"]:
    """Tell which neurons have a value in some trial."""
    valued = np.zeros(recording.num_neurons, dtype=bool)
    for piece in pieces(recording):
        there = slice(None) if piece.neurons is None else piece.neurons
        valued[there] |= np.isfinite(piece.values).any(axis=(0, 1))
    return valued


def _unknown(recording: Recording, valued: Bool[np.ndarray, " neuron"]) -> dict[str, str]:
    """Name the neurons that have no value; most models refuse them."""
    unknown = np.flatnonzero(~valued)
    assert recording.neuron_ids is not None
    if not len(unknown):
        return {}
    names = names_of(unknown, recording.neuron_ids)
    return {"neurons without a value": f"{names}; leave them out"}


def _is_matlab(source: RecordingSource) -> bool:
    return isinstance(source, HDF5) and source.is_matlab


def shown(summary: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Lay out what is in the data, a line each."""
    lines = []
    for name, value in summary.items():
        several = isinstance(value, list)
        lines.append(f"{name}:" if several else f"{name}: {value}")
        lines += [f"  {line}" for line in value] if several else []
    if "config" in summary:
        lines.append(f"next: seqvae fit --config {summary['config']} --run_dir runs/mine")
    return "\n".join(lines)
