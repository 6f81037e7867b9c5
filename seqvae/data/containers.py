"""Whatever holds numbers or labels, as plain arrays; what is missing there is NaN here.

``np.asarray`` drops what many containers say beside their numbers: masks, missing values, zeros
that are not stored. Here is the one place that does not. The libraries of the containers are not
imported: each is known by what it offers.
"""

from __future__ import annotations

import numbers
import warnings
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import torch

from seqvae.errors import InputError

ArrayLike: TypeAlias = Any
"""Whatever holds an array of numbers or labels, or a list of these; what does not is refused."""

_FOREIGN = ("neo", "pynapple", "quantities", "pint", "astropy")  # their arrays have units or times
_CURES = {
    "Dataset": "give the DataArray that holds the counts, e.g. dataset['counts']",
    "Ts": "count the spikes in bins first",
    "Tsd": "give its values, tsd.to_numpy()",
    "TsGroup": "count the spikes in bins first, e.g. [group.count(0.02, trial).to_numpy() for "
    "trial in trials]",
    "TsdFrame": "give its values, [frame.to_numpy()], with bin_width",
    "SpikeTrain": "count the spikes in bins first, e.g. BinnedSpikeTrain(trains).to_array().T",
    "AnalogSignal": "give its values, [signal.magnitude], with bin_width",
    "Mapping": "give the array of counts, or Arrays(**fields) for several fields",
    "NeuralData": "give it as it is, or its source",
}


def plain_numbers(name: str, value: Any) -> np.ndarray:
    """Return an array of real numbers, of the type that they had or float64; NaN = missing.

    Args:
        name: of the argument, for the error.
        value: an array (plain, masked, of objects), a tensor (dense or sparse), a sparse matrix, a
            table, a DataArray (its names are dropped here), or lists of these.

    Raises:
        InputError: if it holds anything but real numbers.
    """
    array = _unpacked(name, value)
    if isinstance(array, np.ma.MaskedArray):
        array = _filled(array)
    if array.dtype.kind == "O":
        array = _numbers_of_objects(name, array)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} must hold real numbers, got {_kind(array.dtype)}")
    return array


def plain_labels(name: str, value: Any) -> np.ndarray:
    """Return an array of numbers, truths or texts, of which none is missing; always a copy.

    Raises:
        InputError: naming the first label that is missing, or what is no label.
    """
    if isinstance(value, list | tuple) and not any(map(_is_container, value)):
        array = np.empty(len(value), dtype=object)  # else NaN among texts would become a text
        array[:] = value
    else:
        array = _unpacked(name, value)
    if isinstance(array, np.ma.MaskedArray):
        _refuse_missing(name, np.ma.getmaskarray(array))
        array = array.data
    if array.dtype.kind in "OT":
        array = _labels_of_objects(name, array)
    try:
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8")
        if array.dtype.kind == "U":
            np.char.encode(array, "utf-8")
    except ValueError as error:
        raise InputError(f"{name} holds text that is not UTF-8; write it again") from error
    if array.dtype.kind == "f":
        _refuse_missing(name, np.asarray(np.isnan(array)))
    if array.dtype.kind not in "biufU":
        raise InputError(
            f"{name} holds {_kind(array.dtype)}; give one number or text for each label"
        )
    return np.array(array)


def indices(name: str, value: Any) -> np.ndarray:
    """Return whole numbers in one axis; refuse a mask of truths and fractions.

    Raises:
        InputError: with the cure.
    """
    cure = "give a list of indices of neurons"
    array = plain_labels(name, value) if not isinstance(value, str | bytes) else np.array(value)
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        if array.dtype.kind == "b":
            cure = f"a mask of truths is none; give np.flatnonzero({name})"
        raise InputError(f"{name} must be a list of indices of neurons, got {value!r}; {cure}")
    return array.astype(np.int64)


def is_list(value: Any) -> bool:
    """Whether something lists trials: a list, a tuple, or an array of arrays."""
    is_nested = isinstance(value, np.ndarray) and value.dtype.kind == "O" and value.ndim == 1
    return isinstance(value, list | tuple) or is_nested


def cure_of(thing: Any) -> str | None:
    """Return how to make an array of something that is none, where that is known."""
    names = [cls.__name__ for cls in type(thing).__mro__]
    if not hasattr(thing, "dtypes") and hasattr(thing, "keys") and hasattr(thing, "items"):
        names.append("Mapping")
    return next((_CURES[name] for name in names if name in _CURES), None)


