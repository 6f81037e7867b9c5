"""One session in memory, validated once at the door."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Shaped

from seqvae.data.assembly import SERIES, assembled
from seqvae.data.containers import ArrayLike
from seqvae.data.facts import recording_html, recording_text
from seqvae.data.lazy import LazyActivity, as_lazy
from seqvae.data.lazy_checks import add_to, check_lazy
from seqvae.data.neurons import Positions
from seqvae.data.oddities import warn_of_odd_entries, warn_of_odd_neurons
from seqvae.data.padding import warn_of_silent_ends
from seqvae.data.timing import as_event_times, as_name, as_start_times, bin_centres
from seqvae.data.validation import (
    as_bin_width,
    as_encoded_bins,
    as_image_shape,
    as_labels,
    as_neuron_ids,
    as_series,
    as_split,
    check_activity,
    check_neurons,
    check_series,
    pad_trials,
    trial_lengths,
)
from seqvae.errors import InputError

if TYPE_CHECKING:
    _Array: TypeAlias = np.ndarray
    _Text: TypeAlias = str
else:  # any container is taken, and laid out as an array
    _Array: TypeAlias = Any
    _Text: TypeAlias = Any

_LATER = (
    *("start_times", "event_times", "event_name", "segment_ids", "session_id"),
    *("trial_sessions", "neuron_sessions"),
)
_PER_TRIAL = (
    *("activity", "inputs", "behavior", "condition", "rates", "trial_ids", "split"),
    *("start_times", "event_times", "segment_ids", "trial_sessions"),
)


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """Activity of neurons (or any channels) in trials, and what was recorded beside it.

    Every array is copied, converted and made read-only; it may come in any container: lists of
    trials, masked and sparse arrays, tensors, tables, DataArrays. Counts of any numeric type become
    float32, exactly; large ones of 8 or 16 bits when they are read (``seqvae.data.lazy``).
    Names along the axes of a table or DataArray become ``neuron_ids`` and
    ``trial_ids``, and the other arguments follow them. Trailing bins in which all neurons are NaN
    are padding.

    Attributes:
        activity: (trial, time, neuron) counts or real values per bin; NaN = missing.
        bin_width: seconds per bin; None for data without time (images).
        inputs: (trial, time, input) external inputs, known in every bin of a trial; they have no
            names, so a fitted model takes them by position.
        behavior: (trial, time, dimension) on the same time axis; NaN = missing.
        condition: (trial,) numbers or texts.
        rates: (trial, time, neuron) the true rates in Hz, where the data are simulated.
        neuron_ids: (neuron,) names of the neurons, by which a fitted model knows them again; by
            default 0, 1, ..., and then by position.
        trial_ids: (trial,) names of the trials, by default 0, 1, ...
        split: (trial,) "train", "val" or "test", where the file says so.
        heldin: indices of the neurons that inference may see, where the file says so.
        num_encoded_bins: bins that inference may see, where the file says so.
        image_shape: (height, width) where each bin is an image, its pixels row by row.
        start_times: (trial,) seconds on the clock of the session at which the first bin begins.
        event_times: (trial,) seconds from there to the event of the trial, NaN = no event; one
            number stands for all trials. Where all are alike, they are the zero of ``times``.
        event_name: what the event is.
        segment_ids: (trial,) names of the stretches of unbroken recording that trials lie in.
        session_id: name of the session.
        trial_sessions: (trial,) names of the sessions, where there are several (``Sessions``).
        neuron_sessions: (neuron,) in which of them each neuron was recorded.

    Raises:
        InputError: in one sentence with field, first offending index or value, and cure.
    """

    activity: _Array
    bin_width: float | None = None
    inputs: _Array | None = None
    behavior: _Array | None = None
    condition: _Array | None = None
    rates: _Array | None = None
    neuron_ids: _Array | None = None
    trial_ids: _Array | None = None
    split: _Array | None = None
    heldin: _Array | None = None
    num_encoded_bins: int | None = None
    image_shape: tuple[int, int] | None = None
    start_times: _Array | None = None
    event_times: _Array | None = None
    event_name: _Text | None = None
    segment_ids: _Array | None = None
    session_id: _Text | None = None
    trial_sessions: _Array | None = None
    neuron_sessions: _Array | None = None

    def __post_init__(self) -> None:
        for name, value in assembled({f.name: getattr(self, f.name) for f in fields(self)}).items():
            object.__setattr__(self, name, value)
        lazy = as_lazy(self.activity)
        for name in SERIES if lazy is not None else ("activity", *SERIES):
            self._keep(name, as_series(name, getattr(self, name)))
        if lazy is None:
            check_activity(self.activity)
        num_trials, num_time_bins, num_neurons = self.activity.shape
        self._keep("bin_width", as_bin_width(self.bin_width, num_time_bins))
        for name in SERIES:
            if (values := getattr(self, name)) is not None:
                check_series(name, values, self.shape, self.lengths)
        per_trial = ("condition", "trial_ids", "segment_ids", "trial_sessions")
        for name in (*per_trial, "neuron_sessions"):
            count = num_trials if name in per_trial else num_neurons
            self._keep(name, as_labels(name, getattr(self, name), count))
        ids = self.neuron_ids
        ids = Positions.of(num_neurons) if ids is None else as_neuron_ids(ids, num_neurons)
        self._keep("neuron_ids", ids)
        self._keep("split", as_split(self.split, num_trials))
        if self.heldin is not None:
            self._keep("heldin", check_neurons("heldin", self.heldin, num_neurons))
        self._keep("num_encoded_bins", as_encoded_bins(self.num_encoded_bins, num_time_bins))
        self._keep("image_shape", as_image_shape(self.image_shape, num_neurons))
        self._keep("start_times", as_start_times(self.start_times, num_trials))
        self._keep("event_times", as_event_times(self.event_times, num_trials))
        for name in ("event_name", "session_id"):
            self._keep(name, as_name(name, getattr(self, name)))
        assert self.neuron_ids is not None
        if lazy is not None:
            check_lazy(lazy, self.neuron_ids)
        elif self.bin_width is not None or num_time_bins > 1:  # in images dark pixels are usual
            warn_of_odd_neurons(self.activity, self.neuron_ids)
            warn_of_odd_entries(self.activity)
            warn_of_silent_ends(self.activity)

    @classmethod
    def from_trials(
        cls,
        activity: ArrayLike,
        bin_width: float | None = None,
        *,
        inputs: ArrayLike = None,
        behavior: ArrayLike = None,
        rates: ArrayLike = None,
        condition: ArrayLike = None,
        neuron_ids: ArrayLike = None,
        trial_ids: ArrayLike = None,
        split: ArrayLike = None,
        heldin: ArrayLike = None,
        num_encoded_bins: int | None = None,
    ) -> Recording:
        """Make a recording of trials of unequal length, padded with NaN to the longest.

        ``activity``, ``inputs``, ``behavior`` and ``rates`` are lists with one (time_i, channel)
        array per trial.
        """
        return cls(
            activity,
            bin_width,
            inputs=inputs,
            behavior=behavior,
            rates=rates,
            condition=condition,
            neuron_ids=neuron_ids,
            trial_ids=trial_ids,
            split=split,
            heldin=heldin,
            num_encoded_bins=num_encoded_bins,
        )

    @property
    def neuron_names(self) -> Shaped[np.ndarray, " neuron"] | None:
        """The ids of the neurons where they were given; None where they are positions alone."""
        return None if isinstance(self.neuron_ids, Positions) else self.neuron_ids

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sizes of the axes (trial, time, neuron)."""
        num_trials, num_time_bins, num_neurons = self.activity.shape
        return num_trials, num_time_bins, num_neurons

    @property
    def num_trials(self) -> int:
        """Number of trials."""
        return self.activity.shape[0]

    @property
    def num_time_bins(self) -> int:
        """Bins of the longest trial."""
        return self.activity.shape[1]

    @property
    def num_neurons(self) -> int:
        """Number of neurons, held-in and held-out."""
        return self.activity.shape[2]

    @property
    def num_inputs(self) -> int:
        """Number of external inputs, 0 if there are none."""
        return 0 if self.inputs is None else self.inputs.shape[2]

    @property
    def lengths(self) -> Int[np.ndarray, " trial"]:
        """Bins of each trial up to the last one in which anything was observed."""
        lazy = as_lazy(self.activity)
        return trial_lengths(self.activity) if lazy is None else lazy.lengths

    @property
    def times(self) -> Float64[np.ndarray, " time"] | None:
        """Centres of the bins in seconds from the event, where it is in the same bin throughout."""
        return bin_centres(self.event_times, self.bin_width, self.num_time_bins)

    @property
    def checksum(self) -> str:
        """SHA-256 (hexadecimal) over every field; those that came later count where they are."""
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None or field.name not in _LATER:
                add_to(digest, field.name, value)
        return digest.hexdigest()

    def read(
        self,
        trials: Int[np.ndarray, " chosen"] | list[int] | None = None,
        neurons: Int[np.ndarray, " some"] | None = None,
    ) -> Float32[np.ndarray, "chosen time some"]:
        """Return the activity of some trials, in the given order; None: of all; so of neurons.

        The package reads ``activity`` outside ``seqvae.data`` by this way alone.
        """
        activity: Any = self.activity if trials is None else self.activity[self._index(trials)]
        if neurons is not None:
            lazy = isinstance(activity, LazyActivity)
            activity = activity.neurons(neurons) if lazy else activity[..., neurons]
        return np.asarray(activity)

    def select(self, trials: Int[np.ndarray, " chosen"] | list[int]) -> Recording:
        """Return the recording of some trials, in the given order."""
        index = self._index(trials)
        if index.size == 0:
            raise InputError(
                f"trials: got an empty list; give indices from 0 to {self.num_trials - 1}"
            )
        chosen = copy.copy(self)
        for name in _PER_TRIAL:
            value = getattr(self, name)
            if value is not None:
                chosen._keep(name, value[index])
        return chosen

    def arrange(self, neurons: Int[np.ndarray, " neuron"]) -> Recording:
        """Return the recording with its neurons in another order, each of them once."""
        chosen = copy.copy(self)
        for name in ("activity", "rates", "neuron_ids", "neuron_sessions"):
            values = getattr(self, name)
            if isinstance(values, LazyActivity):
                chosen._keep(name, values.neurons(neurons))
            elif values is not None:
                chosen._keep(name, np.ascontiguousarray(values[..., neurons]))
        if self.heldin is not None:
            chosen._keep("heldin", np.flatnonzero(np.isin(neurons, self.heldin)))
        chosen._keep("image_shape", None)
        return chosen

    def _index(self, trials: Any) -> Int[np.ndarray, " chosen"]:
        """Return indices of trials as an array.

        Raises:
            InputError: for anything but a list of whole numbers of trials that there are.
        """
        index = np.asarray(trials)
        index = index.astype(np.int64) if index.size == 0 else index
        valid = f"give indices from 0 to {self.num_trials - 1}"
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise InputError(f"trials: got {trials!r}; {valid}")
        outside = (index < 0) | (index >= self.num_trials)
        if outside.any():
            raise InputError(f"trials: got {index[outside][0]}; {valid}")
        return index.astype(np.int64)

    def cut(self, pieces: Sequence[tuple[int, int]]) -> Recording:
        """Return pieces of one long trial as trials, each named by its first bin.

        Args:
            pieces: first bin, and the bin after the last, of each piece.
        """
        chosen = copy.copy(self)
        for name in ("activity", *SERIES):
            values = getattr(self, name)
            if isinstance(values, LazyActivity):
                chosen._keep(name, values.cut(0, pieces))
            elif values is not None:
                chosen._keep(name, pad_trials([values[0, slice(*piece)] for piece in pieces]))
        for name in ("condition", "segment_ids", "trial_sessions"):
            if getattr(self, name) is not None:
                chosen._keep(name, np.repeat(getattr(self, name), len(pieces)))
        begins = np.array([start for start, _ in pieces])
        chosen._keep("trial_ids", begins)
        for name, sign in (("start_times", 1), ("event_times", -1)):
            values, width = getattr(self, name), self.bin_width
            if values is not None:  # nobody knows when a bin without a width begins
                chosen._keep(name, None if width is None else values + sign * width * begins)
        chosen._keep("num_encoded_bins", None)
        return chosen

    def hide(self, entries: Bool[np.ndarray, "trial time neuron"]) -> Recording:
        """Return the recording with some entries missing, as for a test of predicting them."""
        chosen = copy.copy(self)
        chosen._keep("activity", np.where(entries, np.float32(np.nan), self.activity))
        return chosen

    def encode(self, num_bins: int) -> Recording:
        """Return the recording with another number of bins that inference may see."""
        chosen = copy.copy(self)
        chosen._keep("num_encoded_bins", as_encoded_bins(num_bins, self.num_time_bins))
        return chosen

    def changed(self, **others: Any) -> Recording:
        """Return the recording with other fields, which are taken as they are: of a transform."""
        chosen = copy.copy(self)
        for name, value in others.items():
            assert hasattr(self, name), name
            chosen._keep(name, value)
        return chosen

    __repr__ = recording_text
    _repr_html_ = recording_html

    def _keep(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
        object.__setattr__(self, name, value)
