"""Mutated NWB files: a recording or one sentence, and no more memory than a small file needs."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from nwb_files import nwb_file, starts, write_nwb
from seqvae.data.sources import NWB
from seqvae.data.survey import outlook
from seqvae.errors import InputError

_NUMBERS = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e9, -1e9, 1e300, 2.0**63]
_MOST = 400e6  # bytes


def datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return [name for name in names if not name.startswith("specifications")]


def bytes_changed(path: Path, generator: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    for place in generator.integers(0, len(content), generator.integers(1, 40)):
        content[place] = generator.integers(256)
    path.write_bytes(content)


def cut_off(path: Path, generator: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: generator.integers(1, len(content))])


def number_changed(path: Path, generator: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        for _ in range(generator.integers(1, 4)):
            data = file[generator.choice(datasets(file))]
            if data.dtype.kind in "iuf" and data.size:
                place = tuple(generator.integers(0, size) for size in data.shape)
                value = generator.choice(_NUMBERS)
                if data.dtype.kind in "iu":
                    value = int(np.clip(np.nan_to_num(value), 0, np.iinfo(data.dtype).max))
                data[place] = value


def entry_removed(path: Path, generator: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        name = generator.choice(datasets(file))
        del file[name if generator.random() < 0.7 else name.rpartition("/")[0] or name]


def entry_replaced(path: Path, generator: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        name = generator.choice(datasets(file))
        attributes = dict(file[name].attrs)
        del file[name]
        kinds: list[object] = ["text", 3, np.zeros((2, 3, 4)), np.zeros(0), np.arange(7) * 1e8]
        kinds += [np.array([b"a", b"b"]), np.full(900, np.nan), h5py.Empty("f8")]
        data = file.create_dataset(name, data=kinds[generator.integers(len(kinds))])
        for key, value in attributes.items():
            data.attrs[key] = value


def size_claimed(path: Path, generator: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        name = generator.choice(datasets(file))
        attributes, dtype = dict(file[name].attrs), file[name].dtype
        shape = (int(10.0 ** generator.uniform(6, 13)),)
        del file[name]
        data = file.create_dataset(name, shape=shape, chunks=(1000,), dtype=dtype)
        for key, value in attributes.items():
            data.attrs[key] = value


def link_turned(path: Path, generator: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        name = generator.choice(datasets(file))
        del file[name]
        target = generator.choice(["/", "/units", "/nowhere", f"/{name}"])
        file[name] = (
            h5py.SoftLink(target) if generator.random() < 0.7 else h5py.ExternalLink("a", "/")
        )


def attribute_changed(path: Path, generator: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        item = file[generator.choice(["/", "units", "intervals/trials", *datasets(file)])]
        if len(item.attrs):
            name = generator.choice(list(item.attrs))
            values: list[object] = ["", 7, np.zeros(3), "TimeSeries", "../../x", b"\xff\xfe"]
            item.attrs[name] = values[generator.integers(len(values))]


MUTATIONS: list[Callable[[Path, np.random.Generator], None]] = [
    bytes_changed,
    cut_off,
    number_changed,
    entry_removed,
    entry_replaced,
    size_claimed,
    link_turned,
    attribute_changed,
]
SETTINGS: list[dict] = [
    {},
    {"align_to": None},
    {"trials": None},
    {"behavior": ["hand_vel"], "condition": "move_onset_time"},
]


def template(folder: Path) -> Path:
    spans = np.stack([starts(), starts() + 2.5], axis=1)
    units = {"heldout": [False] * 4 + [True]}
    return write_nwb(folder / "whole.nwb", nwb_file(units=units, intervals=spans))


def outcome(whole: Path, path: Path, seed: int) -> str:
    """Read one mutated file, and tell whether it was refused; any other end is a failure."""
    generator = np.random.default_rng(seed)
    path.write_bytes(whole.read_bytes())
    try:
        MUTATIONS[seed % len(MUTATIONS)](path, generator)
    except (KeyError, OSError, OverflowError, RuntimeError, TypeError, ValueError):
        return "not mutated"
    source = NWB(path, 0.05, window=(-0.25, 0.45), **SETTINGS[generator.integers(len(SETTINGS))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ends = [told(source.load), told(lambda: outlook(NWB(path)))]
    return max(ends, key=["read", "refused", "told at length"].index)


def told(work: Callable[[], object]) -> str:
    """Do it, and tell whether it was refused."""
    try:
        work()
    except InputError as refusal:
        return "told at length" if "\n" in str(refusal) else "refused"
    return "read"


@pytest.mark.parametrize("kind", range(len(MUTATIONS)), ids=[f.__name__ for f in MUTATIONS])
def test_mutated_files_are_read_or_refused_in_one_sentence(kind, tmp_path):
    whole = template(tmp_path)
    tracemalloc.start()
    try:
        ends = [
            outcome(whole, tmp_path / "a.nwb", kind + len(MUTATIONS) * turn) for turn in range(3)
        ]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert set(ends) <= {"read", "refused", "not mutated"}
    assert peak < _MOST
