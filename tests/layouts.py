"""Files as labs have them, in twenty layouts, and what each entry of them is.

Written down before anything guessed at them. Where a layout can only be asked about, ``asks`` is
the word that the one question must hold.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse

TRIALS, BINS, NEURONS, WIDTH = 24, 15, 8, 0.02
GENERATOR = np.random.default_rng(7)
RATES = np.exp(
    GENERATOR.normal(0.0, 1.0, NEURONS)
    + 0.8 * np.sin(np.arange(BINS)[:, None] / 4 + GENERATOR.uniform(0, 6, NEURONS))
)
COUNTS = GENERATOR.poisson(RATES, (TRIALS, BINS, NEURONS)).astype(np.uint8)
VELOCITY = np.cumsum(GENERATOR.normal(0, 1, (TRIALS, BINS, 2)), axis=1)
CONDITION = np.arange(TRIALS) % 4
LENGTHS = GENERATOR.integers(9, BINS + 1, TRIALS)
LENGTHS[0] = BINS
SPLIT = np.repeat(["train", "val"], [18, 6])
HELDOUT = np.arange(NEURONS) >= 6
LONG = GENERATOR.poisson(np.tile(RATES, (20, 1))).astype(np.uint8)  # (time, neuron)
FLUORESCENCE = GENERATOR.gamma(2.0, 0.3, (400, NEURONS)).astype(np.float32) - 0.2
TRIAL_STARTS = 10.0 + 2.0 * np.arange(TRIALS)


@dataclass(frozen=True)
class Layout:
    """A layout.

    Attributes:
        write: writes it into a folder; returns the path, or the object.
        parts: the entry of each part, by part.
        activity: what must be loaded, padded with NaN; None: the layout is asked about.
        asks: the word of the one question.
        bin_width: given beside the path, where the file cannot say it.
    """

    write: Callable[[Path], Any]
    parts: Mapping[str, str] = field(default_factory=dict)
    activity: np.ndarray | None = None
    asks: str | None = None
    bin_width: float | None = None


def padded(values: np.ndarray = COUNTS) -> np.ndarray:
    """The counts with NaN after the end of each trial."""
    whole = values.astype(np.float32)
    whole[np.arange(BINS) >= LENGTHS[:, None]] = np.nan
    return whole


def zero_padded() -> np.ndarray:
    return np.nan_to_num(padded()).astype(np.uint8)


def spike_times(counts: np.ndarray = COUNTS) -> list[list[np.ndarray]]:
    """Times of the spikes from the start of the trial, by trial and neuron."""
    jitter = np.random.default_rng(1)
    return [
        [
            np.sort(np.repeat(np.arange(BINS), trial[:, n]) * WIDTH
                    + jitter.uniform(0.001, 0.019, trial[:, n].sum()))
            for n in range(NEURONS)
        ]
        for trial in counts
    ]  # fmt: skip


def triples() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = [
        (time, neuron, trial)
        for trial, units in enumerate(spike_times())
        for neuron, times in enumerate(units)
        for time in times
    ]
    times, neurons, trials = (np.array(column) for column in zip(*rows, strict=True))
    return times, neurons, trials


def npz_plain(folder: Path) -> Path:
    np.savez(folder / "a.npz", spikes=COUNTS, kinematics=VELOCITY, cond=CONDITION, dt=WIDTH)
    return folder / "a.npz"


def npz_transposed(folder: Path) -> Path:
    np.savez(
        folder / "a.npz",
        spike_counts=COUNTS.transpose(2, 0, 1),
        unit_ids=100 + np.arange(NEURONS),
        trial_type=CONDITION,
        bin_size=WIDTH,
    )
    return folder / "a.npz"


def npz_zero_padded(folder: Path) -> Path:
    np.savez_compressed(
        folder / "a.npz", counts=zero_padded(), trial_lengths=LENGTHS, bin_width_s=WIDTH
    )
    return folder / "a.npz"


def npz_triples(folder: Path) -> Path:
    times, neurons, trials = triples()
    np.savez(folder / "a.npz", spike_times=times, neuron_ids=neurons, trial_ids=trials)
    return folder / "a.npz"


def npz_triples_named_otherwise(folder: Path) -> Path:
    times, neurons, trials = triples()
    np.savez(folder / "a.npz", spiketimes=times, spike_clusters=neurons, trials=trials,
             trial_duration=BINS * WIDTH)  # fmt: skip
    return folder / "a.npz"


def h5_nested(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as h:
        h.attrs["bin_width"] = WIDTH
        h["session/neural/spike_counts"] = COUNTS
        h["session/behavior/hand_vel"] = VELOCITY
        h["session/trials/split"] = np.char.encode(SPLIT)
        h["session/trials/target"] = CONDITION
    return folder / "a.h5"


def h5_split_named_otherwise(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as h:
        for word in ("train", "val"):
            h[f"{word}_spikes"] = COUNTS[word == SPLIT]
            h[f"{word}_vel"] = VELOCITY[word == SPLIT]
        h["bin_width"] = WIDTH
    return folder / "a.h5"


def h5_traces(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as h:
        h["dff"] = FLUORESCENCE.T
        h["cell_ids"] = np.arange(NEURONS) + 1
        h["running_speed"] = np.random.default_rng(0).normal(size=400)
        h["fs"] = 30.0
    return folder / "a.h5"


def h5_two_areas(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as h:
        h["area_a"], h["area_b"], h["dt"] = COUNTS[..., :5], COUNTS[..., 5:], WIDTH
    return folder / "a.h5"


def h5_group_per_trial(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as h:
        h.attrs["bin_width"] = WIDTH
        for index, length in enumerate(LENGTHS):
            h[f"trial_{index}/spikes"] = COUNTS[index, :length]
            h[f"trial_{index}/position"] = VELOCITY[index, :length]
    return folder / "a.h5"


def mat5_struct_array(folder: Path) -> Path:
    trials = np.empty((1, TRIALS), dtype=[("data", object), ("condition", object)])
    for index, length in enumerate(LENGTHS):
        trials[0, index] = (COUNTS[index, :length].T, float(CONDITION[index]))
    scipy.io.savemat(folder / "a.mat", {"D": trials, "binWidth": WIDTH})
    return folder / "a.mat"


def mat5_cube(folder: Path) -> Path:
    scipy.io.savemat(
        folder / "a.mat",
        {
            "spikes": COUNTS.transpose(2, 1, 0),
            "targetAngle": CONDITION[None] * 90.0,
            "channels": np.arange(1.0, NEURONS + 1)[:, None],
            "binSize": WIDTH,
        },
        do_compression=True,
    )
    return folder / "a.mat"


def mat5_spike_times(folder: Path) -> Path:
    cells = np.empty((TRIALS, NEURONS), dtype=object)
    for index, units in enumerate(spike_times()):
        for neuron, times in enumerate(units):
            cells[index, neuron] = times[:, None]
    scipy.io.savemat(folder / "a.mat", {"spikeTimes": cells, "stimulus": CONDITION[:, None] + 1.0})
    return folder / "a.mat"


def matlab(h: h5py.Group, name: str, value: Any) -> None:
    """Write as MATLAB 7.3 does: axes reversed, classes as attributes, cells as references."""
    if isinstance(value, dict):
        group = h.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for key, item in value.items():
            matlab(group, key, item)
        return
    if isinstance(value, list):
        refs = h.file.require_group("#refs#")
        places = []
        for item in value:
            key = f"r{len(refs)}"
            matlab(refs, key, item)
            places.append(refs[key].ref)
        h.create_dataset(name, data=np.array(places, dtype=object)[:, None], dtype=h5py.ref_dtype)
        h[name].attrs["MATLAB_class"] = np.bytes_("cell")
        return
    if isinstance(value, str):
        codes = np.array([[ord(letter)] for letter in value], dtype=np.uint16)
        h[name] = codes
        h[name].attrs["MATLAB_class"] = np.bytes_("char")
        return
    array = np.atleast_2d(value)
    kinds = {"bool": "logical", "float64": "double", "float32": "single"}
    h[name] = (array.astype(np.uint8) if array.dtype == bool else array).T
    h[name].attrs["MATLAB_class"] = np.bytes_(kinds.get(array.dtype.name, array.dtype.name))


def mat73_cells(folder: Path) -> Path:
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as h:
        trials = [COUNTS[i, :length].astype(float) for i, length in enumerate(LENGTHS)]
        matlab(h, "data", {"spikes": trials, "hand": [VELOCITY[i, :n] for i, n in
                                                      enumerate(LENGTHS)]})  # fmt: skip
        matlab(h, "subject", "J")
        matlab(h, "dt", WIDTH)
    return folder / "a.mat"


def mat73_cube(folder: Path) -> Path:
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as h:
        matlab(h, "counts", COUNTS)
        matlab(h, "heldout", HELDOUT)
        matlab(h, "velocity", VELOCITY)
        matlab(h, "bin_width", WIDTH)
    return folder / "a.mat"


def nwb(folder: Path) -> Path:
    from pynwb import NWBHDF5IO, NWBFile

    file = NWBFile("a", "b", datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc))
    for neuron in range(NEURONS):
        rows = [trial[neuron] + start for trial, start in
                zip(spike_times(), TRIAL_STARTS, strict=True)]  # fmt: skip
        file.add_unit(spike_times=np.concatenate(rows), id=neuron)
    file.add_trial_column("split", "of the trial")
    for start, split in zip(TRIAL_STARTS, SPLIT, strict=True):
        file.add_trial(start_time=start, stop_time=start + BINS * WIDTH, split=str(split))
    with NWBHDF5IO(folder / "a.nwb", "w") as io:
        io.write(file)
    return folder / "a.nwb"


def npy_long(folder: Path) -> Path:
    np.save(folder / "a.npy", LONG)
    return folder / "a.npy"


def npy_square(folder: Path) -> Path:
    np.save(folder / "a.npy", np.random.default_rng(0).poisson(1.0, (60, 60)))
    return folder / "a.npy"


def npz_sparse(folder: Path) -> Path:
    scipy.sparse.save_npz(folder / "a.npz", scipy.sparse.csr_array(LONG))
    return folder / "a.npz"


def data_frame(_: Path) -> pd.DataFrame:
    names = [f"unit{n}" for n in range(NEURONS)]
    return pd.DataFrame(LONG, columns=names, index=WIDTH * np.arange(len(LONG)))


LAYOUTS = {
    "npz": Layout(
        npz_plain,
        {"activity": "spikes", "behavior": "kinematics", "condition": "cond", "bin_width": "dt"},
        COUNTS,
    ),
    "npz, neurons first": Layout(
        npz_transposed,
        {"activity": "spike_counts", "neuron_ids": "unit_ids", "condition": "trial_type",
         "bin_width": "bin_size"},
        COUNTS,
    ),
    "npz, padded with zeros": Layout(
        npz_zero_padded,
        {"activity": "counts", "lengths": "trial_lengths", "bin_width": "bin_width_s"},
        padded(),
    ),
    "npz, triples": Layout(
        npz_triples,
        {"spike_times": "spike_times", "spike_neurons": "neuron_ids",
         "spike_trials": "trial_ids"},
        COUNTS,
        bin_width=WIDTH,
    ),
    "npz, triples with other names": Layout(
        npz_triples_named_otherwise,
        {"spike_times": "spiketimes", "spike_neurons": "spike_clusters",
         "spike_trials": "trials"},
        COUNTS,
        bin_width=WIDTH,
    ),
    "HDF5, nested": Layout(
        h5_nested,
        {"activity": "session/neural/spike_counts", "behavior": "session/behavior/hand_vel",
         "split": "session/trials/split", "condition": "session/trials/target",
         "bin_width": "bin_width"},
        COUNTS,
    ),
    "HDF5, an entry for each split": Layout(
        h5_split_named_otherwise,
        {"activity": "{split}_spikes", "behavior": "{split}_vel", "bin_width": "bin_width"},
        COUNTS,
    ),
    "HDF5, fluorescence, neurons first": Layout(
        h5_traces,
        {"activity": "dff", "neuron_ids": "cell_ids", "behavior": "running_speed",
         "bin_width": "fs"},
        FLUORESCENCE[None],
    ),
    "HDF5, two areas": Layout(h5_two_areas, asks="area_a"),
    "HDF5, a group for each trial": Layout(
        h5_group_per_trial,
        {"activity": "trial_*/spikes", "behavior": "trial_*/position", "bin_width": "bin_width"},
        padded(),
    ),
    "MATLAB 5, struct array": Layout(
        mat5_struct_array,
        {"activity": "D.data", "condition": "D.condition", "bin_width": "binWidth"},
        padded(),
    ),
    "MATLAB 5, cube, neurons first": Layout(
        mat5_cube,
        {"activity": "spikes", "condition": "targetAngle", "neuron_ids": "channels",
         "bin_width": "binSize"},
        COUNTS,
    ),
    "MATLAB 5, spike times": Layout(
        mat5_spike_times,
        {"activity": "spikeTimes", "condition": "stimulus"},
        COUNTS,
        bin_width=WIDTH,
    ),
    "MATLAB 7.3, cells": Layout(
        mat73_cells,
        {"activity": "data.spikes", "behavior": "data.hand", "bin_width": "dt"},
        padded(),
    ),
    "MATLAB 7.3, cube": Layout(
        mat73_cube,
        {"activity": "counts", "heldout": "heldout", "behavior": "velocity",
         "bin_width": "bin_width"},
        COUNTS,
    ),
    "NWB": Layout(  # trials without an event are taken whole
        nwb,
        {"activity": "units", "trials": "trials", "align_to": None, "split": "split"},
        COUNTS,
        bin_width=WIDTH,
    ),
    "npy, time first": Layout(npy_long, {"activity": ""}, LONG[None], bin_width=WIDTH),
    "npy, square": Layout(npy_square, asks="dims", bin_width=WIDTH),
    "npz, sparse": Layout(npz_sparse, {"activity": ""}, LONG[None], bin_width=WIDTH),
    "DataFrame": Layout(data_frame, {"activity": ""}, LONG[None]),
}  # fmt: skip
