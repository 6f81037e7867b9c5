"""Finds the members of a family by walking its folder, so that a new one is tested unasked."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType


def members(package: ModuleType, base: type) -> list[type]:
    """Return the concrete subclasses of ``base`` in the modules of a package, by name."""
    found: set[type] = set()
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        for value in vars(importlib.import_module(info.name)).values():
            if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value):
                found.add(value)
    return sorted(found, key=lambda member: member.__name__)
