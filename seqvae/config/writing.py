"""Live objects -> plain config trees; ``seqvae.config`` reads them back."""

from __future__ import annotations

import functools
import inspect
import warnings
import weakref
from collections.abc import Hashable, Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from seqvae.config.class_paths import class_path
from seqvae.config.signatures import REQUIRED, Parameter, describe, parameters, read_leaf
from seqvae.errors import InputError

# Arguments of objects built here whose class does not keep them (Lightning's loggers and
# callbacks), so that they can be written again.
arguments_of: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def to_config(value: Any, *, key: str = "config") -> Any:
    """Write a live object as a plain tree, defaults included.

    A source of arrays in memory is written as null: a config holds no data.

    Args:
        value: scalars, paths, lists, mappings, classes, partials of classes, and instances that
            keep each constructor argument under its own name.
        key: the dotted name of the value, for the error.

    Raises:
        InputError: for a lambda or any other thing that no config can name, and for a number, text
            or None that its argument does not take, as the config could not be read again.
    """
    if isinstance(value, type):
        return _write(value, {}, key)
    if isinstance(value, functools.partial) and isinstance(value.func, type) and not value.args:
        return _write(value.func, value.keywords, key)
    if isinstance(value, functools.partial) or inspect.isroutine(value):
        name = getattr(value, "__qualname__", repr(value))
        raise InputError(f"{key}: use a class or functools.partial of a class, got {name}")
    if isinstance(value, Enum):
        return value.name
    if hasattr(value, "__array__"):
        if value.ndim:
            raise InputError(f"{key}: an array cannot stand in a config, give its values as a list")
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path | timedelta):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): to_config(item, key=f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_config(item, key=f"{key}[{i}]") for i, item in enumerate(value)]
    return _write_instance(value, key)


def _write(cls: type, arguments: Mapping[str, Any], key: str) -> dict[str, Any]:
    if "<locals>" in cls.__qualname__:
        raise InputError(f"{key}: {cls.__name__} must be defined at the top level of a module")
    known = parameters(cls)
    values = {name: parameter.default for name, parameter in known.items()} | dict(arguments)
    # To torch and Lightning None means "as you think best", and their signatures grow.
    is_foreign = cls.__module__.split(".")[0] in ("torch", "pytorch_lightning")
    init_args = {
        name: to_config(value, key=f"{key}.{name}")
        for name, value in values.items()
        if value is not REQUIRED
        and not (is_foreign and repr(value) in ("None", "'deprecated'"))
        and not (name in known and not known[name].tells_default and value == known[name].default)
    }
    for name in () if is_foreign else arguments.keys() & known.keys():
        _check_scalar(arguments[name], known[name], f"{key}.{name}")
    return {"class_path": class_path(cls)} | ({"init_args": init_args} if init_args else {})


def _check_scalar(value: Any, parameter: Parameter, key: str) -> None:
    """Refuse a number, text or None that an argument does not take."""
    if not (value is None or isinstance(value, bool | int | float | str)):
        return
    accepted, typed = read_leaf(value, parameter.annotation)
    is_turned = isinstance(value, str) and isinstance(typed, bool | int | float)  # "3" into 3
    is_turned |= isinstance(value, float) and isinstance(typed, int)
    if value != parameter.default and (is_turned or not accepted):
        raise InputError(f"{key} must be {describe(parameter.annotation)}, got {value!r}")


def _write_instance(value: Any, key: str) -> dict[str, Any] | None:
    cls: Any = type(value)
    if getattr(value, "in_memory", False):
        return None
    names, stored = list(parameters(cls)), attributes(value)
    if not set(names) <= set(stored) and isinstance(value, Hashable) and value in arguments_of:
        return _write(cls, arguments_of[value], key)
    arguments = {name: stored[f"_{name}"] for name in names if f"_{name}" in stored}
    arguments.update({name: stored[name] for name in names if name in stored})
    lost = [name for name in names if name not in arguments]
    if any(parameters(cls)[name].default is REQUIRED for name in lost):
        raise InputError(
            f"{key}: a {cls.__name__} cannot be written to a config, because it does not keep its "
            f"argument {lost[0]!r} as an attribute"
        )
    if lost:
        warnings.warn(
            f"{key}: {cls.__name__} does not keep {', '.join(lost)}; the config shows the default",
            stacklevel=2,
        )
    return _write(cls, arguments, key)


def attributes(value: Any) -> dict[str, Any]:
    """Return what an object stores, without waking its properties (a logger's start a service)."""
    cls: Any = type(value)
    slots = {
        name: getattr(value, name)
        for name in parameters(cls)
        if inspect.ismemberdescriptor(inspect.getattr_static(cls, name, None))
    }
    return {**slots, **getattr(value, "__dict__", {})}
