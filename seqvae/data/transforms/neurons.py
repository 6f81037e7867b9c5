"""Some of the neurons: by rate, by name, by a condition, and of duplicates one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from seqvae.data.lazy import LazyActivity, parts
from seqvae.data.recording import Recording
from seqvae.data.transforms.base import Transform
from seqvae.data.transforms.query import chosen_by
from seqvae.data.validation import check_number
from seqvae.errors import InputError, nearest


def select_neurons(
    recording: Recording,
    *,
    min_rate: float | None = None,
    ids: list[int | str] | None = None,
    query: str | None = None,
    trials: Int[np.ndarray, " chosen"] | list[int] | None = None,
) -> Recording:
    """Return the recording with those of its neurons that meet all that is asked.

    Args:
        recording: any.
        min_rate: least mean rate, in Hz (of real values: least mean).
        ids: names of neurons, in the order in which they come; without names their positions.
        query: a condition on ``id``, ``rate`` and ``position``, e.g. "rate > 1 and id != 7".
        trials: those in which rates are counted; None: all.

    Raises:
        InputError: for an unknown name or condition, or if no neuron is left.
    """
    chosen = np.arange(recording.num_trials) if trials is None else np.asarray(trials)
    return SelectNeurons(min_rate=min_rate, ids=ids, query=query).learned(recording, chosen)(
        recording
    )


def drop_duplicates(
    recording: Recording,
    correlation: float = 0.5,
    *,
    trials: Int[np.ndarray, " chosen"] | list[int] | None = None,
) -> Recording:
    """Return the recording with one of each pair of neurons that fire in the same bins.

    See ``DropDuplicates``. To be done in narrow bins, before ``rebin``.

    Args:
        recording: any.
        correlation: above which two neurons are taken for one.
        trials: those of which correlations are taken; None: all.
    """
    chosen = np.arange(recording.num_trials) if trials is None else np.asarray(trials)
    return DropDuplicates(correlation).learned(recording, chosen)(recording)


@dataclass(frozen=True)
class SelectNeurons(Transform):
    """Some of the neurons; see ``select_neurons``. Rates are counted in training trials alone."""

    min_rate: float | None = None
    ids: list[int | str] | None = None
    query: str | None = None

    @property
    def learns(self) -> bool:
        """Whether rates are asked for."""
        return self.min_rate is not None or self.query is not None

    def learned(self, recording: Recording, trials: Int[np.ndarray, " chosen"]) -> SelectNeurons:
        """Return the transform that takes the same neurons by name."""
        if not self.learns:
            return self
        names = recording.neuron_ids
        assert names is not None
        meets = np.ones(recording.num_neurons, dtype=bool)
        if self.ids is not None:
            meets[:] = False
            meets[_columns(recording, self.ids)] = True
        rate = _mean(recording, trials) / (recording.bin_width or 1.0)
        if self.min_rate is not None:
            check_number("select_neurons.min_rate", self.min_rate)
            meets &= rate >= self.min_rate
        if self.query is not None:
            columns = {"id": names, "rate": rate, "position": np.arange(len(names))}
            meets &= chosen_by(self.query, columns, field="select_neurons.query")
        if not meets.any():
            raise InputError(
                f"select_neurons leaves none of the {recording.num_neurons} neurons, whose rates "
                f"are {rate.min():.3g} to {rate.max():.3g} Hz; ask for less"
            )
        return SelectNeurons(ids=names[meets].tolist())

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording of these neurons."""
        if self.learns:
            return self.learned(recording, np.arange(recording.num_trials))(recording)
        if self.ids is None:
            raise InputError("select_neurons: say which, by min_rate, ids or query")
        return taken(recording, _columns(recording, self.ids))


