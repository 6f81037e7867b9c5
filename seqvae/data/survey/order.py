"""Which axis of the activity is which, by the sizes of what stands beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations

from seqvae.data.sources.dims import AXES, described
from seqvae.data.survey.candidates import Candidate
from seqvae.data.survey.words import says

_SMOOTHER = 0.3
_MOST_REASONS = 3
_LONG = 2.0  # times as long as the other axis is an axis of time


@dataclass(frozen=True)
class Order:
    """The axes of the activity.

    Attributes:
        dims: names, outermost first; None where nothing tells them.
        why: what tells them.
    """

    dims: tuple[str, ...] | None
    why: str


def order_of(
    activity: Candidate, others: Mapping[str, Candidate], *, has_time: bool, is_numpy: bool
) -> Order:
    """Tell the axes of the activity.

    Args:
        activity: the entry.
        others: what stands beside it.
        has_time: whether the width of bins is known, so that there is time.
        is_numpy: whether the format has an order that is usual: trial, time, neuron.
    """
    sizes = activity.sizes
    ways = list(_ways(activity))
    marks = {way: _evidence(way, activity, others.values()) for way in ways}
    for way in ways:
        if is_numpy and way == AXES:
            marks[way].append((1.0, "that is the usual order"))
        if len(sizes) == 2 and set(way) == {"time", "neuron"} and has_time:
            long, short = (sizes[way.index(axis)] for axis in ("time", "neuron"))
            if long and short and long > _LONG * short:
                marks[way].append((1.0, "the longer axis is taken for time"))
    ranked = sorted(ways, key=lambda way: -sum(weight for weight, _ in marks[way]))
    totals = [sum(weight for weight, _ in marks[way]) for way in ranked]
    if not ranked:
        return Order(None, f"{described(sizes)} are no axes of an activity")
    if (len(ranked) > 1 and totals[0] - totals[1] < 0.5) or totals[0] < 0.5:
        hint = "" if has_time or len(sizes) != 2 else ", though with bin_width the longer is time"
        return Order(None, f"nothing tells which axis of {described(sizes)} is which{hint}")
    reasons = list(dict.fromkeys(why for _, why in marks[ranked[0]]))
    return Order(ranked[0], ", ".join(reasons[:_MOST_REASONS]))


def _ways(activity: Candidate) -> Iterable[tuple[str, ...]]:
    sizes, cells = activity.sizes, activity.block.num_cell_axes
    if activity.are_times:
        yield from ([("neuron",)] if cells == 1 else [])
        if cells == 2:
            is_nest = sizes[1] is None
            yield from [("neuron", "neuron")] if is_nest else [("neuron", "trial")]
            yield ("trial", "neuron")
        return
    for way in permutations(AXES, len(sizes)):
        if "neuron" not in way:
            continue
        ragged = [axis for axis, size in zip(way, sizes, strict=True) if size is None]
        if ragged not in ([], ["time"]) or "time" in way[:cells]:
            continue
        if len(sizes) == 3 or cells == 0 or way[:1] != ("time",):
            yield way


def _evidence(
    way: tuple[str, ...], activity: Candidate, others: Iterable[Candidate]
) -> list[tuple[float, str]]:
    size = dict(zip(way, activity.sizes, strict=False))
    marks: list[tuple[float, str]] = []
    if activity.are_times and way == ("neuron",):
        marks.append((1.0, "each cell is a neuron's times"))
    if way == ("neuron", "neuron"):
        marks.append((1.0, "cells that nest unequally are neurons"))
    if None in size.values() and "time" in size:
        marks.append((4.0, "trials are unequal in time alone"))
    if way[0] == "trial" and activity.block.num_cell_axes == 1 and not activity.are_times:
        marks.append((2.0, "a cell is a trial"))
    if way in (("time", "neuron"), ("neuron", "time")) and activity.periods[way.index("time")]:
        period = activity.periods[way.index("time")]
        marks.append((3.0, f"every {period}th of them sum to 0"))
    for other in others:
        if other.is_row:
            for axis, parts in (
                ("trial", ("condition", "split", "lengths", "trials")),
                ("neuron", ("neuron_ids", "heldout", "heldin")),
            ):
                said = any(says(other.name, part) for part in parts)
                against = any(says(other.name, part) for part in ("neurons", "heldout")) != (
                    axis == "neuron"
                )
                if said and not against and other.sizes[0] == size.get(axis):
                    marks.append((3.0, f"{other.name!r} has an entry for each {axis}"))
        if len(other.sizes) == len(way) and other.is_series and not activity.are_times:
            fits = [i for i, (a, b) in enumerate(zip(other.sizes, activity.sizes, strict=True))
                    if a != b]  # fmt: skip
            if fits == [way.index("neuron")]:
                marks.append((1.5, f"{other.name!r} has the same trials and times"))
                if {"trial", "time"} <= set(way) and not other.facts.num_missing:
                    smooth = dict(zip(way, other.smoothness, strict=True))
                    if smooth["time"] - smooth["trial"] > _SMOOTHER:
                        marks.append((1.0, f"{other.name!r} goes on smoothly in time"))
        in_time = other.sizes and says(other.name, "behavior") and "trial" not in size
        if in_time and other.sizes[0] == size.get("time"):
            marks.append((2.0, f"{other.name!r} has the same times"))
    return marks
