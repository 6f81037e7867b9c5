"""The sizes of a grid: which argument of each model is swept, and over which numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from seqvae.config.signatures import members, parameters
from seqvae.errors import InputError, nearest
from seqvae.runs import ModelFactory

LARGEST_DIM = 10_000

Dims: TypeAlias = list[int] | dict[str, list[int]]
"""The sizes to try, the same for all models or by the name of each."""

Sweep: TypeAlias = str | dict[str, str]
"""An argument of all models, or by the name of a model one of its own."""


class Sizes(NamedTuple):
    """What is swept of a model.

    Attributes:
        argument: of its class, a whole number.
        dims: its values, ascending, above 0.
        is_dimension: whether it is the size that the class itself names.
    """

    argument: str
    dims: list[int]
    is_dimension: bool


def checked_sizes(
    dims: Dims, sweep: Sweep | None, models: Mapping[str, ModelFactory], *, scheme: str
) -> dict[str, Sizes]:
    """Return what is swept of each model.

    Args:
        dims: the values.
        sweep: the argument, where it is not the model's own dimension.
        models: factories by name.
        scheme: ``gabriel`` has components only.

    Raises:
        InputError: for an argument that a model has not, or anything but whole numbers.
    """
    for key, by_name in (("dims", dims), ("sweep", sweep)):
        if isinstance(by_name, Mapping):
            for name in by_name:
                if name not in models:
                    raise InputError(f"{key}.{name} is no model{nearest(str(name), models)}")
    sizes = {}
    for name, factory in models.items():
        if isinstance(dims, Mapping) and name not in dims:
            raise InputError(f"dims.{name} is missing; name the sizes of every model, or of none")
        values = dims[name] if isinstance(dims, Mapping) else dims
        key = f"dims.{name}" if isinstance(dims, Mapping) else "dims"
        model_class: Any = factory.func if isinstance(factory, partial) else factory
        asked = sweep.get(name) if isinstance(sweep, Mapping) else sweep
        dimension = model_class.dimension_argument
        argument = dimension if asked is None else asked
        numbers = [
            word
            for word, parameter in parameters(model_class).items()
            if int in members(parameter.annotation)
        ]
        if argument not in numbers:
            where = f"sweep.{name}" if isinstance(sweep, Mapping) else "sweep"
            raise InputError(
                f"{where}: {argument!r} is no whole number of {model_class.__name__}"
                f"{nearest(str(argument), numbers)}"
            )
        if scheme == "gabriel" and argument != dimension:
            raise InputError(
                f"sweep: scheme 'gabriel' counts components, not {argument}; leave sweep out"
            )
        sizes[name] = Sizes(argument, checked_dims(values, key=key), argument == dimension)
    return sizes


def checked_dims(dims: Sequence[int], *, key: str = "dims") -> list[int]:
    """Return the sizes in order, without the 0 that is always there.

    Raises:
        InputError: for anything but whole numbers from 0 on, at least one above.
    """
    for dim in dims:
        if isinstance(dim, bool) or not isinstance(dim, int | np.integer):
            raise InputError(f"{key} must be whole numbers, got {dim!r}")
        if not 0 <= dim <= LARGEST_DIM:
            raise InputError(f"{key} must be from 0 to {LARGEST_DIM}, got {dim}")
    sizes = sorted({int(dim) for dim in dims} - {0})
    if not sizes:
        raise InputError(f"{key} must hold a size above 0, got {list(dims)}")
    return sizes


def swept_words(sizes: Mapping[str, Sizes]) -> dict[str, str]:
    """Return what the sizes of each model are called: ``dimension``, or the argument swept."""
    return {name: "dimension" if own.is_dimension else own.argument for name, own in sizes.items()}
