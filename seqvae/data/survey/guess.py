"""The parts of a recording among the entries of a file: each guess with its reason."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from seqvae.data.sources.dims import described, dims_beside
from seqvae.data.sources.holdings import Holdings
from seqvae.data.sources.planned import block_of, check_keys
from seqvae.data.splits import split_words
from seqvae.data.survey.candidates import Candidate, activity_score, candidates, split_patterns
from seqvae.data.survey.order import order_of
from seqvae.data.survey.words import says
from seqvae.data.validation import SPLITS
from seqvae.errors import InputError

_NEAR = 0.5  # of a score: as good
_MILLISECONDS = 5.0
USUAL_WIDTH = 0.02
"""Seconds per bin that times of spikes are looked at in, where nothing says another width."""
NO_WIDTH = "times of spikes have none, and this is usual"


@dataclass(frozen=True)
class Plan:
    """What is taken for what.

    Attributes:
        keys: the name of the entry of each part; of NWB its settings, with their values.
        dims: the axes of the activity; None: those of the split layout, or columns of spikes.
        bin_width: seconds per bin, where an entry says it.
        trial_bins: samples of a trial, where trials stand one after another in time.
        why: the reason for each part.
        question: the one question that must be answered before the file can be read.
    """

    keys: dict[str, Any] = field(default_factory=dict)
    dims: tuple[str, ...] | None = None
    bin_width: float | None = None
    trial_bins: int | None = None
    why: dict[str, str] = field(default_factory=dict)
    question: str | None = None


def guess(
    holdings: Holdings,
    keys: Mapping[str, str] | None = None,
    dims: Sequence[str] | None = None,
    bin_width: float | None = None,
    trial_bins: int | None = None,
) -> Plan:
    """Guess what each entry is; what is given is taken as it is.

    Args:
        holdings: what the file holds.
        keys: the entries that are known, by part.
        dims: the axes of the activity.
        bin_width: seconds per bin.
        trial_bins: samples of a trial, where trials stand one after another in time.
    """
    entries = candidates(holdings)
    known = None if dims is None else tuple(dims)
    plan = Plan(dict(keys or {}), known, trial_bins=trial_bins)
    plan = _with_width(plan, entries, bin_width)
    if "spike_times" in plan.keys:
        return plan
    if "activity" not in plan.keys:
        plan = _with_activity(plan, entries)
        if plan.question or "activity" not in plan.keys or "{split}" in plan.keys["activity"]:
            return plan
    name = plan.keys["activity"]
    activity = entries.get(name) or Candidate(name, block_of(holdings, name), holdings.is_matlab)
    others = {other: item for other, item in entries.items() if other != name}
    if plan.dims is None:
        order = order_of(
            activity,
            others,
            has_time=(bin_width or plan.bin_width) is not None,
            is_numpy=not holdings.is_matlab,
        )
        if order.dims is None:
            example = '["time", "neuron"]' if len(activity.sizes) == 2 else (
                '["neuron", "time", "trial"]')  # fmt: skip
            return replace(
                plan,
                question=f"dims: {order.why} in {name or 'the array'!r}; say it outermost first, "
                f"of trial, time and neuron, e.g. dims {example}",
            )
        plan = replace(plan, dims=order.dims, why={**plan.why, "dims": order.why})
        plan = _with_trials(plan, activity)
    return _with_others(plan, activity, others)


def _with_trials(plan: Plan, activity: Candidate) -> Plan:
    """Tell one long recording from trials that stand one after another."""
    if plan.dims not in (("time", "neuron"), ("neuron", "time")) or plan.trial_bins is not None:
        return plan
    period = activity.periods[plan.dims.index("time")]
    if period is None:
        note = "one long recording, else give trial_bins, the samples of each of its trials"
        return replace(plan, why={**plan.why, "dims": f"{plan.why['dims']}: {note}"})
    reason = f"every {period}th sample sums to 0: trials, of which the mean was taken away"
    return replace(plan, trial_bins=period, why={**plan.why, "trial_bins": reason})


def guessed_plan(
    holdings: Holdings,
    keys: Mapping[str, str],
    dims: Sequence[str] | None,
    bin_width: float | None,
    trial_bins: int | None = None,
) -> Plan:
    """Return what is needed to read a file; a warning tells what of it was guessed.

    Where ``keys`` name the activity nothing is added to them but its axes and width of bins.

    Raises:
        InputError: with the one question that is left.
    """
    check_keys(keys, holdings)
    plan = guess(holdings, keys, dims, bin_width, trial_bins)
    if plan.question:
        raise InputError(plan.question)
    if not {"activity", "spike_times"} & set(plan.keys):
        raise InputError(
            "the file holds nothing that looks like an activity; say which entry is it: keys "
            f"{{activity: NAME}}; it holds {', '.join(map(repr, list(holdings.entries)[:8]))}"
        )
    if {"activity", "spike_times"} & set(keys):
        plan = replace(plan, keys={**keys})
    said = [f"{part} {name!r}" for part, name in plan.keys.items() if part not in keys]
    if plan.dims is not None and dims is None:
        said.append(f"its axes {list(plan.dims)} ({plan.why.get('dims', '')})")
    if plan.trial_bins is not None and trial_bins is None:
        said.append(f"trial_bins {plan.trial_bins} ({plan.why.get('trial_bins', '')})")
    if plan.bin_width is not None and bin_width is None and "bin_width" not in keys:
        said.append(f"bin_width {plan.bin_width:g} s ({plan.why.get('bin_width', '')})")
    if said:
        warnings.warn(
            f"guessed, as not given: {'; '.join(said)}; `seqvae check FILE` tells more",
            stacklevel=4,
        )
    return plan


def _with_width(plan: Plan, entries: Mapping[str, Candidate], bin_width: float | None) -> Plan:
    """Find the width of bins, in seconds or milliseconds, or the rate of samples."""
    if bin_width is not None or "bin_width" in plan.keys:
        return plan
    for part in ("bin_width", "rate"):
        for name, item in sorted(entries.items(), key=lambda one: len(one[0])):
            if item.sizes != () or item.is_text or not says(name, part):
                continue
            value = float(item.labels[0])
            if not np.isfinite(value) or value <= 0:
                continue
            if part == "rate":
                width, why = 1 / value, f"{name!r} says {value:g} samples a second"
            elif value >= _MILLISECONDS:
                width, why = value / 1000, f"{name!r} says {value:g}, taken for milliseconds"
            else:
                width, why = value, f"{name!r} says {value:g}"
            if width < _MILLISECONDS:
                return replace(plan, bin_width=width, keys={**plan.keys},
                               why={**plan.why, "bin_width": why})  # fmt: skip
    return plan


def _with_activity(plan: Plan, entries: Mapping[str, Candidate]) -> Plan:
    columns = _columns(entries)
    if columns:
        why = {part: "a column with an entry for each spike" for part in columns}
        return replace(plan, keys={**plan.keys, **columns}, why={**plan.why, **why})
    layout = _split_layout(entries)
    if layout:
        why = {part: "there is one for each split" for part in layout}
        return replace(plan, keys={**plan.keys, **layout}, why={**plan.why, **why})
    scores = {name: activity_score(item) for name, item in entries.items()}
    scores = {name: score for name, score in scores.items() if score >= 0}
    if not scores:
        return plan
    best = max(scores.values())
    near = [name for name, score in scores.items() if score > best - _NEAR]
    if len(near) > 1:
        listed = ", ".join(f"{name!r} ({described(entries[name].sizes)})" for name in near[:10])
        return replace(
            plan, question=f"keys: which is the activity, {listed}? give keys {{activity: NAME}}"
        )
    facts = "times of spikes" if entries[near[0]].are_times else (
        "counts" if entries[near[0]].facts.are_counts else "numbers")  # fmt: skip
    reason = f"it holds {facts}, {described(entries[near[0]].sizes)}"
    return replace(
        plan, keys={**plan.keys, "activity": near[0]}, why={**plan.why, "activity": reason}
    )


def _columns(entries: Mapping[str, Candidate]) -> dict[str, str]:
    """Find columns of spikes: times, neurons and perhaps trials, of one length."""
    rows = {name: item for name, item in entries.items() if item.is_row and not item.is_text}
    for name, item in rows.items():
        if not says(name, "times") or item.facts.are_whole or item.facts.num_entries < 2:
            continue
        like = {other: one for other, one in rows.items()
                if other != name and one.sizes == item.sizes and one.facts.are_whole}  # fmt: skip
        neurons = [other for other in like if says(other, "neurons")]
        trials = [other for other in like if says(other, "trials")]
        if neurons:
            keys = {"spike_times": name, "spike_neurons": neurons[0]}
            return {**keys, "spike_trials": trials[0]} if trials else keys
    return {}


def _split_layout(entries: Mapping[str, Candidate]) -> dict[str, str]:
    """Find entries of each split: the activity and what is beside it."""
    parts: dict[str, str] = {}
    ranked: dict[str, float] = {}
    for pattern, names in split_patterns(entries).items():
        item = entries[names["train"]]
        if len(item.sizes) == 3:
            ranked[pattern] = activity_score(item)
            if says(pattern, "behavior"):
                parts.setdefault("behavior", pattern)
        elif item.is_row and says(pattern, "condition"):
            parts.setdefault("condition", pattern)
    best = max(ranked, key=lambda pattern: ranked[pattern], default=None)
    if best is None or ranked[best] < 0:
        return {}
    return {"activity": best, **{part: name for part, name in parts.items() if name != best}}


def _with_others(plan: Plan, activity: Candidate, others: Mapping[str, Candidate]) -> Plan:
    """Find what stands beside the activity."""
    assert plan.dims is not None
    size = dict(zip(plan.dims, activity.sizes, strict=False))
    num_neurons = size.get("neuron")
    series_trials = num_trials = size.get("trial", 1)
    bins = size.get("time", 1)
    if plan.trial_bins and bins:
        num_trials = bins // plan.trial_bins
    ragged = [leaf.shape for _, leaf in activity.block.leaves]
    num_bins = max(max(shape) for shape in ragged) if bins is None else bins
    keys, why = dict(plan.keys), dict(plan.why)

    def take(part: str, name: str, reason: str) -> None:
        if part not in keys and name not in keys.values():
            keys[part], why[part] = name, reason

    for name, item in others.items():
        if item.is_row and item.sizes[0] == num_trials and num_trials and num_trials > 1:
            _take_of_trials(name, item, num_bins or 1, take)
        if item.is_row and item.sizes[0] == num_neurons and num_neurons:
            _take_of_neurons(name, item, take)
    if "time" in size and series_trials is not None:
        least = activity_score(activity) - _NEAR
        series = [
            (says(name, "behavior"), name)
            for name, item in others.items()
            if not item.is_text
            and len(item.sizes) >= 1
            and not item.are_times
            and name not in keys.values()
            and says(name, "behavior") + (not item.facts.are_whole) > 0
            and not says(name, "activity")
            and (says(name, "behavior") or activity_score(item) < least)
            and dims_beside(item.sizes, series_trials, num_bins, plan.dims) is not None
        ]
        if series:
            _, name = max(series, key=lambda one: one[0])
            more = f"; so have {', '.join(repr(n) for _, n in series if n != name)}"
            take("behavior", name, "it has the trials and times of the activity"
                 + (more[:200] if len(series) > 1 else ""))  # fmt: skip
    return replace(plan, keys=keys, why=why)


def _take_of_trials(name: str, item: Candidate, num_bins: int, take: object) -> None:
    assert callable(take)
    if says(name, "split") and item.is_text:
        words = split_words(item.labels)
        if np.isin(words, SPLITS).all():
            take("split", name, "it holds the words train, val and test, one a trial")
        return
    is_length = not item.is_text and item.facts.are_whole and item.facts.least >= 1
    if says(name, "lengths") and is_length and item.facts.largest <= num_bins:
        take("lengths", name, "it holds a number of bins for each trial")
    elif says(name, "condition"):
        take("condition", name, "it holds a label for each trial")
    elif says(name, "trials") and len(np.unique(item.labels)) == len(item.labels):
        take("trial_ids", name, "it holds a name for each trial")


def _take_of_neurons(name: str, item: Candidate, take: object) -> None:
    assert callable(take)
    is_mask = not item.is_text and item.facts.are_whole and item.facts.least >= 0
    is_mask = is_mask and item.facts.largest <= 1
    if is_mask and says(name, "heldout"):
        take("heldout", name, "it says of each neuron whether it is held out")
    elif is_mask and says(name, "heldin"):
        take("heldin", name, "it says of each neuron whether it is held in")
    elif says(name, "neuron_ids") and len(np.unique(item.labels)) == len(item.labels):
        take("neuron_ids", name, "it holds a name for each neuron")
