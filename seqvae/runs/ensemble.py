"""Several fitted models of one recording as one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from seqvae.config import from_config
from seqvae.config.class_paths import class_path
from seqvae.errors import InputError
from seqvae.models import Mixture, Model
from seqvae.runs.beginning import ModelFactory, build_model
from seqvae.runs.memory import RunInMemory
from seqvae.runs.origin import weights_hash
from seqvae.runs.provenance import circumstances
from seqvae.runs.run import Run

_SPLIT = ("val_fraction", "test_fraction", "split_seed", "window_bins")
"""The settings of the data that decide which trials teach, choose and test."""


class Ensemble(RunInMemory):
    """Fitted models of one recording as one run: the mean of their rates.

    It holds its members by content, so it does not need their folders any more, and answers
    ``evaluate`` and ``infer`` as any run; see ``seqvae.models.Mixture`` for what it predicts. Its
    data and its seed are those of the first member. ``save(folder)`` writes it.

    Args:
        runs: the members, at least two: runs or their folders.
        weights: of each member, not negative and of sum 1; None: equal.
        trust: allow the configs of the runs to import classes from anywhere.

    Raises:
        InputError: for runs that cannot be read or do not go together, naming the first, or for
            weights that are none.
    """

    def __init__(
        self,
        runs: Sequence[Run | str],
        *,
        weights: Sequence[float] | None = None,
        trust: bool = False,
    ) -> None:
        members = _members(runs, trust=trust)
        names = [member.name for member in members]
        if weights is not None and len(weights) != len(names):
            raise InputError(f"weights: give one for each of {len(names)} runs, got {len(weights)}")
        lead = members[0].run
        shares = [1 / len(names)] * len(names) if weights is None else weights
        settings = {
            "members": {member.name: member.run.config["model"] for member in members},
            "weights": dict(zip(names, map(float, shares), strict=True)),
            "seeds": {member.name: member.run.seed for member in members},
        }
        model = {"class_path": class_path(Mixture), "init_args": settings}
        self.config = {"seed": lead.seed, "data": lead.config["data"], "model": model}
        self.config["learner"] = None
        self.provenance = {
            **circumstances(self.config),
            "data": _widest(members).run.provenance["data"],
            "members": {member.name: member.note for member in members},
            "init_from": None,
            "resumed": [],
        }
        self._history = []
        self._model = self._built_of(members, trust=trust)
        self._data = lead._data

    def _built_of(self, members: Sequence[_Member], *, trust: bool) -> Mixture:
        """Build the mixture as its config says, with the weights of the members."""
        factory: ModelFactory = from_config(
            self.config["model"], ModelFactory, key="model", trust=trust
        )
        model = build_model(factory, members[0].run.spec)
        assert isinstance(model, Mixture)
        num_trials = sum(self.provenance["data"]["num_trials"].values())
        model.make_room(num_trials, model.spec.num_encoded_bins)
        for name, own in model.by_name.items():
            fitted = next(member.model for member in members if member.name == name)
            own.load_state_dict(fitted.state_dict())
        model.null_counts.copy_(_widest(members).model.null_counts)
        model.refitted = _widest(members).model.refitted
        model.seed = self.seed
        return model


@dataclass(frozen=True, eq=False)
class _Member:
    """A run that becomes part of an ensemble.

    Attributes:
        name: in the ensemble.
        run: the run.
        model: its model.
    """

    name: str
    run: Run
    model: Model

    @cached_property
    def note(self) -> dict[str, Any]:
        """What the ensemble's provenance tells of it; facts of the data are those of all."""
        return {
            "run": str(self.run.folder or self.run),
            "hash": self.run.hash,
            "weights": weights_hash(self.model.state_dict()),
            "provenance": {
                name: fact for name, fact in self.run.provenance.items() if name != "data"
            },
        }


