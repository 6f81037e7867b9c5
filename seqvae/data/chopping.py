"""Long recordings chopped into windows that may overlap, and what is known of windows merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqvae.data.lazy import LazyActivity
from seqvae.data.recording import Recording
from seqvae.data.validation import check_number, check_whole
from seqvae.errors import InputError


@dataclass(frozen=True, eq=False)
class Chopped:
    """Windows of a recording, in the order of time.

    Attributes:
        recording: a trial for each window; its activity is read from that of the recording, of
            which nothing is copied.
        trial: the trial of the recording that each window lies in.
        start: the first bin of each window in that trial.
        ramp: bins over which a window is faded in and out.
        num_bins: bins of each trial of the recording.
        start_times: seconds at which each of them begins, where that is known.
    """

    recording: Recording
    trial: Int[np.ndarray, " window"]
    start: Int[np.ndarray, " window"]
    ramp: int
    num_bins: Int[np.ndarray, " trial"]
    start_times: Float[np.ndarray, " trial"] | None

    def merge(
        self,
        means: Float[np.ndarray, "window time ..."],
        sds: Float[np.ndarray, "window time ..."] | None = None,
    ) -> tuple[Float[np.ndarray, "trial bin ..."], Float[np.ndarray, "trial bin ..."]]:
        """Cross-fade what is known of the bins of windows; see ``CrossFade``.

        Args:
            means: of each bin of each window.
            sds: standard deviations; None: 0.

        Returns:
            Means and standard deviations of each bin of each trial of the recording, NaN where no
            window is.
        """
        rest = means.shape[2:]
        merged = np.full((2, len(self.num_bins), int(self.num_bins.max()), *rest), np.nan)
        sds = np.zeros_like(means) if sds is None else sds
        lengths = self.recording.lengths
        for trial in np.unique(self.trial):
            fade = CrossFade(self.ramp)
            pieces = [
                piece
                for window in np.flatnonzero(self.trial == trial)
                for piece in fade.add(
                    int(self.start[window]),
                    int(lengths[window]),
                    {"": Moments(means[window], sds[window])},
                )
            ]
            for piece in [*pieces, *fade.rest()]:
                place = slice(piece.start, piece.start + len(piece.moments[""].mean))
                merged[0, trial, place], merged[1, trial, place] = piece.moments[""]
        return merged[0], merged[1]


def chop(recording: Recording, window_bins: int, *, overlap: float = 0.0) -> Chopped:
    """Chop each trial of a recording into windows of one length.

    Windows follow each other by ``window_bins * (1 - overlap)`` bins; the last one ends with the
    trial, so it may overlap more. A shorter trial is one window. Windows in which nothing was
    observed are left out. They are no trials to be split at random, since they share bins.

    Args:
        recording: one long trial, or several.
        window_bins: bins of a window.
        overlap: share of a window that the next one has, too; from 0 to below 1.

    Raises:
        InputError: for such settings out of range.
    """
    check_whole("window_bins", window_bins, least=1)
    check_number("overlap", overlap, "a share of a window, from 0 to below 1")
    if not 0 <= overlap < 1:
        raise InputError(f"overlap must be from 0 to below 1, a share of a window, got {overlap:g}")
    hop = max(1, round(window_bins * (1 - overlap)))
    lengths = recording.lengths
    trials, starts = [], []
    for index, length in enumerate(lengths.tolist()):
        last = max(0, length - window_bins)
        places = [*range(0, last, hop), last]
        trials += [index] * len(places)
        starts += places
    trial, start = np.array(trials), np.array(starts)
    stop = np.minimum(start + window_bins, lengths[trial])
    activity = recording.activity
    lazy = activity if isinstance(activity, LazyActivity) else LazyActivity(activity)
    lazy.is_checked = True
    views = lazy.cut(trial, list(zip(start.tolist(), stop.tolist(), strict=True)))
    seen = np.flatnonzero(views.lengths > 0)
    windows = _windows(recording, trial[seen], start[seen], activity=views.take(seen))
    return Chopped(
        windows,
        trial[seen],
        start[seen],
        window_bins - hop,
        lengths,
        recording.start_times,
    )


def _windows(
    recording: Recording,
    trial: Int[np.ndarray, " window"],
    start: Int[np.ndarray, " window"],
    *,
    activity: LazyActivity,
) -> Recording:
    """Return windows as trials, each named by its first bin, and its trial if there are several."""
    bins = start[:, None] + np.arange(activity.shape[1])
    beyond = bins >= recording.num_time_bins
    place = trial[:, None], np.where(beyond, 0, bins)

    def cut(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        pieces = values[place]
        pieces[beyond] = np.nan
        return pieces

    ids = start
    if recording.num_trials > 1:
        assert recording.trial_ids is not None
        names = recording.trial_ids[trial]
        ids = np.array([f"{one}/{first}" for one, first in zip(names, start, strict=True)])
    condition, begins, width = recording.condition, recording.start_times, recording.bin_width
    segments, sessions = recording.segment_ids, recording.trial_sessions
    if begins is not None:
        begins = None if width is None else begins[trial] + width * start
    return recording.changed(
        activity=activity,
        inputs=cut(recording.inputs),
        behavior=cut(recording.behavior),
        rates=cut(recording.rates),
        condition=None if condition is None else condition[trial],
        trial_ids=ids,
        split=None,
        num_encoded_bins=None,
        start_times=begins,
        event_times=None,
        segment_ids=None if segments is None else segments[trial],
        trial_sessions=None if sessions is None else sessions[trial],
    )


class Moments(NamedTuple):
    """Mean and standard deviation of each bin."""

    mean: Float[np.ndarray, "time ..."]
    sd: Float[np.ndarray, "time ..."]


class Piece(NamedTuple):
    """Bins of which all is known, from ``start`` on."""

    start: int
    moments: dict[str, Moments]


class CrossFade:
    """Moments of overlapping windows as those of their mixture, bin by bin, as windows come.

        m_t = sum_i w_it m_it / sum_i w_it,
        v_t = sum_i w_it (s_it^2 + (m_it - m_t)^2) / sum_i w_it,

    w_it rising over ``ramp`` bins from the edges of window i, where a model knows least. Only the
    bins that windows to come may reach are held.

    Args:
        ramp: bins, those that windows share.
    """

    def __init__(self, ramp: int) -> None:
        self._ramp = ramp + 1
        self._start = 0
        self._weight = np.zeros(0)
        self._sums: dict[str, Moments] = {}  # running mean, and sum of weighted squares about it

    def add(self, start: int, num_bins: int, values: Mapping[str, Moments]) -> Iterator[Piece]:
        """Add a window that does not begin before the last one.

        Args:
            start: its first bin.
            num_bins: its bins; what is given of more is not read.
            values: by name.

        Yields:
            Bins that no later window reaches, if any.
        """
        yield from self._until(start)
        if not len(self._weight):
            self._start = start
        here = slice(start - self._start, start - self._start + num_bins)
        lacking = max(0, here.stop - len(self._weight))
        self._weight = np.pad(self._weight, (0, lacking))
        bins = np.arange(num_bins)
        weight = np.minimum(np.minimum(bins + 1, num_bins - bins), self._ramp) / self._ramp
        self._weight[here] += weight
        for name, (mean, sd) in values.items():
            mean, sd = (part[:num_bins].astype(np.float64) for part in (mean, sd))
            if name not in self._sums:
                empty = np.zeros((len(self._weight) - lacking, *mean.shape[1:]))
                self._sums[name] = Moments(empty, empty.copy())
            pad = ((0, lacking), *[(0, 0)] * (mean.ndim - 1))
            running, square = (np.pad(part, pad) for part in self._sums[name])
            column = (slice(None), *[None] * (mean.ndim - 1))
            share = (weight / self._weight[here])[column]
            apart = mean - running[here]  # West 1979
            running[here] += share * apart
            square[here] += weight[column] * (sd**2 + apart * (mean - running[here]))
            self._sums[name] = Moments(running, square)

    def rest(self) -> Iterator[Piece]:
        """Yield the last bins, when no window comes any more."""
        yield from self._until(self._start + len(self._weight))

    def _until(self, stop: int) -> Iterator[Piece]:
        """Yield and forget the bins before ``stop``."""
        count = min(stop - self._start, len(self._weight))
        if count <= 0:
            return
        moments = {}
        for name, (mean, square) in self._sums.items():
            weight = self._weight[:count].reshape(-1, *[1] * (mean.ndim - 1))
            moments[name] = Moments(mean[:count], np.sqrt(square[:count] / weight))
            self._sums[name] = Moments(mean[count:], square[count:])
        self._weight = self._weight[count:]
        self._start += count
        yield Piece(self._start - count, moments)
