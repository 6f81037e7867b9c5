"""A run: the folder in which one fitted model lives."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Shaped

from seqvae.config import check_trusted, from_config
from seqvae.data import NeuralData, Recording
from seqvae.data.transforms import Transform, transformed
from seqvae.data.windows import is_continuous
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.runs.beginning import ModelFactory, build_model
from seqvae.runs.facts import run_html
from seqvae.runs.figures import Figures
from seqvae.runs.provenance import (
    SECTIONS,
    read_moments,
    read_neuron_names,
    read_provenance,
    read_spec,
)
from seqvae.runs.stream import Stream
from seqvae.storage.files import RunFiles
from seqvae.storage.history import read_history
from seqvae.storage.weights import check_weights, is_refitted, read_weights
from seqvae.storage.yaml_json import read_yaml
from seqvae.types import DataSpec, Moments

if TYPE_CHECKING:
    import xarray as xr

_UNREAD = "seqvae.data.sources.Lorenz"
"""Takes the place of a source where the settings beside it are asked for."""


class Run:
    """A fitted model, in a folder: ``config.yaml``, ``weights.pt``, ``history.csv`` and so on.

    Nothing that lies in the folder is executed: weights are read without pickle, and the config
    may name classes of seqvae, torch.optim and pytorch_lightning only, unless ``trust`` is given.

    Args:
        folder: the run folder.

    Raises:
        InputError: if the folder is not a run.
    """

    _figures: Figures | None = None

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._files = RunFiles(Path(folder))
        if not self.files.folder.is_dir():
            raise InputError(f"run {str(folder)!r} does not exist; give the run_dir of a fit")
        self.config: dict[str, Any] = read_run_config(self.files)
        self.provenance: dict[str, Any] = read_provenance(self.files.provenance)
        self._model: Model | None = None
        self._data: NeuralData | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.files.folder)!r})"

    def _repr_html_(self) -> str:
        return run_html(self)

    @property
    def files(self) -> RunFiles:
        """Where each of its files lies."""
        return self._files

    @property
    def folder(self) -> Path | None:
        """The run folder; None for a run in memory."""
        return self.files.folder

    @property
    def history(self) -> list[dict[str, float | int]]:
        """One row of metrics for each validation or iteration."""
        return read_history(self.files.history)

    @property
    def plot(self) -> Figures:
        """Its figures: ``run.plot.psth()``, of other trials ``run.plot.of("train").psth()``.

        Raises:
            InputError: if model or data cannot be read.
        """
        if self._figures is None:
            self._figures = Figures(self.model(), self.data(), history=self.history, seed=self.seed)
        return self._figures

    @property
    def posterior(self) -> xr.Dataset:
        """What is inferred of the validation trials, beside their activity: what figures show.

        Of other trials ``run.plot.of("train").posterior``, of other data ``seqvae.infer``.

        Raises:
            InputError: if model or data cannot be read.
        """
        return self.plot.posterior

    @property
    def members(self) -> dict[str, Any]:
        """Of an ensemble what is noted of each member, by its name; of any other run nothing."""
        members: dict[str, Any] = self.provenance.get("members", {})
        return members

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
    def train_moments(self) -> Moments | None:
        """What each neuron was on its own in training; None of a run that did not note it."""
        return read_moments(self.provenance, self.spec.num_neurons)

    def neuron_names(self, *, trust: bool = False) -> Shaped[np.ndarray, " neuron"] | None:
        """Return the ids of the neurons, where the recording had some.

        A run of an earlier version did not note them; its data tell, if they are at hand.

        Args:
            trust: allow the config to name classes from anywhere.
        """
        if "neuron_ids" in self.provenance["data"]:
            return read_neuron_names(self.provenance, self.spec.num_neurons)
        try:
            return self.data(trust=trust).recording.neuron_names
        except InputError:
            return None

    @property
    def is_finished(self) -> bool:
        """Whether learning has ended; of runs that do not tell it is taken to have."""
        return bool(self.provenance.get("finished", True))

    @property
    def hash(self) -> str:
        """Twelve hex digits of config, data, version and beginning: the same for equal runs."""
        facts = [self.config, self.provenance["data"]["checksum"],
                 self.provenance["versions"]["seqvae"]]  # fmt: skip
        if (origin := self.provenance.get("init_from")) is not None:
            facts.append(origin["hash"])
        facts += [member["weights"] for member in self.members.values()]
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def remember(self, model: Model, data: NeuralData | None) -> Run:
        """Keep model and data of a fit in memory, so that they need not be read again."""
        self._model, self._data, self._figures = model, data, None
        return self

    def model(self, *, trust: bool = False) -> Model:
        """Return the model with its best weights, ready for inference.

        Args:
            trust: allow the config to name classes from anywhere; they will be imported.

        Raises:
            InputError: if weights or config cannot be read, or name what they may not.
        """
        if self._model is None:
            factory, spec = self.build("model", ModelFactory, trust=trust), self.spec
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
            model.refitted = is_refitted(self.files.weights)
            if self._is_to_be_refitted and not model.refitted:
                warnings.warn(
                    f"{self.folder} is to be refitted, and this was not done yet: these are the "
                    "weights that validation has chosen; go on with fit and resume",
                    stacklevel=2,
                )
            self._model = model
        return self._model.eval()

    def stream(self, *, trust: bool = False) -> Stream:
        """Return the model as a stream: one bin in, rates out, state kept, latency told.

        Args:
            trust: allow the config to name classes from anywhere.

        Raises:
            InputError: for a model that is not causal.
        """
        return Stream(self.model(trust=trust))

    @property
    def _is_to_be_refitted(self) -> bool:
        learner = self.config["learner"]
        settings = learner.get("init_args") if isinstance(learner, dict) else None
        return isinstance(settings, dict) and settings.get("refit") is True

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
            data = self.build("data", NeuralData, trust=trust)
            data.setup()
            if data.recording.checksum != self.provenance["data"]["checksum"]:
                raise InputError(
                    f"data: the source is not what {self.folder} was trained on (its checksum "
                    "changed); give the data you mean explicitly, e.g. --data.source.path"
                )
            self._data = data
        return self._data

    def own_data(self, recording: Recording, *, trust: bool = False) -> NeuralData | None:
        """Return the data of the fit, split as they were, of their recording given again.

        Args:
            recording: as ``prepared`` returns it, before windows are cut.
            trust: allow the config to name classes from anywhere.

        Returns:
            None for another recording.
        """
        checksum = self.provenance["data"]["checksum"]
        is_changed = is_continuous(recording) or "transforms" in self.provenance["data"]
        if recording.checksum != checksum and not is_changed:
            return None
        settings = self._data
        if settings is None:
            arguments = {**self.config["data"]["init_args"], "source": _UNREAD}
            tree = {**self.config["data"], "init_args": arguments}
            settings = self._built(tree, "data", NeuralData, trust)
        data = settings.of(recording)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the fit has told them
            try:
                data.setup()
            except InputError:  # of a long recording that cannot be cut as that of the fit was
                return None
        if data.recording.checksum != checksum:
            return None
        self._data = data if self._data is None else self._data
        return self._data

    def prepared(self, recording: Recording, *, trust: bool = False) -> Recording:
        """Return a recording after those transforms of the fit that need no training trials.

        Args:
            recording: as a source gives it.
            trust: allow the config to name classes from anywhere.
        """
        tree = self.config["data"]["init_args"].get("transforms")
        return transformed(recording, self._transforms(tree, "data.transforms", trust)).recording

    def as_learned(self, recording: Recording, *, trust: bool = False) -> Recording:
        """Return another recording after all transforms of the fit, with what they took then.

        Args:
            recording: as a source gives it.
            trust: allow the provenance to name classes from anywhere.
        """
        tree = self.provenance["data"].get("transforms")
        transforms = self._transforms(tree, "provenance.json: transforms", trust)
        return transformed(recording, transforms).recording

    def _transforms(self, tree: Any, key: str, trust: bool) -> list[Transform]:
        return [] if tree is None else self._built(tree, key, list[Transform], trust)

    def build(self, section: str, annotation: Any, *, trust: bool = False) -> Any:
        """Build a section of the config, such as "learner", as its annotation asks for it.

        Raises:
            InputError: for a config that does not fit, or names what it may not.
        """
        return self._built(self.config[section], section, annotation, trust)

    def _built(self, tree: Any, section: str, annotation: Any, trust: bool) -> Any:
        if not trust:
            check_trusted(tree)
        return from_config(tree, annotation, key=section, trust=trust)


def read_run_config(files: RunFiles) -> dict[str, Any]:
    """Read the config of a run folder.

    Raises:
        InputError: if it has none, or it lacks a section.
    """
    try:
        config = read_yaml(files.config, str(files.config))
    except FileNotFoundError as error:
        raise InputError(f"{files.folder} is not a run: it has no config.yaml") from error
    except OSError as error:
        raise InputError(f"{files.config} cannot be read: {error.strerror}") from error
    for section in SECTIONS:
        if not isinstance(config, dict) or section not in config:
            raise InputError(f"{files.config} has no section {section!r}")
    data, seed = config["data"], config["seed"]
    if not isinstance(data, dict) or not isinstance(data.get("init_args"), dict):
        raise InputError(f"{files.config}: data must hold class_path and init_args, got {data!r}")
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"{files.config}: seed must be from 0 to 2**63 - 1, got {seed!r}")
    return config