@dataclass(frozen=True)
class DropDuplicates(Transform):
    """One of each pair of neurons that fire in the same bins: a neuron that was sorted twice.

    What is compared with ``correlation`` is rho(0) - (rho(-1) + rho(1)) / 2, of the counts of two
    neurons in the same bin and in neighbouring ones, so that neurons of one slow rate are no
    duplicates. Of a pair the neuron of fewer counts goes. It tells which units were sorted twice
    and nothing else, so all trials are asked, whatever their split.

    Attributes:
        correlation: above which two neurons are taken for one, from 0 to 1.
        dropped: names of those that go; None: whoever is twice in the recording.
    """

    correlation: float = 0.5
    dropped: list[int | str] | None = None

    def learned(self, recording: Recording, trials: Int[np.ndarray, " chosen"]) -> DropDuplicates:
        """Return the transform that leaves out the same neurons by name."""
        if self.dropped is not None:
            return self
        check_number("drop_duplicates.correlation", self.correlation)
        if not 0 < self.correlation <= 1:
            raise InputError(
                f"drop_duplicates.correlation must be above 0, at most 1, got {self.correlation:g}"
            )
        names, mean = recording.neuron_ids, _mean(recording, trials)
        assert names is not None
        alike = coincidence(recording, trials) > self.correlation
        goes = np.zeros(recording.num_neurons, dtype=bool)
        order = np.argsort(-mean, kind="stable")
        for rank, neuron in enumerate(order):
            if not goes[neuron]:
                later = order[rank + 1 :]
                goes[later[alike[neuron, later]]] = True
        return DropDuplicates(self.correlation, names[goes].tolist())

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording without them."""
        if self.dropped is None:
            return drop_duplicates(recording, self.correlation)
        if not self.dropped:
            return recording
        gone = _columns(recording, self.dropped)
        return taken(recording, np.setdiff1d(np.arange(recording.num_neurons), gone))


def taken(recording: Recording, columns: Int[np.ndarray, " chosen"]) -> Recording:
    """Return the recording of some neurons, by their names from then on.

    Raises:
        InputError: if none of those that inference may see are among them.
    """
    names, heldin, rates = recording.neuron_ids, recording.heldin, recording.rates
    assert names is not None
    if np.array_equal(columns, np.arange(recording.num_neurons)):
        return recording
    if heldin is not None:
        heldin = np.flatnonzero(np.isin(columns, heldin))
        if not len(heldin):
            raise InputError("select_neurons leaves no neuron that is held in; take others, too")
    activity: Any = recording.activity
    owners = recording.neuron_sessions
    if isinstance(activity, LazyActivity):
        activity = activity.neurons(columns)
    else:
        activity = activity[..., columns]
    return recording.changed(
        activity=activity,
        rates=None if rates is None else rates[..., columns],
        neuron_ids=np.array(names)[columns],
        neuron_sessions=None if owners is None else owners[columns],
        heldin=heldin,
        image_shape=None,
    )


def _columns(recording: Recording, ids: list[Any]) -> Int[np.ndarray, " chosen"]:
    names = recording.neuron_ids
    assert names is not None
    place = {str(name): column for column, name in enumerate(names)}
    unknown = [name for name in ids if str(name) not in place]
    if len(set(map(str, ids))) < len(ids) or not ids:
        raise InputError(f"select_neurons.ids must name each neuron once, got {ids!r}")
    if unknown:
        raise InputError(
            f"select_neurons.ids: there is no neuron {unknown[0]!r}"
            f"{nearest(str(unknown[0]), place)}"
        )
    return np.array([place[str(name)] for name in ids], dtype=np.int64)


def _mean(recording: Recording, trials: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, " neuron"]:
    """Return the mean of each neuron over the observed bins of some trials."""
    total = count = np.zeros(recording.num_neurons)
    for values in parts(recording.activity, trials):
        total = total + np.nansum(values, axis=0, dtype=np.float64)
        count = count + np.isfinite(values).sum(axis=0)
    return total / np.maximum(count, 1)


def coincidence(
    recording: Recording, trials: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "neuron neuron"]:
    """Return the correlation in the same bin without that in neighbouring bins."""
    size, mean = recording.num_neurons, _mean(recording, trials)
    same, next_to = np.zeros((size, size)), np.zeros((size, size))
    for values in parts(recording.activity, trials):
        deviation = np.nan_to_num(values - mean.astype(np.float32))
        same += deviation.T @ deviation
        next_to += deviation[1:].T @ deviation[:-1]
    sd = np.sqrt(np.diagonal(same))
    scale = np.where(sd > 0, sd, np.inf)
    return (same - (next_to + next_to.T) / 2) / scale / scale[:, None]
