"""What an NWB file holds and how it may be read: tables and series by name, times and kinds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from seqvae.data.sources.dims import described
from seqvae.data.sources.nwb import NWB
from seqvae.data.sources.nwb_file import NWBContents
from seqvae.data.sources.nwb_table import Table
from seqvae.data.splits import SPLIT_WORDS, split_words
from seqvae.data.survey.guess import NO_WIDTH, USUAL_WIDTH, Plan
from seqvae.data.survey.words import says, tokens

_EVENTS = (
    (r"mov", "the onset of a movement"),
    (r"reach|saccade", "the onset of a movement"),
    (r"go(?![a-z])", "the cue to go"),
    (r"resp|choice|lick|decision|react", "a response"),
    (r"stim|cue|target|tone|visual|odou?r|sound|flash|image|grating", "a stimulus"),
    (r"feedback|reward|outcome", "an outcome"),
)
_MOST_CHANNELS = 16
_FLUORESCENCE = (("df", "dff"), ("denoised",), ("fluorescence", "roiresponseseries"))
_SHARE = 0.9  # of trials
_SHOWN = 5


def nwb_tree(file: NWBContents) -> list[str]:
    """Return each column of the tables, and each series, with sizes and type, a line each."""
    units = file.units
    tables = [*([] if units is None else [units]), *map(file.intervals, file.interval_tables)]
    lines = []
    for table in tables:
        for name in table.names:
            sizes, kind = table.outline(name)
            cells = "" if table.is_flat(name) else f", {len(table)} cells"
            lines.append(f"{table.name}/{name}  {described(sizes)}  {kind}{cells}")
    kinds = file.series
    for place, (sizes, kind) in file.outlines().items():
        lines.append(f"{place}  {described(sizes)}  {kind}, {kinds[place]}")
    return lines


def nwb_plan(file: NWBContents, source: NWB) -> Plan:
    """Guess the settings of ``NWB`` that are left as they are by default; the rest is kept.

    Args:
        file: an open one.
        source: what is set beside its path.
    """
    guess = _Guess(source)
    units = file.units
    if guess.is_open("series"):
        _take_activity(file, units, guess)
    if guess.question:
        return guess.plan
    if units is not None and source.series is None:
        _take_width(guess)
        _take_heldout(units, guess)
    table = _table(file, guess)
    if table is not None and not guess.question:
        _take_event(table, guess)
        _take_labels(table, guess)
    if not guess.question:
        _take_behavior(file, guess)
    return guess.plan


class _Guess:
    """What has been taken, and why."""

    def __init__(self, source: NWB) -> None:
        self.source = source
        self.plan = Plan()

    def is_open(self, name: str) -> bool:
        """Whether nothing else than the default is set."""
        (default,) = (field.default for field in fields(NWB) if field.name == name)
        return bool(getattr(self.source, name) == default)

    def take(self, name: str, value: Any, why: str) -> None:
        """Take a value for a setting, if that is open."""
        if name == "activity" or self.is_open(name):
            self.plan.keys[name], self.plan.why[name] = value, why

    def setting(self, name: str) -> Any:
        """Return what a setting is by now."""
        return self.plan.keys.get(name, getattr(self.source, name))

    @property
    def question(self) -> str | None:
        """The one question."""
        return self.plan.question

    def ask(self, question: str) -> None:
        """Ask it."""
        self.plan = replace(self.plan, question=question)


def _take_activity(file: NWBContents, units: Table | None, guess: _Guess) -> None:
    if units is not None:
        guess.take("activity", "units", f"it holds the times of spikes of {len(units)} units")
        return
    places = [place for place, kind in file.series.items() if kind == "RoiResponseSeries"]
    places = [place for place in places if "neuropil" not in place.lower()] or places
    if not places:
        guess.ask("source.path: the file holds neither units with spikes nor a RoiResponseSeries")
        return
    ranks = [_rank_of_fluorescence(place) for place in places]
    best = [place for place, rank in zip(places, ranks, strict=True) if rank == min(ranks)]
    if len(best) > 1:
        guess.ask(f"series: which is the activity, {_listed(best)}? give series: NAME")
        return
    rest = [place for place in places if place != best[0]]
    guess.take("series", best[0], f"it is a RoiResponseSeries, and no units are there{_so(rest)}")


def _rank_of_fluorescence(place: str) -> int:
    small = place.lower().replace("_", "")
    ranks = [rank for rank, words in enumerate(_FLUORESCENCE) if any(w in small for w in words)]
    return min(ranks, default=len(_FLUORESCENCE))


def _take_width(guess: _Guess) -> None:
    if guess.source.bin_width is None:
        guess.take("bin_width", USUAL_WIDTH, NO_WIDTH)


def _take_heldout(units: Table, guess: _Guess) -> None:
    for name in units.names:
        if says(name, "heldout") and units.is_flat(name) and len(units.outline(name).sizes) == 1:
            values = units.column(name, field="heldout")
            if values.dtype.kind != "U" and set(np.unique(values).tolist()) == {0, 1}:
                why = f"it is true for {int(np.sum(values != 0))} of {len(units)} units"
                guess.take("heldout", name, why)
                return


def _table(file: NWBContents, guess: _Guess) -> Table | None:
    """Return the table of trials, or None for one long trial."""
    names = file.interval_tables
    if not guess.is_open("trials"):
        name = guess.source.trials
        return file.intervals(name) if name in names else None
    tables = {name: file.intervals(name) for name in names if name != "invalid_times"}
    if "trials" in tables:
        guess.take("trials", "trials", f"that table has {len(tables['trials'])} rows")
        return tables["trials"]
    rows = {name: table for name, table in tables.items() if len(table) > 1 and name != "epochs"}
    rows = {name: table for name, table in rows.items() if says(name, "trials")} or rows
    if len(rows) > 1:
        guess.ask(
            f"trials: which table has a row for each trial, {_listed([*rows])}? give trials: NAME, "
            "or null for one long recording"
        )
        return None
    for name, table in rows.items():
        guess.take("trials", name, f"no other table has several rows; it has {len(table)}")
        return table
    guess.take("trials", None, "no table has a row for each trial: one long recording")
    return None


def _take_event(table: Table, guess: _Guess) -> None:
    """Find the event that trials are aligned to, and the window around it."""
    begin, end = (table.column(name, field="trials") for name in ("start_time", "stop_time"))
    if guess.is_open("align_to"):
        events = _events(table, begin, end)
        ranks = {name: _rank(name) for name in events}
        best = [name for name in events if ranks[name] == min(ranks.values())]
        if len(best) > 1:
            best = [name for name in best if tokens(name) & {"on", "onset", "start"}] or best
        if len(best) > 1:
            guess.ask(
                f"align_to: which event are trials aligned to, {_listed(best)}? give align_to: "
                "NAME, or null for whole trials"
            )
            return
        if not best:
            guess.take("align_to", None, "no column holds times within the trials: whole trials")
            return
        what = dict(enumerate(what for _, what in _EVENTS)).get(ranks[best[0]], "times in trials")
        rest = [name for name in events if name != best[0]]
        guess.take("align_to", best[0], f"it holds {what}{_so(rest)}")
    event = guess.setting("align_to")
    if event is None or event not in table or not guess.is_open("window"):
        return
    window = _window(table.column(event, field="align_to"), begin, end, guess.setting("bin_width"))
    if window is not None:
        guess.take("window", window, "nine of ten trials hold it, in seconds from the event")


def _events(table: Table, begin: np.ndarray, end: np.ndarray) -> list[str]:
    """Return the columns that hold a time within nearly each trial."""
    names = []
    for name in table.names:
        if name in ("start_time", "stop_time") or not table.is_flat(name):
            continue
        sizes, kind = table.outline(name)
        if len(sizes) != 1 or "float" not in kind:
            continue
        times = table.column(name, field="align_to").astype(np.float64)
        there = np.isfinite(times)
        inside = (times >= begin - 1e-6) & (times <= end + 1e-6)
        if there.mean() >= 0.5 and inside[there].mean() >= _SHARE and np.ptp(times[there]) > 0:
            names.append(name)
    return names


def _rank(name: str) -> int:
    small = name.lower()
    places = (place for place, (pattern, _) in enumerate(_EVENTS) if re.search(pattern, small))
    return next(places, len(_EVENTS))


def _window(
    events: np.ndarray, begin: np.ndarray, end: np.ndarray, bin_width: float | None
) -> tuple[float, float] | None:
    """Return the usual window, or as many whole bins of it as nine of ten trials hold."""
    there = np.isfinite(events)
    if bin_width is None or not there.any():
        return None
    room = (events - begin)[there], (end - events)[there]
    before, after = (float(np.quantile(part, 1 - _SHARE)) for part in room)
    first = -math.floor(min(-NWB.window[0], max(before, 0.0)) / bin_width + 1e-6) * bin_width
    first = NWB.window[0] if before >= -NWB.window[0] else round(first, 9)
    stop = min(NWB.window[1], max(after, 0.0))
    number = math.floor((stop - first) / bin_width + 1e-6)
    return (first, round(first + number * bin_width, 9)) if number > 1 else None


def _take_labels(table: Table, guess: _Guess) -> None:
    """Find the columns of the split and of the condition."""
    labels: dict[str, tuple[int, int]] = {}
    for name in table.names:
        sizes, kind = table.outline(name)
        if not table.is_flat(name) or len(sizes) != 1 or name == "tags":
            continue
        values = table.column(name, field="split") if kind == "text" else None
        if values is not None and "train" in (words := split_words(values)):
            if {*words.tolist()} <= {*SPLIT_WORDS}:
                guess.take("split", name, "it holds the words train, val and test, one a trial")
            continue
        if says(name, "condition") and not name.endswith("_time"):
            values = table.column(name, field="condition")
            number = len(np.unique(values))
            if 1 < number <= max(2, len(values) // 2):
                labels[name] = says(name, "condition"), number
    if labels:
        name = max(labels, key=lambda one: labels[one][0])
        rest = [other for other in labels if other != name]
        guess.take("condition", name, f"it holds {labels[name][1]} labels{_so(rest)}")
    if guess.is_open("split") and "split" not in guess.plan.keys and "split" in table:
        guess.take("split", None, "column 'split' holds other words than train, val and test")


def _take_behavior(file: NWBContents, guess: _Guess) -> None:
    """Find a series of behaviour: numbers over time of few channels."""
    kinds = file.series
    scores: dict[str, float] = {}
    for place, (sizes, kind) in file.outlines().items():
        is_few = len(sizes) == 1 or (len(sizes) == 2 and (sizes[1] or 0) <= _MOST_CHANNELS)
        is_long = bool(sizes) and (sizes[0] or 0) > 2
        if kinds[place] not in ("TimeSeries", "SpatialSeries") or kind == "text":
            continue
        if is_few and is_long and any(says(part, "behavior") for part in place.split("/")):
            scores[place] = _score_of_behavior(place)
    if scores:
        place = max(scores, key=lambda one: scores[one])
        sizes, _ = file.outlines()[place]
        rest = [other for other in scores if other != place]
        guess.take("behavior", [place], f"it is a series of {described(sizes)}{_so(rest)}")


def _score_of_behavior(place: str) -> float:
    words = tokens(place)
    weights: Mapping[float, Sequence[str]] = {
        4.0: ("vel", "velocity", "handvel", "speed"),
        2.0: ("hand", "position", "pos"),
        1.0: ("cursor", "finger"),
        -3.0: ("eye", "pupil", "gaze"),
    }
    return sum(weight for weight, names in weights.items() if words & {*names})


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (" ..." if len(names) > _SHOWN else "")


def _so(others: Sequence[str]) -> str:
    return f"; so may {_listed(others)}" if others else ""


def with_plan(source: NWB, plan: Plan) -> NWB:
    """Return the source with the settings of a plan."""
    settings = {name: value for name, value in plan.keys.items() if name != "activity"}
    return replace(source, **settings)
