"""Small NWB files, as pynwb writes them."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

pynwb = pytest.importorskip("pynwb")

TRIALS, UNITS, STEP = 12, 5, 3.0


def starts() -> np.ndarray:
    return 2.0 + STEP * np.arange(TRIALS)


def spikes(seed: int = 0) -> list[np.ndarray]:
    """Some 25 Hz of every unit from the session's start to its end."""
    generator = np.random.default_rng(seed)
    return [np.sort(generator.uniform(0, 2 + STEP * TRIALS, 900 + 20 * n)) for n in range(UNITS)]


def nwb_file(
    *,
    times: list[np.ndarray] | None = None,
    units: dict[str, list] | None = None,
    trials: dict[str, list] | None = None,
    intervals: np.ndarray | list[np.ndarray] | None = None,
    is_long: bool = False,
) -> pynwb.NWBFile:
    """Units, trials of 2.5 s with an event after 1 s, and a velocity at 1 kHz.

    Args:
        times: spikes of each unit.
        units: more columns of units.
        trials: more columns of trials, or others in place of event and split.
        intervals: when all units, or each, were observed.
        is_long: without trials.
    """
    file = pynwb.NWBFile("small", "small-1", datetime(2020, 1, 1, tzinfo=timezone.utc))
    begin = starts()
    columns = {"move_onset_time": begin + 1, "split": ["train"] * 8 + ["val"] * 4}
    if not is_long:
        columns |= trials or {}
        for name in columns:
            file.add_trial_column(name, name)
        for trial in range(TRIALS):
            row = {name: values[trial] for name, values in columns.items()}
            file.add_trial(start_time=begin[trial], stop_time=begin[trial] + 2.5, **row)
    for name in units or {}:
        file.add_unit_column(name, name)
    for unit, own in enumerate(spikes() if times is None else times):
        row = {name: values[unit] for name, values in (units or {}).items()}
        if intervals is not None:
            row["obs_intervals"] = intervals[unit] if isinstance(intervals, list) else intervals
        file.add_unit(spike_times=own, id=10 + unit, **row)
    clock = np.arange(0, 2 + STEP * TRIALS, 1e-3)
    velocity = np.stack([np.sin(clock), np.cos(clock)], axis=1)
    behavior = file.create_processing_module("behavior", "behavior")
    behavior.add(pynwb.TimeSeries(name="hand_vel", data=velocity, unit="m/s", timestamps=clock))
    return file


def write_nwb(path: Path, file: pynwb.NWBFile | None = None) -> Path:
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb_file() if file is None else file)
    return path
