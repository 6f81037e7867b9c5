"""How a model begins: built for its data, and where another has ended, if it names one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqvae.config import check_trusted, from_config
from seqvae.data import NeuralData
from seqvae.data.neurons import check_same_neurons
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.runs.provenance import read_neuron_names, read_provenance, read_spec
from seqvae.storage.files import RunFiles
from seqvae.storage.weights import load_weights
from seqvae.storage.yaml_json import read_yaml
from seqvae.types import DataSpec

ModelFactory = Callable[[DataSpec], Model]


def build_model(factory: ModelFactory, spec: DataSpec) -> Model:
    """Build a model.

    Raises:
        InputError: if a layer refuses its size, or another argument.
    """
    try:
        return factory(spec)
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise InputError(f"model: {error}") from error


def begin(
    factory: ModelFactory, data: NeuralData, *, seed: int = 0, is_resumed: bool = False
) -> Model:
    """Build a model for data, let it take their training means, and begin at its ``start``.

    Args:
        factory: of the model.
        data: the data to learn from, loaded.
        seed: of the noise in learning.
        is_resumed: whether a checkpoint has all that it goes on from; ``start`` is not read then.

    Raises:
        InputError: if model and data, or model and start, do not go together.
    """
    model = build_model(factory, data.spec)
    model.seed = seed
    model.initialize(data)
    if model.start is not None and not is_resumed:
        fitted = _fitted(Path(model.start), model.starts_from, data)
        take_over(model, fitted, key="start")
    return model


def take_over(model: Model, other: Model, *, key: str) -> list[str]:
    """Let a model begin from another, and return what it did not take over.

    Args:
        model: the model, initialised.
        other: the fitted one.
        key: the argument that asks for it, for the error.

    Raises:
        InputError: if the two do not go together.
    """
    try:
        return model.begin_from(other)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error


def _fitted(folder: Path, kind: type[Model], data: NeuralData) -> Model:
    """Read the fitted model of a run folder, for these data.

    Raises:
        InputError: if it is no run of such a model, or one of other sizes or neurons.
    """
    spec = data.spec
    files = RunFiles(folder)
    try:
        config = read_yaml(files.config, str(files.config))
    except (OSError, InputError) as error:
        raise InputError(
            f"start: {str(folder)!r} is not a run; give the run_dir of a fitted {kind.__name__}"
        ) from error
    tree = config.get("model") if isinstance(config, dict) else None
    check_trusted(tree)
    asked: Any = Callable[[DataSpec], kind]
    factory: ModelFactory = from_config(tree, asked, key="start: model")
    if files.provenance.exists():
        former = read_provenance(files.provenance)
        there, names = read_spec(former, "start: spec"), data.recording.neuron_names
        known = read_neuron_names(former, there.num_neurons)
        try:
            check_same_neurons(spec, names, there, known, reads_heldin=False)
        except InputError as error:
            raise InputError(f"start: {error}") from error
    model = factory(spec)
    load_weights(files.weights, model)
    return model