def _members(runs: Sequence[Run | str], *, trust: bool) -> list[_Member]:
    """Open the runs and name them; refuse those that do not go together."""
    given = [runs] if isinstance(runs, Run | str) else list(runs)
    if len(given) < 2:
        raise InputError(f"runs: an ensemble has at least two members, got {len(given)}")
    opened = []
    for run in given:
        try:
            fitted = run if isinstance(run, Run) else Run(run)
            model = fitted.model(trust=trust)
        except InputError as error:
            raise InputError(f"runs: {error}") from error
        if fitted.members:
            raise InputError(
                f"runs: {str(fitted.folder or fitted)!r} is an ensemble itself; give its members "
                f"({', '.join(member['run'] for member in fitted.members.values())})"
            )
        opened.append((fitted, model))
    members = [
        _Member(name, *pair)
        for name, pair in zip(_names([run for run, _ in opened]), opened, strict=True)
    ]
    known: dict[tuple[str, str], _Member] = {}
    for member in members:
        former = known.setdefault((member.note["hash"], member.note["weights"]), member)
        if former is not member:
            raise InputError(
                f"runs: {former.note['run']!r} and {member.note['run']!r} are the same fit; give "
                "each once, and weights for one that shall count more"
            )
        _check_alike(members[0], member, trust=trust)
    return members


def _widest(members: Sequence[_Member]) -> _Member:
    """Return the first member that has learned from the most trials: a refitted one, if any is."""
    return next((member for member in members if member.model.refitted), members[0])


def _names(runs: Sequence[Run]) -> list[str]:
    """Name runs by their folders, those in memory by their models, and number namesakes."""
    words = [
        type(run.model()).__name__.lower() if run.folder is None else run.folder.resolve().name
        for run in runs
    ]
    num_of, names = Counter(words), list[str]()
    for number, word in enumerate(words, start=1):
        name = word if num_of[word] == 1 else f"{word}_{number}"
        while name in names or (name != word and name in num_of):
            name = f"{name}_{number}"
        names.append(name)
    return names


def _check_alike(first: _Member, other: _Member, *, trust: bool) -> None:
    """Refuse a member that knows other data than the first.

    Raises:
        InputError: naming the member and what differs.
    """
    spec, its = first.run.spec, other.run.spec

    def refuse(what: str, here: Any, there: Any) -> None:
        raise InputError(
            f"runs: {other.name} has {what} {there}, but {first.name} {here}; give runs that were "
            "fitted to the same recording with the same settings of the data"
        )

    kinds = first.model.observation.kind, other.model.observation.kind
    if kinds[0] != kinds[1]:
        refuse("data of the kind", *kinds)
    for what, field in _FACTS.items():
        pair = getattr(spec, field), getattr(its, field)
        if pair[0] != pair[1]:
            refuse(what, *pair)
    names, its_names = (member.run.neuron_names(trust=trust) for member in (first, other))
    if names is not None and its_names is not None and not np.array_equal(names, its_names):
        index = int(np.flatnonzero(np.asarray(names != its_names))[0])
        refuse(f"as neuron {index}", names[index], its_names[index])
    facts = first.run.provenance["data"], other.run.provenance["data"]
    if facts[0]["checksum"] != facts[1]["checksum"]:
        refuse("a recording with the checksum", *(fact["checksum"] for fact in facts))
    if facts[0]["num_trials"] != facts[1]["num_trials"]:
        refuse("trials", *(fact["num_trials"] for fact in facts))
    settings = [
        {name: member.run.config["data"]["init_args"].get(name) for name in _SPLIT}
        for member in (first, other)
    ]
    if settings[0] != settings[1] and not _is_split_alike(first, other, trust=trust):
        refuse("its trials split by", *settings)


_FACTS = {
    "a number of neurons": "num_neurons",
    "a bin width of": "bin_width",
    "as held-in neurons": "heldin",
    "forecast bins:": "num_forecast_bins",
    "time bins:": "num_time_bins",
    "external inputs:": "num_inputs",
}


def _is_split_alike(first: _Member, other: _Member, *, trust: bool) -> bool:
    """Whether the same trials taught both, as far as their data are at hand to tell."""
    try:
        split, its = (member.run.data(trust=trust).split for member in (first, other))
    except InputError:
        return False
    return bool(np.array_equal(split, its))
