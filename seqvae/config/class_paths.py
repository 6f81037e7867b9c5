"""Dotted paths of classes: the dotted path is the registry.

A part is found by the path of its class, wherever it lives, or by its bare name beside the base
class of its family. A config that somebody else wrote may name trusted packages only.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from seqvae.config.signatures import Part, is_abstract, parts
from seqvae.errors import InputError, nearest

MOST_NAMES = 16
TRUSTED = ("seqvae.", "torch.optim.", "pytorch_lightning.")


def class_path(cls: type) -> str:
    """Return the shortest dotted path of a class: through the package that re-exports it.

    Not through ``seqvae`` itself, whose names are there only once they were used.
    """
    parents = cls.__module__.split(".")
    for length in range(2 if parents[0] == "seqvae" else 1, len(parents)):
        package = sys.modules.get(".".join(parents[:length]))
        if package is not None and vars(package).get(cls.__name__) is cls:
            return ".".join([*parents[:length], cls.__name__])
    return f"{cls.__module__}.{cls.__qualname__}"


def check_trusted(tree: Any) -> None:
    """Refuse a loaded config that names a class outside ``TRUSTED``, before importing any.

    ``from_config`` without ``trust`` holds the same line, for the short forms, too.

    Raises:
        InputError: naming the class path.
    """
    paths = list(_class_paths(tree))
    for path in paths:
        _check_prefix(path, "class_path")
    for path in paths:
        _import_class(path, "class_path", trust=False)


def _class_paths(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            if name == "class_path":
                yield value
            else:
                yield from _class_paths(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from _class_paths(item)


def _check_prefix(path: Any, key: str) -> None:
    if not isinstance(path, str) or not path.startswith(TRUSTED):
        raise InputError(
            f"{key} {path!r} is no class of seqvae, torch.optim or pytorch_lightning; if you trust "
            "where this run comes from, allow it with trust=True (--trust)"
        )


def _import_class(path: Any, key: str, trust: bool) -> type:
    """Import a class by module and name, without walking through attributes of modules."""
    if not trust:
        _check_prefix(path, key)
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")):
        raise InputError(f"{key} must be the dotted path of a class, got {path!r}")
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        is_absent = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(
            f"{error.name}."
        )
        reason = f"there is no module {module_name!r}" if is_absent else f"{error!r}"
        raise InputError(f"{key}: cannot import {path!r}, {reason}") from error
    if not hasattr(module, name):
        raise InputError(f"{key}: module {module_name!r} has no class {name!r}")
    cls = getattr(module, name)
    if not isinstance(cls, type):
        raise InputError(f"{key}: {path!r} is not a class")
    if not trust:
        _check_prefix(f"{cls.__module__}.{cls.__qualname__}", key)
    return cls


def find_class(path: Any, requested: list[Part], key: str, trust: bool) -> type:
    """Return the class at a dotted path, or the member of the asked families with a bare name.

    Raises:
        InputError: naming ``key``, the path and the nearest valid one.
    """
    if isinstance(path, str) and "." not in path:
        for cls in _family(requested):
            if cls.__name__ == path:
                return cls
        raise InputError(f"{key}: there is no class {path!r}{nearest_class(path, requested)}")
    try:
        return _import_class(path, key, trust)
    except InputError as error:
        if trust or str(path).startswith(TRUSTED):
            raise InputError(f"{error}{nearest_class(str(path), requested)}") from error
        raise


def _family(requested: list[Part]) -> list[type]:
    """List the concrete classes that stand beside the bases, in their modules and packages."""
    classes: dict[type, None] = {}
    for part in requested:
        package, _, _ = part.base.__module__.rpartition(".")
        for name in filter(None, (part.base.__module__, package)):
            for cls in vars(importlib.import_module(name)).values():
                is_member = isinstance(cls, type) and issubclass(cls, part.base)
                if is_member and not is_abstract(cls):
                    classes[cls] = None
    return list(classes)


def family_names(annotation: Any) -> list[str]:
    """Return the bare names that may stand for a part; none where there are a great many."""
    names = [cls.__name__ for cls in _family(parts(annotation))]
    return names if len(names) <= MOST_NAMES else []


def nearest_class(path: str, requested: list[Part]) -> str:
    """Name the members of the asked families that are nearest to a path or bare name."""
    if "." not in path:
        return nearest(path, [cls.__name__ for cls in _family(requested)])
    family = _family(requested)
    namesakes = [cls for cls in family if cls.__name__ == path.rpartition(".")[2]]
    return nearest(path, map(class_path, namesakes or family))
