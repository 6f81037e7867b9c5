"""The trials of an NWB file: where each begins, how long it is, and to which split it belongs."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from seqvae.data.sources.nwb_table import Table
from seqvae.data.splits import SPLIT_WORDS, split_words
from seqvae.errors import InputError

_HAIR = 1e-6  # of a bin
_OUTLYING = 100  # times as long as usual
_MANY = 10_000_000  # bins


class Trials(NamedTuple):
    """Trials as bins.

    Attributes:
        starts: of the first bin of each, in seconds.
        lengths: bins of each.
        ids: names.
        split: "train", "val" or "test" for each, where the file tells.
        condition: where it was asked for.
        event_time: seconds from the start to the event, where there is one.
    """

    starts: Float[np.ndarray, " trial"]
    lengths: Int[np.ndarray, " trial"]
    ids: Shaped[np.ndarray, " trial"] | None = None
    split: Shaped[np.ndarray, " trial"] | None = None
    condition: Shaped[np.ndarray, " trial"] | None = None
    event_time: float | None = None

    @property
    def num_bins(self) -> int:
        """Bins of the longest."""
        return int(self.lengths.max())

    @property
    def padding(self) -> Bool[np.ndarray, "trial time"]:
        """Which bins lie past the end of a trial."""
        return np.arange(self.num_bins) >= self.lengths[:, None]

    def those(self, chosen: Bool[np.ndarray, " trial"]) -> Trials:
        """Return some of the trials."""
        if chosen.all():
            return self
        starts, lengths, *labels, event_time = self
        ids, split, condition = (None if each is None else each[chosen] for each in labels)
        return Trials(starts[chosen], lengths[chosen], ids, split, condition, event_time)


def read_trials(
    table: Table,
    *,
    align_to: str | None,
    window: tuple[float, float],
    bin_width: float,
    split: str | None,
    condition: str | list[str] | None,
) -> Trials:
    """Read the trials of a table; what cannot be taken is left out, and told.

    Args:
        table: of trials.
        align_to: column of the event; None: whole trials.
        window: seconds around the event.
        bin_width: seconds.
        split: column of the split; None: none.
        condition: columns of the condition; None: none.

    Raises:
        InputError: for columns that are not there, and if no trial is left.
    """
    if align_to is None:
        starts, stops = (_seconds(table, name) for name in ("start_time", "stop_time"))
        sizes = np.floor((stops - starts) / bin_width + _HAIR)
        there, lacking = np.isfinite(starts) & (sizes >= 1), "start, or fill no bin"
        event_time = None
    else:
        events = _seconds(table, align_to)
        there, lacking = np.isfinite(events), f"{align_to}"
        starts, event_time = events + window[0], -float(window[0])
        sizes = np.full(len(events), float(_bins_of(window, bin_width)))
    if not there.any():
        raise InputError(f"align_to: none of the {len(there)} trials has {lacking}; name another")
    if not there.all():
        warnings.warn(
            f"{(~there).sum()} of {len(there)} trials have no {lacking}; they are left out",
            stacklevel=4,
        )
    _check_lengths(sizes[there], table.ids[there], bin_width)
    trials = Trials(
        starts,
        np.where(there, np.nan_to_num(sizes), 0).astype(np.int64),
        table.ids,
        None if split is None else _split(table, split),
        None if condition is None else _condition(table, condition),
        event_time,
    ).those(there)
    if trials.split is not None and "none" in trials.split:
        used = trials.split != "none"
        if not used.any():
            raise InputError(f"split: column {split!r} assigns no trial; give split: null")
        warnings.warn(
            f"{(~used).sum()} of {len(used)} trials are of no split; they are left out",
            stacklevel=4,
        )
        trials = trials.those(used)
    _warn_of_overlap(trials, bin_width)
    return trials


def span(table: Table) -> tuple[float, float] | None:
    """Return the first and the last time of a table of intervals."""
    times = [table.column(name, field="trials") for name in ("start_time", "stop_time")]
    known = np.concatenate([each[np.isfinite(each)] for each in times if each.dtype.kind in "iuf"])
    return (float(known.min()), float(known.max())) if len(known) else None


def _seconds(table: Table, name: str) -> Float[np.ndarray, " trial"]:
    if name not in table:
        times = [column for column in table.names if column.endswith("_time")] or table.names
        raise InputError(
            f"align_to: {table.name} have no column {name!r}; name one of "
            f"{', '.join(times[:10])}, or null for whole trials"
        )
    values = table.column(name, field="align_to")
    if values.dtype.kind not in "iuf":
        raise InputError(f"align_to: column {name!r} of {table.name} holds no times in seconds")
    return values.astype(np.float64)


def _bins_of(window: tuple[float, float], bin_width: float) -> int:
    start, stop = window
    bins = (stop - start) / bin_width
    if abs(bins - round(bins)) > 1e-6 * max(bins, 1.0) or round(bins) < 1:
        fitting = start + max(round(bins), 1) * bin_width
        raise InputError(
            f"window is {stop - start:g} s long, no whole number of bins of {bin_width:g} s; take "
            f"[{start:g}, {fitting:g}]"
        )
    return round(bins)


def _check_lengths(
    sizes: Float[np.ndarray, " trial"], ids: Shaped[np.ndarray, " trial"], bin_width: float
) -> None:
    """Refuse a trial that is so long that its end cannot be meant."""
    longest = int(np.argmax(sizes))
    usual = float(np.median(sizes))
    if sizes[longest] * len(sizes) > _MANY and sizes[longest] > _OUTLYING * usual:
        raise InputError(
            f"trials: trial {ids[longest]} is {sizes[longest] * bin_width:.3g} s long, half of "
            f"them less than {usual * bin_width:.3g} s; mend its stop_time, or give align_to"
        )


def _split(table: Table, name: str) -> Shaped[np.ndarray, " trial"]:
    """Return train, val, test or none for each trial."""
    values = table.column(name, field="split")
    splits = split_words(values)
    for text, split in zip(values.tolist(), splits.tolist(), strict=True):
        if split not in SPLIT_WORDS:
            raise InputError(
                f"split: column {name!r} of {table.name} holds {text!r}, which is none of train, "
                "val, test and validation; write these, or give split: null for a random split"
            )
    return splits


def _condition(table: Table, names: str | list[str]) -> Shaped[np.ndarray, " trial"]:
    chosen = [names] if isinstance(names, str) else names
    columns = [table.column(name, field="condition") for name in chosen]
    if len(columns) == 1:
        return columns[0]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return np.array([" ".join(map(str, row)) for row in rows])


def _warn_of_overlap(trials: Trials, bin_width: float) -> None:
    order = np.argsort(trials.starts, kind="stable")
    starts, stops = trials.starts[order], (trials.starts + trials.lengths * bin_width)[order]
    early = np.flatnonzero(starts[1:] < np.maximum.accumulate(stops)[:-1] - _HAIR * bin_width)
    if len(early):
        one, other = (order[early[0]], order[early[0] + 1])
        ids = trials.ids if trials.ids is not None else np.arange(len(order))
        warnings.warn(
            f"{len(early)} of {len(starts)} trials begin before another ends, the first are "
            f"{ids[one]} and {ids[other]}; what they share is in both, be it of training or test",
            stacklevel=5,
        )
