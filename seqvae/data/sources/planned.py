"""A recording assembled from what a file holds, by the names of its entries and of their axes."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from seqvae.data.binning import grouped
from seqvae.data.containers import plain_labels, plain_numbers
from seqvae.data.lazy import LazyActivity
from seqvae.data.padding import without_padding
from seqvae.data.recording import Recording
from seqvae.data.sources.concatenated import in_trials
from seqvae.data.sources.dims import AXES, Block, check_dims, described, dims_beside, laid
from seqvae.data.sources.holdings import SPARSE, Holdings
from seqvae.data.sources.stored import MISSING, with_missing
from seqvae.data.spikes import Spikes
from seqvae.data.splits import split_words
from seqvae.data.validation import as_bin_width
from seqvae.errors import InputError, nearest

SERIES = ("inputs", "behavior", "rates")
LABELS = ("condition", "trial_ids", "split", "lengths", "neuron_ids", "heldin", "heldout")
SPIKES = {"spike_times": "spike_times", "spike_neurons": "neuron_ids", "spike_trials": "trial_ids"}
FIELDS = ("activity", *SERIES, *LABELS, *SPIKES, "intervals", "bin_width")
_RATIO = 1e-6


def read_planned(
    holdings: Holdings,
    keys: Mapping[str, str],
    *,
    dims: Sequence[str] | None = None,
    bin_width: float | None = None,
    sample_width: float | None = None,
    trial_bins: int | None = None,
) -> Recording:
    """Assemble a recording.

    Args:
        holdings: what the file holds.
        keys: the name of the entry of each field of ``FIELDS``; that of the activity is needed,
            or those of the columns of spikes.
        dims: the axes of the activity, those of cells first, from outside in, of "trial", "time"
            and "neuron"; what is not named has one entry. Cells without time hold times of spikes.
        bin_width: seconds per bin.
        sample_width: seconds of a stored sample, of which several make a bin: counts are added up,
            series beside them averaged. Of times of spikes, the seconds of their unit.
        trial_bins: samples of a trial, where trials stand one after another in time.

    Raises:
        InputError: in one sentence, with the cure.
    """
    check_keys(keys, holdings)
    if bin_width is None and "bin_width" in keys:
        bin_width = float(_labels(holdings, keys, "bin_width").reshape(-1)[0])
    bin_width = as_bin_width(bin_width, 2 if dims is None or "time" in dims else 1)
    if "spike_times" in keys:
        values = _of_columns(holdings, keys, bin_width, sample_width)
        order: tuple[str, ...] = ("trial", "time", "neuron")
    else:
        values, order = _activity(holdings, keys, dims, bin_width, sample_width)
    num_trials, num_bins = len(values["activity"]), _longest(values["activity"])
    for field in set(SERIES) & set(keys):
        values[field] = _beside(holdings, keys[field], field, num_trials, num_bins, order)
    if trial_bins is not None:
        for field in {"activity", *SERIES} & set(values):
            values[field] = in_trials(field, values[field], trial_bins)
    activity = values["activity"]
    num_trials = len(activity)
    factor = _factor(bin_width, sample_width) if "spike_times" not in keys else 1
    if factor > 1 and not values.pop("is_binned", False):
        values["activity"] = _rebinned(activity, factor, np.sum)
        for field in set(SERIES) & set(values):
            values[field] = _rebinned(values[field], factor, np.mean)
    values.pop("is_binned", None)
    for field in set(LABELS) & set(keys):
        values[field] = _labels(holdings, keys, field)
    if "split" in values:
        values["split"] = split_words(values["split"])
    if "lengths" in values:
        values["lengths"] = np.asarray(values["lengths"]) // factor
    _check_counts(values, keys, num_trials)
    if "heldout" in values:
        some = values["activity"]
        num_neurons = np.shape(some if isinstance(some, LazyActivity) else some[0])[-1]
        hidden = _indices(values.pop("heldout"), holdings.is_matlab)
        values["heldin"] = np.setdiff1d(np.arange(num_neurons), hidden)
    elif "heldin" in values:
        values["heldin"] = _indices(values["heldin"], holdings.is_matlab)
    if bin_width is not None:
        values["bin_width"] = bin_width
    if "lengths" in values:
        values = without_padding(values, values.pop("lengths"))
    return Recording(**values)


def check_keys(keys: Mapping[str, str], holdings: Holdings) -> None:
    """Refuse fields that are none, and entries that are not there."""
    for field, name in keys.items():
        if field not in FIELDS:
            raise InputError(f"keys names {field!r}, which is no field{nearest(field, FIELDS)}")
        holdings.find(name)


def needs_plan(
    entries: Collection[str],
    keys: Mapping[str, str] | None,
    dims: Sequence[str] | None,
    trial_bins: int | None = None,
) -> bool:
    """Whether an archive is read by names and axes, and in neither of its own two layouts."""
    keys = keys or {}
    if dims is not None or trial_bins is not None or {*SPIKES, "heldout", "intervals"} & set(keys):
        return True
    if any("*" in name and name not in entries for name in keys.values()):
        return True
    columns = {"spike_times", "neuron_ids"} <= set(entries) or set(entries) >= SPARSE
    return columns and "activity" not in entries and not {"activity", "encoded"} & set(keys)


def read_named(
    holdings: Holdings,
    keys: Mapping[str, str] | None,
    *,
    dims: Sequence[str] | None,
    bin_width: float | None,
    trial_bins: int | None = None,
) -> Recording:
    """Assemble a recording of an archive of which names, axes or columns of spikes are given."""
    names = dict(keys or {})
    if not {"activity", "spike_times"} & set(names):
        if "" in holdings.entries:
            names["activity"] = ""
        elif "spike_times" in holdings.entries:
            names |= {field: name for field, name in SPIKES.items() if name in holdings.entries}
        else:
            names["activity"] = "activity"
    if dims is None and "activity" in names:
        cells = block_of(holdings, names["activity"]).num_cell_axes
        is_flat = "" in holdings.entries or trial_bins is not None
        dims = ("trial", "time", "neuron") if cells or not is_flat else (
            "time", "neuron")  # fmt: skip
    if bin_width is None and "bin_width" not in names:
        stated = [name for name in ("bin_width_s", "bin_width") if name in holdings.entries]
        names |= {"bin_width": stated[0]} if stated else {}
    return read_planned(holdings, names, dims=dims, bin_width=bin_width, trial_bins=trial_bins)


def _activity(
    holdings: Holdings,
    keys: Mapping[str, str],
    dims: Sequence[str] | None,
    bin_width: float | None,
    sample_width: float | None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    name = keys["activity"]
    block = block_of(holdings, name)
    if dims is None:
        raise InputError(
            f"dims is required: {name!r} is {described(block.sizes)}; name these axes, outermost "
            'first, of trial, time and neuron, e.g. dims ["time", "neuron"]'
        )
    names = check_dims(dims, block, name)
    if len(names) == len(block.sizes):
        missing = None
        if MISSING in holdings.entries:
            missing = int(_labels(holdings, {MISSING: MISSING}, MISSING)[0])
        lazy = _lazy(block, names, missing)
        if lazy is not None:
            return {"activity": lazy}, names
        series = laid(block, names, name)
        if isinstance(series, np.ndarray) and series.dtype.kind not in "biuf":
            raise InputError(f"{name!r} holds {series.dtype}; the activity must be numbers")
        if isinstance(series, np.ndarray):
            series = with_missing(series, missing)
        return {"activity": series}, names
    if bin_width is None:
        raise InputError(
            f"bin_width is required: {name!r} holds times of spikes, to be counted in bins"
        )
    scale = 1.0 if sample_width is None else sample_width
    spikes = Spikes.of(nested(block, names, name, scale))
    fields = spikes.binned(bin_width, _intervals(holdings, keys))
    return {**fields, "is_binned": True}, ("trial", "time", "neuron")


def _lazy(block: Block, names: tuple[str, ...], missing: int | None) -> LazyActivity | None:
    """Return large counts that lie in a file in the usual order; None for what is read at once."""
    is_usual = names in (AXES, AXES[1:]) and not block.num_cell_axes
    rows = block.leaves[0][1].rows() if is_usual else None
    return None if rows is None else LazyActivity(rows, missing=missing)


def _longest(activity: Any) -> int:
    """Return the bins of the longest trial, as stored."""
    is_lazy = isinstance(activity, LazyActivity)
    return activity.shape[1] if is_lazy else max(map(len, activity))


def nested(block: Block, names: tuple[str, ...], name: str, scale: float = 1.0) -> list[Any]:
    """Return times of spikes in cells as a list by neuron, or by trial and neuron."""
    times = [(place, block.array(leaf).astype(np.float64) * scale) for place, leaf in block.leaves]
    if names == ("neuron", "neuron"):
        units = [array for _, array in times if array.size]
        if len(units) < len(times):
            warnings.warn(
                f"{len(times) - len(units)} of the {len(times)} cells in {name!r} are empty, so "
                f"they are no neurons; {len(units)} are left",
                stacklevel=4,
            )
        return list(units)
    if "trial" not in names:
        return [array for _, array in times]
    axis = names.index("trial")
    trials: dict[int, list[np.ndarray]] = {}
    for place, array in times:
        trials.setdefault(place[axis], []).append(array)
    for trial, units in trials.items():
        if len(units) != len(trials[0]):
            raise InputError(
                f"{name!r}: trial {trial} has {len(units)} neurons, but trial 0 has "
                f"{len(trials[0])}; the same neurons must be in every trial, with an empty cell "
                "where one has no spike"
            )
    return list(trials.values())


def block_of(holdings: Holdings, name: str) -> Block:
    """Return an entry with its axes."""
    return Block.of(holdings.find(name), drops_ones=holdings.is_matlab)


def _of_columns(
    holdings: Holdings, keys: Mapping[str, str], bin_width: float | None, scale: float | None
) -> dict[str, Any]:
    if bin_width is None:
        raise InputError("bin_width is required: the file holds times of spikes, to be counted")
    columns = {
        column: block_of(holdings, keys[field]).vector()
        for field, column in SPIKES.items()
        if field in keys
    }
    if scale is not None:
        columns["spike_times"] = columns["spike_times"] * scale
    names = keys.get("neuron_ids")
    unit_ids = None if names is None else block_of(holdings, names).vector()
    return Spikes.of(columns, unit_ids).binned(bin_width, _intervals(holdings, keys))


def _intervals(holdings: Holdings, keys: Mapping[str, str]) -> np.ndarray | None:
    if "intervals" not in keys:
        return None
    block = block_of(holdings, keys["intervals"])
    array = np.asarray([block.array(leaf) for _, leaf in block.leaves]).reshape(-1)
    return array.reshape(-1, 2)


def _beside(
    holdings: Holdings,
    name: str,
    field: str,
    num_trials: int,
    num_bins: int,
    order: tuple[str, ...],
) -> Any:
    block = block_of(holdings, name)
    names = dims_beside(block.sizes, num_trials, num_bins, order)
    if names is None:
        raise InputError(
            f"{field}: {name!r} is {described(block.sizes)}, but the activity has {num_trials} "
            f"trials of {num_bins} samples; both must agree"
        )
    return laid(block, names, name)


def _labels(holdings: Holdings, keys: Mapping[str, str], field: str) -> np.ndarray:
    values = plain_labels(keys[field], block_of(holdings, keys[field]).vector())
    if field == "condition" and values.dtype.kind == "f" and (values == np.floor(values)).all():
        return values.astype(np.int64)  # MATLAB's numbers are all fractions
    return values


def _indices(neurons: np.ndarray, counts_from_one: bool) -> np.ndarray:
    """Return the indices that a mask of neurons, or a list of them, tells."""
    if neurons.dtype.kind == "b" or (set(np.unique(neurons)) <= {0, 1} and len(neurons) > 1):
        return np.flatnonzero(neurons)
    return neurons.astype(np.int64) - int(counts_from_one)


def _factor(bin_width: float | None, sample_width: float | None) -> int:
    """Return how many samples make a bin."""
    if sample_width is None or bin_width is None:
        return 1
    ratio = bin_width / sample_width
    factor = round(ratio)
    if factor < 1 or abs(ratio - factor) > _RATIO * ratio:
        raise InputError(
            f"bin_width is {bin_width:g} s, {ratio:g} times sample_width ({sample_width:g} s); "
            "give a whole number of samples"
        )
    return factor


def _rebinned(series: Any, factor: int, join: Any) -> list[np.ndarray]:
    """Join every ``factor`` samples of each trial; an incomplete last bin is left out."""
    joined = []
    for index, trial in enumerate(series):
        values = plain_numbers(f"trial {index}", trial)
        if len(values) < factor:
            raise InputError(
                f"trial {index} has {len(values)} samples, fewer than the {factor} of a bin; leave "
                "it out or give a smaller bin_width"
            )
        joined.append(join(grouped(values, factor, axis=0), axis=1))
    return joined


def _check_counts(values: Mapping[str, Any], keys: Mapping[str, str], num_trials: int) -> None:
    for field in ("condition", "trial_ids", "split", "lengths"):
        if field in values and field in keys and len(values[field]) != num_trials:
            raise InputError(
                f"{field}: {keys[field]!r} has {len(values[field])} entries, but the activity has "
                f"{num_trials} trials; give one for each"
            )
