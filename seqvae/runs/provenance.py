"""Where a run came from: enough to know it, and, with its data, to repeat it."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from seqvae.config import from_config, to_config
from seqvae.config.class_paths import check_trusted
from seqvae.data import NeuralData
from seqvae.data.validation import as_bin_width, check_neurons
from seqvae.errors import InputError
from seqvae.storage.yaml_json import read_json
from seqvae.types import DataSpec

PACKAGES = ("seqvae", "torch", "pytorch_lightning", "numpy", "scipy", "scikit-learn", "xarray",
            "h5py")  # fmt: skip
SECTIONS = ("seed", "data", "model", "learner")
_LARGEST = 10_000_000  # trials, neurons, bins: sizes that data may have
_OUTWARD = ("default_root_dir", "logger", "callbacks", "plugins", "profiler", "model_registry")
_READERS = ("xarray", "h5py")  # of which no number depends
_LONGER = ("max_epochs", "max_iterations", "progress")


def provenance(config: Mapping[str, Any], data: NeuralData) -> dict[str, Any]:
    """Gather what is needed to know, and to repeat, where a run came from.

    Args:
        config: the complete config tree.
        data: the data, loaded.
    """
    return {
        "created": _now(),
        "command": sys.argv,
        "folder": os.getcwd(),
        "seed": config["seed"],
        **_machine(),
        "data": {
            "checksum": data.recording.checksum,
            "spec": asdict(data.spec),
            "num_trials": {
                word: int((data.split == word).sum()) for word in ("train", "val", "test")
            },
            "null_rates": [round(float(mean), 9) for mean in data.train_mean],
        },
        "config": {section: config[section] for section in SECTIONS},
        "resumed": [],
    }


def resumed(former: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance of a run that goes on, with what may have changed: the learner."""
    old = former.get("config", config)["learner"]
    note = {
        "created": _now(),
        "command": sys.argv,
        **_machine(),
        "changed": differences(old, config["learner"], "learner"),
    }
    told = [*former.get("resumed", []), note]
    return {**former, "config": {name: config[name] for name in SECTIONS}, "resumed": told}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _machine() -> dict[str, Any]:
    """What the last digits of a fit depend on, beside its configuration and its data."""
    accelerated = torch.cuda.is_available()
    return {
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
        "device": torch.cuda.get_device_name() if accelerated else platform.processor() or "cpu",
        "num_devices": torch.cuda.device_count(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "platform": platform.platform(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def differences(old: Any, new: Any, key: str) -> list[str]:
    """Tell the leaves in which two trees differ, each in a few words."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        pairs = [(old.get(name), new.get(name), f"{key}.{name}") for name in names]
        return [words for pair in pairs for words in differences(*pair)]
    return [] if old == new else [f"{key} was {old!r} and is now {new!r}"]


def read_provenance(path: Path) -> dict[str, Any]:
    """Read a ``provenance.json``.

    Raises:
        InputError: if it is not there, or not what a fit writes.
    """
    try:
        content: dict[str, Any] = read_json(path, str(path))
        data, versions = content["data"], content["versions"]
        words = [data["checksum"], versions["seqvae"], versions["torch"], *data["spec"]]
        counts = list(data["num_trials"].values())
        is_whole = all(isinstance(word, str) for word in words) and all(
            isinstance(count, int) and 0 <= count <= _LARGEST for count in counts
        )
        if not is_whole:
            raise TypeError
    except FileNotFoundError as error:
        raise InputError(f"{path.parent} is not a run: it has no provenance.json") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged; the run cannot be read") from error
    return content


def read_spec(content: Mapping[str, Any], name: str) -> DataSpec:
    """Read the facts of the data that a model was built for.

    Raises:
        InputError: for facts that no data have.
    """
    spec: DataSpec = from_config(content["data"]["spec"], DataSpec, key=name)
    for field, size, least, most in (
        ("num_neurons", spec.num_neurons, 1, _LARGEST),
        ("num_inputs", spec.num_inputs, 0, _LARGEST),
        ("num_time_bins", spec.num_time_bins, 1, _LARGEST),
        ("num_encoded_bins", spec.num_encoded_bins, 1, spec.num_time_bins),
    ):
        if not least <= size <= most:
            raise InputError(f"{name}.{field} must be from {least} to {most}, got {size}")
    check_neurons(f"{name}.heldin", list(spec.heldin), spec.num_neurons)
    as_bin_width(spec.bin_width, spec.num_time_bins)
    return spec


@dataclass(frozen=True)
class Recipe:
    """What a provenance tells of a fit, so that it can be repeated.

    Attributes:
        path: the ``provenance.json``.
        content: what stands in it.
        trust: whether its config may name classes from anywhere.
    """

    path: Path
    content: Mapping[str, Any]
    trust: bool = False

    @classmethod
    def read(cls, where: str | os.PathLike[str], *, trust: bool = False) -> Recipe:
        """Read the provenance of a run: a run folder, a folder with a provenance, or the file.

        Nothing is built. A learner may send what it learns anywhere (loggers, plugins, callbacks),
        so of a run that is not trusted it may be one of ours, with a plain Trainer.

        Raises:
            InputError: if it cannot be read, or its config names what it may not.
        """
        path = Path(where)
        path = path / "provenance.json" if path.is_dir() else path
        if not path.exists():
            raise InputError(f"from_run: {str(path)!r} does not exist; give a run folder, or the "
                             "provenance.json of one")  # fmt: skip
        recipe = cls(path, read_provenance(path), trust)
        config = recipe.config
        if not trust:
            check_trusted(config)
            _check_harmless(config["learner"], path)
        return recipe

    @property
    def config(self) -> dict[str, Any]:
        """The sections seed, data, model and learner.

        Raises:
            InputError: if they are not there.
        """
        config = self.content.get("config")
        if not isinstance(config, dict) or any(name not in config for name in SECTIONS):
            raise InputError(
                f"from_run: {self.path} tells no config; give the run's config.yaml as --config"
            )
        seed, data = config["seed"], config["data"]
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise InputError(f"from_run: {self.path}: seed must be int, got {seed!r}")
        if not isinstance(data, dict) or not isinstance(data.get("init_args"), dict):
            raise InputError(f"from_run: {self.path}: data must hold class_path and init_args")
        return config

    def build(self, section: str, annotation: Any) -> Any:
        """Build a section as its annotation asks for it.

        Raises:
            InputError: for a config that does not fit, or arrays that were in memory only.
        """
        tree = self.config[section]
        if section == "data" and tree["init_args"].get("source") is None:
            raise InputError(
                f"data: {self.path.parent} was fitted to arrays in memory; give the data again"
            )
        return from_config(tree, annotation, key=section, trust=self.trust)

    def load(self, data: NeuralData) -> None:
        """Load data, and refuse those that are named as they were then, but have changed.

        Raises:
            InputError: if the source cannot be read, or its checksum changed.
        """
        former, own = self.config["data"]["init_args"].get("source"), to_config(data.source)
        try:
            data.setup()
        except InputError as error:
            place = f"; {self.path.parent} was fitted in {self.content.get('folder')!r}"
            raise InputError(f"{error}{place if own == former else ''}") from error
        if own != former or data.recording.checksum == self.content["data"]["checksum"]:
            return
        if own is not None:
            raise InputError(
                f"data: the source is not what {self.path.parent} was fitted to (its checksum "
                "changed); to fit what it is now, give a config instead of from_run"
            )
        warnings.warn(
            f"data: not the arrays that {self.path.parent} was fitted to, so this is no repetition",
            stacklevel=3,
        )

    def apart(self) -> str | None:
        """Tell in one sentence what may move the last digits of a repetition, or return None."""
        now, then = _machine(), dict(self.content)
        facts = ("device", "num_devices", "threads", "cpu", "matmul_precision", "deterministic")
        words = [
            words
            for package, number in now["versions"].items()
            if package in PACKAGES and package not in _READERS
            for words in differences(then["versions"].get(package), number, package)
        ]
        for fact in facts:
            words += differences(then.get(fact), now[fact], fact)
        for note in then.get("resumed", []):
            words += [
                f"{change}, when it was resumed"
                for change in note["changed"]
                if change.split(" ")[0].rpartition(".")[2] not in _LONGER
            ]
        if not words:
            return None
        return (
            f"{self.path.parent} was fitted otherwise, so that numbers may differ, if only in the "
            f"last digits: {'; '.join(words)}"
        )


def _check_harmless(tree: Any, path: Path) -> None:
    """Refuse a learner that could write or send what it learns anywhere.

    Raises:
        InputError: naming the class, or the argument.
    """
    if isinstance(tree, list):
        for item in tree:
            _check_harmless(item, path)
    if not isinstance(tree, Mapping):
        return
    for value in tree.values():
        _check_harmless(value, path)
    named = tree.get("class_path", "seqvae.")
    is_harmless = isinstance(named, str) and (
        named.startswith("seqvae.") or named == "pytorch_lightning.Trainer"
    )
    found = f"names {named!r}" if not is_harmless else ""
    for name in _OUTWARD:
        if not (tree.get(name) in (None, []) or isinstance(tree[name], bool)):
            found = f"sets {name}"
    if found:
        raise InputError(
            f"from_run: the learner of {path} {found}, which may write or send what it learns "
            "anywhere; if you trust where it comes from, allow it with trust=True (--trust)"
        )
