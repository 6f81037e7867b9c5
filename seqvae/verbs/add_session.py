"""Add a session to a fitted model; learns its read-in and readout, all else stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from seqvae.analysis.matching import matched
from seqvae.compute import noise
from seqvae.compute.termination import terminable
from seqvae.config import to_config
from seqvae.data import NeuralData, as_data
from seqvae.data.front import BinWidth, DataLike
from seqvae.data.sources import Sessions
from seqvae.errors import InputError
from seqvae.learning import EM, GradientLearner, Learner
from seqvae.learning.learner import check_pair
from seqvae.learning.observers import HistoryRows
from seqvae.models import Model
from seqvae.models.widening import begin_along, shared_names, take_shared, widen
from seqvae.runs import ModelFactory, Run, build_model
from seqvae.runs.memory import RunInMemory
from seqvae.runs.origin import weights_hash
from seqvae.runs.provenance import provenance
from seqvae.storage.files import check_writable, is_empty


def add_session(
    run: Run | str,
    data: DataLike,
    learner: Learner | None = None,
    *,
    bin_width: BinWidth = None,
    name: str | None = None,
    run_dir: str | None = None,
    in_memory: bool = False,
    trust: bool = False,
) -> Run:
    """Add a session to a fitted model, of which everything else stays as it is.

    The parameters of the new neurons (read-in, readout, training means) are learned from the new
    session alone, and begin where its averages match those of the former sessions; all that does
    not depend on neurons is that of the run, and so is what it answers for the former sessions. The
    run itself is not touched.

    Args:
        run: a run or its folder.
        data: the new session: of ``NeuralData`` the source, and ``alignment``; all other settings
            are those of the run. Bins must be as wide, inputs as many, as those of the run.
        learner: how the new parameters are learned; None: as the run was.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        name: of the new session; None: that of its file, else its number.
        run_dir: the new run folder; None makes one under ``runs/`` named by model and time.
        in_memory: write nothing; the run that is returned has no folder.
        trust: allow the run's config to import classes from anywhere.

    Returns:
        The run of all sessions.

    Raises:
        InputError: for anything the user can mend; nothing is written then.
    """
    run = run if isinstance(run, Run) else Run(run)
    if run.members:
        raise InputError("run: an ensemble has no one model to add to; add to one of its members")
    fitted, former = run.model(trust=trust), run.data(trust=trust)
    if fitted.keeps_trials:
        raise InputError(
            f"run: {type(fitted).__name__} keeps a posterior for each trial, so that there is no "
            "inference to share; take an encoder that reads the data"
        )
    folder = _folder(run_dir, fitted, in_memory=in_memory)
    given = as_data(data, bin_width)
    wide, alone = _data_of(former, given, name)
    factory = run.build("model", ModelFactory, trust=trust)
    learner = run.build("learner", Learner, trust=trust) if learner is None else learner
    rows = HistoryRows()
    with terminable(), noise.apart(run.seed):
        parts = _begin(factory, fitted, wide, alone, seed=run.seed)
        match = matched(fitted, former, alone, seed=run.seed)
        begin_along(
            parts.alone, alone, torch.from_numpy(match.trials), factors=match.factors,
            scale=match.scale, read=match.read,
        )  # fmt: skip
        learner = _only_new(learner, parts)
        check_pair(learner, parts.alone)
        learner.check(parts.alone, alone)
        learner.learn(parts.alone, alone, observers=[rows])
        widen(parts.wide, fitted, parts.alone)
    parts.wide.seed, parts.wide.refitted = run.seed, parts.alone.refitted
    config = {**run.config, "data": to_config(wide), "learner": to_config(learner)}
    moments = (wide.merged() if parts.wide.refitted else wide).train_moments
    note = provenance(config, wide, moments=moments)
    note["added_session"] = {
        "name": wide.sessions[-1],
        "run": str(run.folder or run),
        "weights": weights_hash(fitted.state_dict()),
        "parameters": parts.num_learned,
        "of": parts.num_all,
    }
    made = RunInMemory(parts.wide, wide, config=config, provenance=note, history=rows.rows)
    return made if folder is None else made.save(folder)


def shown(run: Run, arguments: Mapping[str, Any]) -> str:
    """Tell where the run lies, and how much of it was learned."""
    note = run.provenance["added_session"]
    share = note["parameters"] / note["of"]
    return (
        f"run folder: {run.folder}\n  session {note['name']} added to {note['run']}: "
        f"{note['parameters']} of {note['of']} parameters learned ({share:.1%})"
    )


class _Parts(NamedTuple):
    """The models of a session that is added.

    Attributes:
        wide: of all sessions.
        alone: of the new one.
        shared: names of the weights that both have alike.
    """

    wide: Model
    alone: Model
    shared: list[str]

    @property
    def num_learned(self) -> int:
        """Parameters of the new session."""
        own = self.alone.named_parameters()
        return sum(one.numel() for name, one in own if name not in self.shared)

    @property
    def num_all(self) -> int:
        """Parameters of the model of all sessions."""
        return sum(one.numel() for one in self.wide.parameters())


def _begin(
    factory: ModelFactory, fitted: Model, wide: NeuralData, alone: NeuralData, *, seed: int
) -> _Parts:
    """Build both models, the one of the new session with all that the fitted one shares."""
    models = _Parts(build_model(factory, wide.spec), build_model(factory, alone.spec), [])
    models = models._replace(shared=shared_names(models.alone, models.wide))
    models.alone.seed = seed
    models.alone.has_begun = True  # so that no linear model is fitted to begin at
    models.alone.initialize(alone)
    take_shared(models.alone, fitted, models.shared)
    return models


def _only_new(learner: Learner, parts: _Parts) -> Learner:
    """Return a learner that leaves what is shared as it is.

    Raises:
        InputError: for one that cannot.
    """
    if isinstance(learner, GradientLearner):
        names = [name for name, _ in parts.alone.named_parameters() if name in parts.shared]
        return replace(learner, freeze=tuple(names))
    if isinstance(learner, EM):
        return replace(learner, keep_dynamics=True)
    raise InputError(
        f"learner: {type(learner).__name__} learns all of a model at once; a session can be added "
        "to one that is learned by gradients or by EM"
    )


def _data_of(
    former: NeuralData, given: NeuralData, name: str | None
) -> tuple[NeuralData, NeuralData]:
    """Return the data of all sessions, and of the new one alone, with the settings of the run."""
    _check_settings(former, given)
    source = former.source
    if isinstance(source, Sessions):
        all_sessions = source.with_session(given.source, name, former.sessions)
    else:
        first = Sessions([source])
        known = first.names_of([former.recording])
        all_sessions = first.with_session(given.source, name, known)
    wide, alone = former.with_source(all_sessions), former.with_source(given.source)
    if isinstance(former.heldout, list):  # whose indices are those of former neurons
        alone.heldout = None
    for one in (wide, alone):
        one.alignment = given.alignment
        one.setup()
    alone.trials("train")
    return wide, alone


def _check_settings(former: NeuralData, given: NeuralData) -> None:
    """Refuse settings of the new data that would not be read, as those of the run are."""
    usual = to_config(NeuralData(given.source))["init_args"]
    of_run, own = (to_config(one)["init_args"] for one in (former, given))
    for name, value in own.items():
        is_read = name in ("source", "alignment")
        if not is_read and value not in (usual.get(name), of_run.get(name)):
            raise InputError(
                f"data.{name} is that of the run, {of_run.get(name)!r}, got {value!r}; leave it out"
            )


def _folder(run_dir: str | None, model: Model, *, in_memory: bool) -> Path | None:
    """Return the new run folder, which must be empty; None: nothing is written."""
    if in_memory:
        if run_dir is not None:
            raise InputError("in_memory writes no folder; leave run_dir out, or in_memory")
        return None
    kind = type(model).__name__.lower()
    folder = Path(run_dir or f"runs/{kind}-{datetime.now():%Y%m%d-%H%M%S}")
    if not is_empty(folder):
        raise InputError(f"run_dir {str(folder)!r} is not empty; give a new folder")
    check_writable(folder)
    return folder
