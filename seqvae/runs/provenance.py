"""Where a run came from: what its ``provenance.json`` tells, written and read."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped

from seqvae.config import from_config, to_config
from seqvae.data import NeuralData
from seqvae.data.validation import as_bin_width, as_labels, check_neurons
from seqvae.errors import InputError
from seqvae.storage.yaml_json import read_json
from seqvae.types import DataSpec, Moments

PACKAGES = ("seqvae", "torch", "pytorch_lightning", "numpy", "scipy", "scikit-learn", "xarray",
            "h5py")  # fmt: skip
SECTIONS = ("seed", "data", "model", "learner")
_LARGEST = 10_000_000  # trials, neurons, bins: sizes that data may have


def provenance(
    config: Mapping[str, Any],
    data: NeuralData,
    *,
    moments: Moments,
    init_from: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Gather what is needed to know, and to repeat, where a run came from.

    Args:
        config: the complete config tree.
        data: the data, loaded.
        moments: of each neuron in the trials that are learned from.
        init_from: folder and hash of the run whose weights it begins with.
    """
    names = data.recording.neuron_names
    return {
        **circumstances(config),
        "data": {
            "checksum": data.recording.checksum,
            "spec": asdict(data.spec),
            "num_trials": data.num_trials,
            **_moments(moments),
            "neuron_ids": None if names is None else [*map(_in_json, names.tolist())],
            **({"transforms": to_config(list(data.settled))} if data.settled else {}),
        },
        "init_from": init_from,
        "resumed": [],
    }


def circumstances(config: Mapping[str, Any]) -> dict[str, Any]:
    """Tell when, where, by which command and with which config a run came about."""
    return {
        "created": _now(),
        "command": sys.argv,
        "folder": os.getcwd(),
        "seed": config["seed"],
        **machine(),
        "config": {section: config[section] for section in SECTIONS},
    }


def _moments(moments: Moments) -> dict[str, Any]:
    return {
        "null_rates": [round(float(mean), 9) for mean in moments.mean],
        "train_moments": {name: values.tolist() for name, values in moments._asdict().items()},
    }


def _in_json(name: str | int | float) -> str | int | float:
    return str(name) if isinstance(name, float) and not math.isfinite(name) else name


def resumed(
    former: Mapping[str, Any], config: Mapping[str, Any], *, moments: Moments
) -> dict[str, Any]:
    """Return the provenance of a run that goes on, with what has changed in model and learner."""
    old = former.get("config", config)
    note = {
        "created": _now(),
        "command": sys.argv,
        **machine(),
        "changed": [
            words
            for section in ("model", "learner")
            for words in differences(old[section], config[section], section)
        ],
    }
    return {
        **former,
        "data": {**former["data"], **_moments(moments)},
        "config": {name: config[name] for name in SECTIONS},
        "resumed": [*former.get("resumed", []), note],
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def machine() -> dict[str, Any]:
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


@cache
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
        if (origin := content.get("init_from")) is not None:
            words += [origin["run"], origin["hash"]]
        for member in content.get("members", {}).values():
            words += [member["run"], member["hash"], member["weights"]]
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


def read_neuron_names(
    content: Mapping[str, Any], num_neurons: int
) -> Shaped[np.ndarray, " neuron"] | None:
    """Read the names of the neurons; None: they have none, or an earlier version wrote none.

    Raises:
        InputError: for anything else than a name for each.
    """
    names = content["data"].get("neuron_ids")
    if names is None:
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str | int | float) for name in names)
    return as_labels("provenance.json: neuron_ids", names if is_list else [], num_neurons)


def read_moments(content: Mapping[str, Any], num_neurons: int) -> Moments | None:
    """Read the training moments of each neuron; None: an earlier version wrote none.

    Raises:
        InputError: for anything else than numbers for each.
    """
    moments = content["data"].get("train_moments")
    if moments is None:
        return None
    try:
        parts = [torch.tensor(moments[name], dtype=torch.float32) for name in Moments._fields]
    except (TypeError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise InputError("provenance.json: train_moments are damaged") from error
    if any(part.shape != (num_neurons,) or not part.isfinite().all() for part in parts):
        raise InputError(f"provenance.json: train_moments are not of {num_neurons} neurons")
    return Moments(*parts)
