"""A run: the folder in which one fitted model lives."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from seqvae.config import check_trusted, from_config
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.runs.provenance import differences, provenance, read_provenance, read_spec, resumed
from seqvae.storage.files import RunFiles, clear, is_empty, write_text
from seqvae.storage.weights import check_weights, read_weights
from seqvae.storage.yaml_json import read_yaml
from seqvae.types import DataSpec

ModelFactory = Callable[[DataSpec], Model]


class Run:
    """A fitted model in a folder: ``config.yaml``, ``weights.pt``, ``history.csv`` and so on.

    Nothing that lies in the folder is executed: weights are read without pickle, and the config
    may name classes of seqvae, torch.optim and pytorch_lightning only, unless ``trust`` is given.

    Args:
        folder: the run folder.

    Raises:
        InputError: if the folder is not a run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.files = RunFiles(Path(folder))
        if not self.files.folder.is_dir():
            raise InputError(f"run {str(folder)!r} does not exist; give the run_dir of a fit")
        self.config: dict[str, Any] = _read_config(self.files)
        self.provenance: dict[str, Any] = read_provenance(self.files.provenance)
        self._model: Model | None = None
        self._data: NeuralData | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.files.folder)!r})"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.files.folder

    @property
    def seed(self) -> int:
        """The seed of the fit."""
        seed: int = self.config["seed"]
        return seed

    @property
    def spec(self) -> DataSpec:
        """The facts of the data that the model was built for."""
        return read_spec(self.provenance, f"{self.files.provenance}: spec")

    @property
    def hash(self) -> str:
        """Twelve hex digits of config, data and version: the same for runs that should be equal."""
        text = json.dumps([self.config, self.provenance["data"]["checksum"],
                           self.provenance["versions"]["seqvae"]], sort_keys=True)  # fmt: skip
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def remember(self, model: Model, data: NeuralData) -> Run:
        """Keep model and data of a fit in memory, so that they need not be read again."""
        self._model, self._data = model, data
        return self

    def model(self, *, trust: bool = False) -> Model:
        """Return the model with its best weights, ready for inference.

        Args:
            trust: allow the config to name classes from anywhere; they will be imported.

        Raises:
            InputError: if weights or config cannot be read, or name what they may not.
        """
        if self._model is None:
            factory, spec = self._build("model", ModelFactory, trust), self.spec
            num_trials = sum(self.provenance["data"]["num_trials"].values())

            def built() -> Model:
                model = build_model(factory, spec)
                model.make_room(num_trials, spec.num_encoded_bins)
                return model

            weights = read_weights(self.files.weights)
            now = read_provenance(self.files.provenance)
            if now.get("created") != self.provenance.get("created"):
                raise InputError(f"{self.folder} was overwritten just now; give the command again")
            if not trust:  # a config may claim any size; weights are no larger than their file
                with torch.device("meta"):
                    check_weights(self.files.weights, weights, built())
            model = built()
            check_weights(self.files.weights, weights, model)
            model.load_state_dict(weights)
            model.seed = self.seed
            self._model = model
        return self._model.eval()

    def data(self, *, trust: bool = False) -> NeuralData:
        """Return the data that the run was trained on.

        Raises:
            InputError: if they are gone, changed, or were in memory only.
        """
        if self._data is None:
            if self.config["data"]["init_args"].get("source") is None:
                raise InputError(
                    f"data: {self.folder} was trained on arrays in memory; give the data again"
                )
            data = self._build("data", NeuralData, trust)
            data.setup()
            if data.recording.checksum != self.provenance["data"]["checksum"]:
                raise InputError(
                    f"data: the source is not what {self.folder} was trained on (its checksum "
                    "changed); give the data you mean explicitly, e.g. --data.source.path"
                )
            self._data = data
        return self._data

    def _build(self, section: str, annotation: Any, trust: bool) -> Any:
        tree = self.config[section]
        if not trust:
            check_trusted(tree)
        return from_config(tree, annotation, key=section, trust=trust)


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


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a run folder that would lose something, before any work is done.

    Raises:
        InputError: naming the folder and what may be done.
    """
    files = RunFiles(folder)
    if resume and overwrite:
        raise InputError("resume and overwrite exclude each other; give one of them")
    if resume and files.figures.is_symlink():
        raise InputError(f"run_dir: {str(files.figures)!r} leads out of the run; remove that link")
    # A provenance alone is of a fit that was killed before it began.
    if is_empty(folder, apart_from=(files.provenance.name,)):
        if resume:
            raise InputError(f"run_dir {str(folder)!r} holds no run to resume; leave resume out")
        return
    try:
        _read_config(files)
        read_provenance(files.provenance)
    except InputError as error:
        raise InputError(
            f"run_dir {str(folder)!r} is not empty and not a run; give a new folder"
        ) from error
    if not (resume or overwrite):
        raise InputError(
            f"run_dir {str(folder)!r} already holds a run; give a new folder, --resume to go on, "
            "or --overwrite to replace it"
        )


def create_run(
    files: RunFiles, config: Mapping[str, Any], data: NeuralData, *, overwrite: bool
) -> None:
    """Make the folder of a new run, with its config and provenance.

    Args:
        files: the run folder; must pass ``check_folder``.
        config: the complete config tree.
        data: the data, loaded.
        overwrite: remove what is there.
    """
    if overwrite:
        clear(files.folder, last=files.config)
    files.sweep()
    write_text(files.provenance, json.dumps(provenance(config, data), indent=2) + "\n")
    _write_config(files, config)


def continue_run(files: RunFiles, config: Mapping[str, Any]) -> None:
    """Note in a run's folder that it goes on; it may have another learner."""
    files.sweep()
    told = resumed(read_provenance(files.provenance), config)
    write_text(files.provenance, json.dumps(told, indent=2) + "\n")
    _write_config(files, config)


def _write_config(files: RunFiles, config: Mapping[str, Any]) -> None:
    write_text(files.config, yaml.safe_dump(dict(config), sort_keys=False))


def check_resumable(run: Run, config: Mapping[str, Any], data: NeuralData) -> None:
    """Refuse to resume with another model, other data or another seed; the learner may change.

    Raises:
        InputError: naming the first key that differs.
    """
    if data.recording.checksum != run.provenance["data"]["checksum"]:
        raise InputError(f"data: not the recording that {run.folder} was trained on; cannot resume")
    for section in ("seed", "data", "model"):
        for difference in differences(run.config[section], config[section], section):
            raise InputError(f"{difference}; cannot resume {run.folder} with another setting")


def _read_config(files: RunFiles) -> dict[str, Any]:
    try:
        config = read_yaml(files.config, str(files.config))
    except FileNotFoundError as error:
        raise InputError(f"{files.folder} is not a run: it has no config.yaml") from error
    except OSError as error:
        raise InputError(f"{files.config} cannot be read: {error.strerror}") from error
    sections = ("seed", "data", "model", "learner")
    for section in sections:
        if not isinstance(config, dict) or section not in config:
            raise InputError(f"{files.config} has no section {section!r}")
    data, seed = config["data"], config["seed"]
    if not isinstance(data, dict) or not isinstance(data.get("init_args"), dict):
        raise InputError(f"{files.config}: data must hold class_path and init_args, got {data!r}")
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"{files.config}: seed must be from 0 to 2**63 - 1, got {seed!r}")
    return config
