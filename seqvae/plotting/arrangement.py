"""How a posterior data set is laid out before it is drawn: on paper and on a page alike."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped

MOST_CONDITIONS = 12
"""A condition of more distinct numbers than these is a quantity, of which five groups are made."""
_GROUPS = 5
_FRACTION = 1e-6  # of a bin by which events may differ and yet be at one time


class Conditions(NamedTuple):
    """The groups that trials are averaged in.

    Attributes:
        names: of the groups.
        group: of each trial; -1: of none.
        is_known: whether the recording has conditions; else all trials are one group.
    """

    names: list[str]
    group: Int[np.ndarray, " trial"]
    is_known: bool


class GroupMeans(NamedTuple):
    """Means over the trials of each condition.

    Attributes:
        mean: NaN where no trial of the condition has a value.
        error: standard error over trials; NaN where there are fewer than two.
    """

    mean: Float[np.ndarray, "condition time channel"]
    error: Float[np.ndarray, "condition time channel"]


def activity_of(posterior: xr.Dataset) -> Float[np.ndarray, "trial time neuron"]:
    """Return what was recorded, as the posterior carries it.

    Raises:
        ValueError: if it does not, as that of an earlier version.
    """
    if "activity" not in posterior:
        raise ValueError("the posterior carries no 'activity'; infer it again, with all variables")
    return posterior["activity"].values


def heldin_of(posterior: xr.Dataset) -> Bool[np.ndarray, " neuron"]:
    """Whether inference saw each neuron; all of them unless the posterior says otherwise."""
    if "heldin" in posterior.coords:
        return posterior.heldin.values.astype(bool)
    return np.ones(posterior.sizes["neuron"], dtype=bool)


def mean_over_trials(values: Float[np.ndarray, "trial ..."]) -> Float[np.ndarray, ...]:
    """Mean of what is there; NaN where there is nothing."""
    present = np.isfinite(values)
    count = present.sum(0)
    total = np.where(present, values, 0.0).sum(0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def by_peak_time(posterior: xr.Dataset, variable: str) -> Int[np.ndarray, " neuron"]:
    """Held-in neurons by the time at which their mean peaks, then held-out ones likewise."""
    mean = mean_over_trials(posterior[variable].values)
    peak = np.where(np.isfinite(mean), mean, -np.inf).argmax(0)
    return np.lexsort((peak, ~heldin_of(posterior)))


def on_event_time(posterior: xr.Dataset) -> xr.Dataset:
    """Shift each trial by whole bins, so that time 0 is the event in all of them.

    Nothing is done where all trials have it at one time, whose zero it then is, where no time of an
    event is known, or where some trial has none, or not within its bins.

    Returns:
        Time is that of the centres of bins; where a trial has none, its values are NaN.
    """
    if "event" in posterior.time.attrs or "event_time" not in posterior.coords:
        return posterior
    step, num_bins = posterior.attrs.get("bin_width"), posterior.sizes["time"]
    event = posterior.event_time.values
    if step is None or not np.isfinite(event).all():
        return posterior
    place = np.floor(event / step + _FRACTION).astype(np.int64)
    if (place < 0).any() or (place >= num_bins).any():
        return posterior
    first, last = -int(place.max()), num_bins - 1 - int(place.min())
    source = np.arange(first, last + 1) + place[:, None]
    is_there = (source >= 0) & (source < num_bins)
    rows, columns = np.arange(len(place))[:, None], np.clip(source, 0, num_bins - 1)
    shifted = {}
    for name, variable in posterior.data_vars.items():
        values = variable.values
        if variable.dims[:2] == ("trial", "time"):
            mask = is_there.reshape(*is_there.shape, *(1,) * (values.ndim - 2))
            values = np.where(mask, values[rows, columns], np.nan)
        shifted[name] = (variable.dims, values, variable.attrs)
    name = posterior.attrs.get("event_name", "event")
    time = np.round(np.arange(first, last + 1) * step, 9)
    described = {"units": "s", "long_name": f"centre of the bin, 0 at {name}", "event": name}
    coordinates = {k: v for k, v in posterior.coords.items() if "time" not in v.dims}
    coordinates["time"] = xr.Variable("time", time, described)
    return xr.Dataset(shifted, coordinates, posterior.attrs)


def conditions_of(posterior: xr.Dataset) -> Conditions:
    """Group trials by condition; a quantity into fifths, all trials where none is known."""
    num_trials = posterior.sizes["trial"]
    everyone = Conditions(["all trials"], np.zeros(num_trials, dtype=np.int64), is_known=False)
    if "condition" not in posterior.coords or posterior.condition.ndim != 1:
        return everyone
    labels = posterior.condition.values
    if labels.dtype.kind in "fiu":
        numbers = labels.astype(np.float64)
        is_there = np.isfinite(numbers)
        if not is_there.any():
            return everyone
        if len(np.unique(numbers[is_there])) > MOST_CONDITIONS:
            return _fifths(numbers, is_there)
        names, group = _distinct(numbers, is_there)
        return Conditions([f"{float(name):g}" for name in names], group, is_known=True)
    words = np.array([str(label) for label in labels])
    is_there = ~np.isin(words, ["", "nan", "None"])
    if not is_there.any():
        return everyone
    names, group = _distinct(words, is_there)
    if len(names) > max(MOST_CONDITIONS, num_trials // 2):  # a name for each trial
        return everyone
    return Conditions([str(name) for name in names], group, is_known=True)


def _distinct(
    labels: Shaped[np.ndarray, " trial"], is_there: Bool[np.ndarray, " trial"]
) -> tuple[Shaped[np.ndarray, " name"], Int[np.ndarray, " trial"]]:
    names, group = np.unique(labels[is_there], return_inverse=True)
    groups = np.full(len(labels), -1, dtype=np.int64)
    groups[is_there] = group
    return names, groups


def _fifths(
    numbers: Float[np.ndarray, " trial"], is_there: Bool[np.ndarray, " trial"]
) -> Conditions:
    edges = np.unique(np.quantile(numbers[is_there], np.linspace(0, 1, _GROUPS + 1)))
    group = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    names = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    return Conditions(names, np.where(is_there, group, -1), is_known=True)


def group_means(
    values: Float[np.ndarray, "trial time channel"], conditions: Conditions
) -> GroupMeans:
    """Average the trials of each condition."""
    means, errors = [], []
    for group in range(len(conditions.names)):
        members = values[conditions.group == group].astype(np.float64)
        count = np.isfinite(members).sum(0)
        mean = mean_over_trials(members)
        square = np.nansum((members - mean) ** 2, axis=0)
        spread = np.sqrt(square / np.maximum(count - 1, 1) / np.maximum(count, 1))
        means.append(mean)
        errors.append(np.where(count > 1, spread, np.nan))
    return GroupMeans(np.stack(means), np.stack(errors))


def most_different(
    means: Float[np.ndarray, "condition time channel"], number: int
) -> Int[np.ndarray, " chosen"]:
    """The channels whose means vary most over conditions and time."""
    variance = np.nan_to_num(_nan_variance(means))
    return np.argsort(-variance, kind="stable")[:number]


def _nan_variance(values: Float[np.ndarray, "condition time channel"]) -> np.ndarray:
    flat = values.reshape(-1, values.shape[-1])
    mean = mean_over_trials(flat)
    return mean_over_trials((flat - mean) ** 2)


def smoothed(
    values: Float[np.ndarray, "condition time channel"], sd_bins: float
) -> Float[np.ndarray, "condition time channel"]:
    """Gaussian smoothing over time of what is there; NaN stays NaN."""
    from scipy.ndimage import gaussian_filter1d

    present = np.isfinite(values)
    weight = gaussian_filter1d(present.astype(np.float64), sd_bins, axis=1, mode="constant")
    total = gaussian_filter1d(np.where(present, values, 0.0), sd_bins, axis=1, mode="constant")
    return np.where(present, total / np.maximum(weight, 1e-12), np.nan)


def principal_components(
    values: Float[np.ndarray, "trial time dimension"],
) -> tuple[Float[np.ndarray, "trial time component"], list[str]]:
    """At most three leading components, and labels with the share of the variance of each."""
    flat = values[np.isfinite(values).all(-1)]
    center = flat.mean(0)
    variance, directions = np.linalg.eigh(np.cov(flat.T, ddof=0).reshape(len(center), -1))
    order = np.argsort(-variance)[:3]
    directions = directions[:, order]
    directions = directions * np.sign(directions[np.abs(directions).argmax(0), range(len(order))])
    share = variance[order] / max(variance.sum(), np.finfo(float).tiny)
    labels = [f"PC {i + 1} ({part:.0%})" for i, part in enumerate(share)]
    return (values - center) @ directions, labels


def heading(posterior: xr.Dataset) -> str:
    """Model, trials with their split, and score, as far as the posterior tells them."""
    num_trials = posterior.sizes["trial"]
    words = np.unique(posterior.split.values).tolist() if "split" in posterior.coords else []
    split = (
        {"val": "validation ", "train": "training "}.get(words[0], f"{words[0]} ")
        if len(words) == 1
        else ""
    )
    trials = f"{num_trials} {split}trial{'s' if num_trials != 1 else ''}"
    parts = [posterior.attrs.get("model"), trials, posterior.attrs.get("score")]
    return ", ".join(str(part) for part in parts if part)
