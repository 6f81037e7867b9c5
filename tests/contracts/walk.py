"""Finds the members of a family by walking its folder, so that a new one is tested unasked."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from functools import partial
from types import ModuleType
from typing import Any

from seqvae.config.signatures import parameters


def members(package: ModuleType, base: type) -> list[type]:
    """Return the concrete subclasses of ``base`` in the modules of a package, by name."""
    found: set[type] = set()
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        for value in vars(importlib.import_module(info.name)).values():
            if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value):
                found.add(value)
    return sorted(found, key=lambda member: member.__name__)


def variants(member: type) -> list[partial[Any]]:
    """Return a class as it is built by default, and once for each other word of its settings."""
    words = [
        {name: word}
        for name, parameter in parameters(member).items()
        if typing.get_origin(parameter.annotation) is typing.Literal
        for word in typing.get_args(parameter.annotation)
        if word != parameter.default
    ]
    return [partial(member, **setting) for setting in [{}, *words]]
