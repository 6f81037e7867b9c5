"""A fit to repeat: what a provenance tells of it, read and built again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqvae.config import check_trusted, from_config, to_config
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.runs.origin import Origin
from seqvae.runs.provenance import PACKAGES, SECTIONS, differences, machine, read_provenance
from seqvae.runs.run import Run

_OUTWARD = ("default_root_dir", "logger", "callbacks", "plugins", "profiler", "model_registry")
_READERS = ("xarray", "h5py")  # on which no number depends
_LONGER = ("max_epochs", "max_iterations", "progress")


@dataclass(frozen=True)
class Recipe:
    """What a provenance tells of a fit, so that it can be repeated.

    Attributes:
        path: the ``provenance.json``.
        content: what stands in it.
        trust: whether its config may name classes from anywhere.
        run: the run itself, if it is at hand: its data may have been in memory only.
    """

    path: Path
    content: Mapping[str, Any]
    trust: bool = False
    run: Run | None = None

    @classmethod
    def of(cls, run: Run | str, *, trust: bool = False) -> Recipe:
        """Read the provenance of a run, or of what is named by its path; see ``read``."""
        if not isinstance(run, Run):
            return cls.read(run, trust=trust)
        return replace(cls.read(run.files.folder, trust=trust), run=run)

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
        if names := ", ".join(recipe.content.get("members", {})):
            raise InputError(
                f"from_run: {path.parent} is an ensemble (of {names}), which is not learned; "
                "repeat one of its members, and make the ensemble again"
            )
        if added := recipe.content.get("added_session"):
            raise InputError(
                f"from_run: {path.parent} was not learned at once: add_session gave {added['run']} "
                f"the session {added['name']!r}; repeat that with seqvae add_session --run "
                f"{added['run']}"
            )
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
            InputError: for a config that does not fit.
        """
        return from_config(self.config[section], annotation, key=section, trust=self.trust)

    def data(self) -> NeuralData:
        """Return the data of the fit.

        Raises:
            InputError: for a config that does not fit, or arrays that were in memory only.
        """
        if self.run is not None:
            return self.run.data(trust=self.trust)
        if self.config["data"]["init_args"].get("source") is None:
            raise InputError(
                f"data: {self.path.parent} was fitted to arrays in memory; give the data again"
            )
        data: NeuralData = self.build("data", NeuralData)
        return data

    def origin(self) -> Origin | None:
        """Return the model that the fit began from, if it began from one.

        Raises:
            InputError: if that is gone, or other than it was.
        """
        return Origin.again(self.content, self.path.parent, trust=self.trust)

    def load(self, data: NeuralData) -> None:
        """Load data, and refuse those that are named as they were then, but have changed.

        Raises:
            InputError: if the source cannot be read, or its checksum changed.
        """
        former_source, source = (
            self.config["data"]["init_args"].get("source"),
            to_config(data.source),
        )
        try:
            data.setup()
        except InputError as error:
            place = f"; {self.path.parent} was fitted in {self.content.get('folder')!r}"
            raise InputError(f"{error}{place if source == former_source else ''}") from error
        if source != former_source or data.recording.checksum == self.content["data"]["checksum"]:
            return
        if source is not None:
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
        now, then = machine(), dict(self.content)
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
    objection = f"names {named!r}" if not is_harmless else ""
    for name in _OUTWARD:
        if not (tree.get(name) in (None, []) or isinstance(tree[name], bool)):
            objection = f"sets {name}"
    if objection:
        raise InputError(
            f"from_run: the learner of {path} {objection}, which may write or send what it learns "
            "anywhere; if you trust where it comes from, allow it with trust=True (--trust)"
        )
