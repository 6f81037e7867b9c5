"""The folder that a fit writes: new, overwritten, or gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seqvae.data import NeuralData
from seqvae.errors import InputError, Terminated
from seqvae.models import Model
from seqvae.runs.origin import Origin
from seqvae.runs.provenance import differences, provenance, read_provenance, resumed
from seqvae.runs.run import Run, read_run_config
from seqvae.storage.aside import Aside
from seqvae.storage.files import RunFiles, is_empty, write_text
from seqvae.storage.locking import locked
from seqvae.storage.weights import load_plain
from seqvae.types import Moments

RENEWABLE = ("optimizer", "schedule")
"""The arguments of a model that may change when a run is resumed."""
CHECKPOINT_SETTINGS = "settings"
"""Where a checkpoint tells what those were."""


@dataclass(frozen=True)
class FitFolder:
    """The folder of one fit; of several processes, one sees to it.

    Attributes:
        files: where its files lie.
        resume: whether the run that is there goes on.
        overwrite: whether it is replaced, once the new one is whole.
        is_first: whether this process is the one that writes.
    """

    files: RunFiles
    resume: bool = False
    overwrite: bool = False
    is_first: bool = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against other commands; refused at once if it would lose something.

        A run that is overwritten comes back if the block fails.

        Raises:
            InputError: naming the folder and what may be done.
            Terminated: if terminated, with the command that goes on.
        """
        lock = locked(self.files.folder, key="run_dir") if self.is_first else nullcontext()
        with lock:
            former = Aside(self.files)
            if self.is_first:
                former.mend()
                _check(self.files, resume=self.resume, overwrite=self.overwrite)
            try:
                yield
            except Terminated as end:
                cure = " with --resume" if self.files.config.exists() else ""
                raise Terminated(f"terminated; give the same command again{cure}") from end
            except Exception:
                if self.is_first and self.overwrite:
                    former.bring_back()
                raise
            if self.is_first:
                former.remove()

    def checkpoint(self, config: Mapping[str, Any], data: NeuralData) -> Path | None:
        """Return the file that learning goes on from; None: learning begins.

        Args:
            config: the complete config tree of this fit.
            data: the data, loaded.

        Raises:
            InputError: if the run that is there had other settings than the learner's.
        """
        if not self.resume:
            return None
        run = Run(self.files.folder)
        if run.provenance.get("saved_from_memory"):
            raise InputError(
                f"run_dir {str(self.files.folder)!r} was saved from memory, without what resuming "
                "needs; give a new folder, and init_from to begin with its weights"
            )
        _check_resumable(run, config, data)
        return self.files.last_checkpoint if self.files.last_checkpoint.exists() else None

    def origin(self, *, trust: bool = False) -> Origin | None:
        """Return the model that the run which is there has begun from, if it must begin again.

        Raises:
            InputError: if that is gone, or other than it was.
        """
        if not self.resume:
            return None
        return Origin.again(read_provenance(self.files.provenance), self.files.folder, trust=trust)

    def write(
        self,
        config: Mapping[str, Any],
        data: NeuralData,
        *,
        moments: Moments,
        origin: Origin | None = None,
    ) -> None:
        """Write config and provenance, which make the folder a run, or note that it goes on.

        Args:
            config: the complete config tree of this fit.
            data: the data, loaded.
            moments: of each neuron in the trials that are learned from.
            origin: what learning began from.
        """
        if not self.is_first:
            return
        if self.overwrite:
            Aside(self.files).keep()
        self.files.sweep()
        if self.resume:
            former = read_provenance(self.files.provenance)
            note = resumed(former, config, moments=moments)
        else:
            begun_from = None if origin is None else origin.note
            note = provenance(config, data, moments=moments, init_from=begun_from)
        note = {**note, "finished": False}  # until learning has ended
        write_text(self.files.provenance, json.dumps(note, indent=2) + "\n")
        write_text(self.files.config, yaml.safe_dump(dict(config), sort_keys=False))

    def run(
        self,
        model: Model,
        data: NeuralData,
        *,
        config: Mapping[str, Any],
        origin: Origin | None,
        history: Sequence[Mapping[str, float | int]],
    ) -> Run:
        """Return what was learned as a run, with model and data at hand."""
        return Run(self.files.folder).remember(model, data)


def _check(files: RunFiles, *, resume: bool, overwrite: bool) -> None:
    """Refuse a run folder that would lose something, before any work is done.

    Raises:
        InputError: naming the folder and what may be done.
    """
    folder = files.folder
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
        read_run_config(files)
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


def _check_resumable(run: Run, config: Mapping[str, Any], data: NeuralData) -> None:
    """Refuse to resume with another model, other data or another seed.

    The learner may change, and of the model its optimiser and schedule.

    Raises:
        InputError: naming the first key that differs.
    """
    if data.recording.checksum != run.provenance["data"]["checksum"]:
        raise InputError(f"data: not the recording that {run.folder} was trained on; cannot resume")
    former, now = run.config["model"], config["model"]
    changed = [*differences(run.config["seed"], config["seed"], "seed"),
               *differences(run.config["data"], config["data"], "data"),
               *differences(_lasting(former), _lasting(now), "model")]  # fmt: skip
    if changed:
        raise InputError(f"{changed[0]}; cannot resume {run.folder} with another setting")
    checkpoint = run.files.last_checkpoint
    changed = differences(former, now, "model")
    if changed and checkpoint.exists() and settings_of(load_plain(checkpoint)) is None:
        raise InputError(
            f"{changed[0]}; {checkpoint} is of an earlier version, which did not note it: resume "
            "it once with its former settings, then with others"
        )


def settings_of(checkpoint: Any) -> dict[str, Any] | None:
    """Return optimiser and schedule that a checkpoint was saved with; None if it does not tell."""
    settings = checkpoint.get(CHECKPOINT_SETTINGS) if isinstance(checkpoint, dict) else None
    if not isinstance(settings, dict) or set(settings) != set(RENEWABLE):
        return None
    parts = [part for part in settings.values() if part is not None]
    is_whole = all(isinstance(part, dict) and "class_path" in part for part in parts)
    return settings if is_whole else None


def _lasting(model: Any) -> Any:
    """Return the config of a model without what may change when it is resumed."""
    if not isinstance(model, Mapping) or not isinstance(model.get("init_args"), Mapping):
        return model
    arguments = {name: v for name, v in model["init_args"].items() if name not in RENEWABLE}
    return {**model, "init_args": arguments}