def article(thing: object) -> str:
    """Return the name of the type of something, with its article."""
    name = type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _unpacked(name: str, value: Any) -> np.ndarray:
    """Return an array as it lies in a container, masked where it is so there."""
    has_units = type(value).__module__.partition(".")[0] in _FOREIGN
    cure = cure_of(value) or ("give its values as a plain array" if has_units else None)
    if cure is not None or isinstance(value, set | frozenset | str | bytes):
        cure = cure or "give an array or a list"
        raise InputError(f"{name} is {article(value)}; {cure}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a masked scalar in a list, which becomes NaN
            return _as_array(name, value)
    except InputError:
        raise
    except Exception as error:  # each library has its own
        raise InputError(
            f"{name} is {article(value)} that cannot be made an array ({error}); give np.asarray "
            "of what it holds"
        ) from error


def _as_array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        dense = dense.dequantize() if dense.is_quantized else dense
        dense = dense.float() if dense.dtype == torch.bfloat16 else dense
        return dense.resolve_conj().resolve_neg().cpu().numpy()
    if isinstance(value, np.ma.MaskedArray):
        return value
    if hasattr(value, "toarray") or hasattr(value, "todense"):
        return np.asarray(value.toarray() if hasattr(value, "toarray") else value.todense())
    if hasattr(value, "dims") and hasattr(value, "values"):
        return np.asarray(value.values)
    if is_list(value) and any(_is_container(item) for item in value):
        items = [_unpacked(f"{name}[{index}]", item) for index, item in enumerate(value)]
        shapes = {item.shape for item in items}
        if len(shapes) > 1:
            raise InputError(
                f"{name} holds arrays of the shapes {', '.join(map(str, sorted(shapes)))}; for "
                "trials of unequal length use Recording.from_trials"
            )
        is_masked = any(isinstance(item, np.ma.MaskedArray) for item in items)
        return np.ma.stack(items) if is_masked else np.stack(items)
    try:
        return np.asarray(value)
    except ValueError:  # ragged
        raise InputError(
            f"{name} holds lists of unequal length; for trials of unequal length use "
            "Recording.from_trials"
        ) from None


def _is_container(item: Any) -> bool:
    """Whether it is more than a number or text, so that its own kind is asked for its values."""
    return not isinstance(item, str | bytes) and (
        isinstance(item, list | tuple | torch.Tensor)
        or (hasattr(item, "ndim") and getattr(item, "ndim", 0) != 0)
    )


def _filled(array: np.ma.MaskedArray) -> np.ndarray:
    mask = np.ma.getmaskarray(array)
    if not mask.any() or array.dtype.kind not in "biuf":
        return array.data
    wide = array.data.astype(np.result_type(array.dtype, np.float32))
    wide[mask] = np.nan
    return wide


def _is_missing(item: Any) -> bool:
    """Whether it is None, NaN, NaT, masked, or pandas.NA."""
    if item is None or item is np.ma.masked or type(item).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(item, numbers.Real | Decimal | np.floating) and bool(item != item)


def _plain_item(item: Any) -> Any:
    """Return what an array without axes holds, else the item."""
    if isinstance(item, torch.Tensor) and item.ndim == 0:
        return item.item()
    return item[()] if isinstance(item, np.ndarray) and item.ndim == 0 else item


def _numbers_of_objects(name: str, array: np.ndarray) -> np.ndarray:
    values = np.empty(array.size)
    for place, boxed in enumerate(array.ravel()):
        item = _plain_item(boxed)
        if _is_missing(item):
            values[place] = np.nan
        elif isinstance(item, numbers.Real | Decimal | np.bool_):
            values[place] = float(item)
            if isinstance(item, numbers.Integral) and int(values[place]) != int(item):
                raise InputError(f"{name} holds {item}, which no float holds exactly")
        else:
            index = [int(i) for i in np.unravel_index(place, array.shape)]
            raise InputError(f"{name}{index} is {item!r}; {name} must hold real numbers")
    return values.reshape(array.shape)


def _labels_of_objects(name: str, array: np.ndarray) -> np.ndarray:
    items = [_plain_item(item) for item in array.ravel().tolist()]
    _refuse_missing(name, np.array([_is_missing(item) for item in items]).reshape(array.shape))
    items = [item.decode() if isinstance(item, bytes) else item for item in items]
    kinds = {_label_kind(item) for item in items}
    if None in kinds:
        wrong = next(item for item in items if _label_kind(item) is None)
        raise InputError(f"{name} holds {article(wrong)}; give one number or text for each label")
    if len(kinds) > 1 and kinds != {int, float}:
        words = " and ".join(sorted(_WORDS[kind] for kind in kinds if kind))
        raise InputError(
            f"{name} mixes {words}; give one kind, e.g. [str(label) for label in {name}]"
        )
    plain = np.array(items, dtype=None if items else float)
    if plain.dtype.kind not in "biufU":
        raise InputError(f"{name} holds whole numbers above 2**63; give them as text")
    return plain.reshape(array.shape)


_WORDS = {str: "texts", bool: "truths", int: "whole numbers", float: "fractions"}


def _label_kind(item: Any) -> type | None:
    if isinstance(item, str):
        return str
    if isinstance(item, bool | np.bool_):
        return bool
    if isinstance(item, numbers.Integral):
        return int
    return float if isinstance(item, numbers.Real) else None


def _refuse_missing(name: str, missing: np.ndarray) -> None:
    if missing.any():
        index = [int(i) for i in np.unravel_index(int(np.argmax(missing)), missing.shape)]
        raise InputError(f"{name}{index} is missing; give every label, or leave its trial out")


def _kind(dtype: np.dtype) -> str:
    words = {"U": "text", "S": "text", "T": "text", "c": "complex numbers", "V": "named fields"}
    times = {"M": "dates", "m": "time differences"}
    return {**words, **times}.get(dtype.kind, f"{dtype}") + f" ({dtype})"[:60]
