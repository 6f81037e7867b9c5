"""Files that are damaged or forged in many ways, each a function of a seed; and what reads them."""

from __future__ import annotations

import copy
import io
import json
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from seqvae.data import NeuralData, Recording
from seqvae.data.sources import from_path, write_hdf5, write_npz
from seqvae.errors import InputError

INTEGERS = (0, 1, 2, 127, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
Generator = np.random.Generator


# --- whole files ---------------------------------------------------------------------------------


def recording() -> Recording:
    """A small recording with every field."""
    generator = np.random.default_rng(0)
    activity = generator.poisson(1.0, (12, 6, 5)).astype(float)
    activity[3, 4:] = np.nan
    return Recording(
        activity,
        0.02,
        inputs=generator.standard_normal((12, 6, 2)),
        behavior=generator.standard_normal((12, 6, 2)),
        condition=np.array([f"réach {i % 3}" for i in range(12)]),
        rates=generator.uniform(1, 9, (12, 6, 5)),
        neuron_ids=np.array(list("abcde")),
        split=np.array(["train"] * 8 + ["val"] * 2 + ["test"] * 2),
        heldin=np.array([0, 1, 3]),
        num_encoded_bins=5,
    )


def split_layout() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    found: dict[str, np.ndarray] = {"bin_width_s": np.array(0.01), "conversion_factor": np.array(2)}
    for split, count in (("train", 8), ("valid", 4)):
        whole = generator.poisson(1.0, (count, 6, 5)).astype(np.uint8)
        found[f"{split}_recon_data"] = whole
        found[f"{split}_encod_data"] = whole[:, :5, :4]
        found[f"{split}_condition"] = generator.integers(0, 3, count)
        found[f"{split}_truth"] = generator.uniform(0, 2, whole.shape)
        found[f"{split}_behavior"] = generator.standard_normal((count, 6, 2))
    return found


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name as they are; what a format cannot hold is left out."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return
    with h5py.File(path, "w") as h:
        for name, value in arrays.items():
            array = np.asarray(value)
            with suppress(TypeError, ValueError, OSError, RuntimeError):
                if array.ndim == 0:
                    h.attrs[name] = value
                else:
                    h.create_dataset(name, data=array, **_layout(array))


def _layout(array: np.ndarray) -> dict[str, Any]:
    """Lay out arrays in different ways, by their size, so that many parts of HDF5 are met."""
    if array.size == 0 or array.dtype.kind in "OSU":
        return {}
    ways: list[dict[str, Any]] = [
        {},
        {"compression": "gzip", "shuffle": True},
        {"chunks": True, "fletcher32": True},
        {"compression": "lzf"},
    ]
    return ways[array.size % len(ways)]


def write_corpus(folder: Path, configs: Path) -> dict[str, list[Path]]:
    """Write whole files of each kind, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_hdf5(recording(), folder / "flat.h5")
    write_npz(recording(), folder / "flat.npz")
    for suffix in ("h5", "npz"):
        write_arrays(folder / f"split.{suffix}", split_layout())
    texts = sorted(configs.glob("*.yaml"))
    return {
        "h5": [folder / "flat.h5", folder / "split.h5"],
        "npz": [folder / "flat.npz", folder / "split.npz"],
        "yaml": [
            path
            for path in texts
            if not any(word in path.read_text() for word in ("models:", "project:"))
        ],
    }


# --- damage to bytes -----------------------------------------------------------------------------


def _place(content: bytearray, generator: Generator) -> int:
    """A place in the file; half of them in its first kilobyte, where headers lie."""
    end = len(content) if generator.random() < 0.5 else min(1024, len(content))
    return int(generator.integers(0, max(end, 1)))


def flip_bits(content: bytearray, generator: Generator) -> None:
    for _ in range(int(generator.integers(1, 9))):
        content[_place(content, generator)] ^= 1 << int(generator.integers(8))


def overwrite(content: bytearray, generator: Generator) -> None:
    start = _place(content, generator)
    size = int(generator.integers(1, 64))
    content[start : start + size] = generator.bytes(len(content[start : start + size]))


def truncate(content: bytearray, generator: Generator) -> None:
    del content[int(generator.integers(0, len(content))) :]


def cut_out(content: bytearray, generator: Generator) -> None:
    start = _place(content, generator)
    del content[start : start + int(generator.integers(1, 512))]


def insert(content: bytearray, generator: Generator) -> None:
    start = _place(content, generator)
    content[start:start] = generator.bytes(int(generator.integers(1, 256)))


def repeat(content: bytearray, generator: Generator) -> None:
    start, to = _place(content, generator), _place(content, generator)
    size = int(generator.integers(1, 512))
    content[to : to + size] = content[start : start + size]


def swap(content: bytearray, generator: Generator) -> None:
    one, other = sorted((_place(content, generator), _place(content, generator)))
    size = min(int(generator.integers(1, 512)), other - one)
    block = bytes(content[one : one + size])
    content[one : one + size] = content[other : other + size]
    content[other : other + size] = block


def zero(content: bytearray, generator: Generator) -> None:
    start = _place(content, generator)
    size = len(content[start : start + int(generator.integers(1, 512))])
    content[start : start + size] = bytes(size)


def forge_integer(content: bytearray, generator: Generator) -> None:
    """Put an integer of a treacherous size where there may be one."""
    value = INTEGERS[int(generator.integers(len(INTEGERS)))]
    width = int(generator.choice([1, 2, 4, 8]))
    packed = struct.pack("<Q", value)[:width]
    start = _place(content, generator) // width * width
    content[start : start + width] = packed


BYTES: tuple[Callable[[bytearray, Generator], None], ...] = (
    flip_bits, overwrite, truncate, cut_out, insert, repeat, swap, zero, forge_integer,
)  # fmt: skip


# --- forged arrays -------------------------------------------------------------------------------


def forge_arrays(arrays: dict[str, Any], generator: Generator) -> None:
    """Change one entry as somebody might who knows the layout."""
    names = list(arrays)
    name = names[int(generator.integers(len(names)))]
    value = np.asarray(arrays[name])
    number = float(generator.choice([np.nan, np.inf, -np.inf, -1, 0.5, 0, 1e30, 2**24, 1e-300]))
    match int(generator.integers(16)):
        case 0:
            del arrays[name]
        case 1:
            dtypes = ["i1", "u8", "f2", "f8", "c16", "S4", "?", ">f4", ">i2", "U5"]
            with np.errstate(all="ignore"), warnings.catch_warnings(), suppress(ValueError):
                warnings.simplefilter("ignore")
                arrays[name] = value.astype(dtypes[int(generator.integers(len(dtypes)))])
        case 2:
            arrays[name] = value.reshape(-1)
        case 3:
            arrays[name] = value[..., None]
        case 4:
            arrays[name] = value[:0] if value.ndim else np.array([])
        case 5:
            arrays[name] = value[1:] if value.ndim else np.array([1.0, 2.0])
        case 6:
            arrays[name] = np.swapaxes(value, 0, -1) if value.ndim else np.array([[3]])
        case 7 if value.dtype.kind in "iuf" and value.size:
            changed = value.astype(float).reshape(-1)
            changed[int(generator.integers(changed.size))] = number
            arrays[name] = changed.reshape(value.shape)
        case 8:
            arrays[name] = np.array(number)
        case 9:
            arrays[name] = np.full_like(value, 0)
        case 10:
            arrays[name] = np.array(["train", "\x1b[31mred", "../../x"])
        case 11:
            other = names[int(generator.integers(len(names)))]
            arrays[name], arrays[other] = arrays[other], arrays[name]
        case 12:
            arrays[name[::-1]] = arrays.pop(name)
        case 13:
            arrays[name] = np.array(b"\xff\xfe")
        case 14:
            arrays[name] = np.concatenate([value, value]) if value.ndim else value
        case _:
            arrays[name] = np.array(generator.integers(-(2**62), 2**62))


def read_arrays(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    with h5py.File(path, "r") as h:
        return dict(h.attrs) | {name: item[()] for name, item in h.items()}


# --- forged configs ------------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 1e308, -0.0, float("nan"), float("inf"), 2**70, "", "x", "~", "../x",
    [], [1, "a", None], {}, {"class_path": "os.system"}, {"class_path": 3}, [[[]]], "seqvae..os",
    {"class_path": "seqvae.models.VAE", "init_args": None}, {"init_args": {"a": 1}}, {1: {2: 3}},
    "seqvae.models.Model", "torch.optim.os", "pytorch_lightning.Trainer", "Poisson", "\x1b[2J",
)  # fmt: skip


def forge_tree(tree: Any, generator: Generator) -> Any:
    """Change one node of a config."""
    tree = copy.deepcopy(tree)
    places: list[tuple[Any, Any]] = []
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], dict | list) and node[key]:
                nodes.append(node[key])
    node, key = places[int(generator.integers(len(places)))]
    value = VALUES[int(generator.integers(len(VALUES)))]
    other, name = places[int(generator.integers(len(places)))]
    match int(generator.integers(6)):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[f"{key}_"[:: int(generator.choice([-1, 1]))]] = node.pop(key)
        case 2:
            node[key] = copy.deepcopy(other[name])
        case 3:
            node[key] = [node[key]]
        case _:
            node[key] = copy.deepcopy(value)
    return tree


# --- one mutation --------------------------------------------------------------------------------


def mutate(source: Path, target: Path, seed: int) -> str:
    """Write a changed copy of a file, and return how it was changed; the seed says all."""
    generator = np.random.default_rng(seed)
    if generator.random() < 0.5:
        content = bytearray(source.read_bytes())
        words = []
        for _ in range(int(generator.integers(1, 4))):
            if content:
                change = BYTES[int(generator.integers(len(BYTES)))]
                change(content, generator)
                words.append(change.__name__)
        target.write_bytes(content)
        return " ".join(words)
    if source.suffix == ".pt":
        return mutate(source, target, seed + 2**40)
    if source.suffix in (".h5", ".npz"):
        arrays = read_arrays(source)
        for _ in range(int(generator.integers(1, 4))):
            if arrays:
                forge_arrays(arrays, generator)
        write_arrays(target, arrays)
        return "forge_arrays"
    load, dump = (json.loads, json.dumps) if source.suffix == ".json" else (yaml.safe_load, _dump)
    tree = load(source.read_text(encoding="utf-8"))
    for _ in range(int(generator.integers(1, 3))):
        if tree:
            tree = forge_tree(tree, generator)
    target.write_text(dump(tree), encoding="utf-8")
    return "forge_tree"


def _dump(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False)


# --- what reads them -----------------------------------------------------------------------------


def read(path: Path) -> str:
    """Read a file as a user would, and return "loaded" or the sentence of the refusal.

    Raises:
        AssertionError: if what is loaded would be refused, or a refusal is no sentence.
    """
    if path.suffix == ".yaml":
        return _read_config(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = NeuralData(from_path(path))
            data.setup()
        except InputError as error:
            sentence = str(error)
            assert sentence, "an empty refusal"
            assert "\n" not in sentence, sentence
            assert len(sentence) < 2000, len(sentence)
            return sentence
        check_valid(data.recording)
    return "loaded"


def check_valid(found: Recording) -> None:
    """What was loaded passes the checks again, unchanged."""
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = Recording(**fields)
    assert again.checksum == found.checksum
    assert np.isfinite(found.activity).any(axis=(1, 2)).all()
    assert not np.isinf(found.activity).any()


def _read_config(path: Path) -> str:
    from seqvae.console.main import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["fit", "--config", str(path), "--print_config"])
    lines = [line for line in err.getvalue().splitlines() if "warning: " not in line]
    assert code in (0, 2), err.getvalue()
    assert "Traceback" not in err.getvalue(), err.getvalue()
    assert len(lines) == (1 if code == 2 else 0), lines
    assert all(character.isprintable() for line in lines for character in line), lines
    return lines[0] if code == 2 else "loaded"


def copy_run(run: Path, folder: Path) -> Path:
    """Copy a run, so that one of its files can be changed."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(run, folder))


def read_run(folder: Path) -> str:
    """Infer with a run, and return "loaded" or the sentence of the refusal."""
    from seqvae import infer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            infer(str(folder), num_samples=1)
        except InputError as error:
            return str(error)
    return "loaded"


def read_bytes(path: Path) -> Any:
    """What a file holds; the times in an archive do not count."""
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            return [(part.filename, archive.read(part)) for part in archive.infolist()]
    except Exception:
        return path.read_bytes()
