"""What is told of a recording in one line, and in a notebook in a short table."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from seqvae.storage.html import facts_html

_MOST_LABELS = 12


def recording_text(recording: Any) -> str:
    """Tell the sizes of a recording, and what is there beside the activity."""
    sizes = f"{recording.num_trials} trials, {recording.num_time_bins} bins"
    width = "" if recording.bin_width is None else f" of {recording.bin_width:g} s"
    there = f", with {', '.join(beside)}" if (beside := _beside(recording)) else ""
    return f"Recording({sizes}{width}, {recording.num_neurons} neurons{there})"


def recording_html(recording: Any) -> str:
    """Tell the same as a table; no activity is read for it."""
    lengths, width = recording.lengths, recording.bin_width
    bins = f"{lengths.min()} to {lengths.max()}" if np.ptp(lengths) else f"{lengths.max()}"
    facts: dict[str, object] = {
        "trials": f"{recording.num_trials}{_numbers(recording.split)}",
        "bins a trial": bins if width is None else f"{bins} of {width:g} s",
        "neurons": recording.num_neurons,
    }
    if recording.heldin is not None:
        facts["neurons held out"] = recording.num_neurons - len(recording.heldin)
    if recording.condition is not None:
        labels = np.unique(recording.condition)
        named = f": {', '.join(map(str, labels))}" if len(labels) <= _MOST_LABELS else ""
        facts["conditions"] = f"{len(labels)}{named}"
    if recording.event_name is not None:
        facts["event"] = recording.event_name
    if recording.session_id is not None:
        facts["session"] = recording.session_id
    if beside := _beside(recording):
        facts["beside the activity"] = ", ".join(beside)
    return facts_html("Recording", facts)


def _numbers(split: np.ndarray | None) -> str:
    if split is None:
        return ""
    words, numbers = np.unique(split, return_counts=True)
    parts = [f"{number} {word}" for word, number in zip(words, numbers, strict=True)]
    return f" ({', '.join(parts)})"


def _beside(recording: Any) -> list[str]:
    usual = ("activity", "bin_width", "neuron_ids", "trial_ids")
    return [
        field.name
        for field in fields(recording)
        if field.name not in usual and getattr(recording, field.name) is not None
    ]
