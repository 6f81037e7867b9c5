"""What a class or verb accepts, read from its signature: names, types and defaults.

An annotation asks for values (numbers, text, lists of them), for instances of a family, or for
factories of its members (``Callable[[int, int], Observation]``). ``parts`` tells the last two;
``read_leaf`` checks the first, by jsonargparse.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from argparse import ArgumentError
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from seqvae.config.arguments import InConfig, shown_in_config

REQUIRED = inspect.Parameter.empty
_SCALARS = (bool, int, float, complex, str, bytes, type(None), Path, timedelta, Enum)
_CONTAINERS = (dict, list, tuple, set, frozenset)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """An argument of a class or verb; the default of a required one is ``REQUIRED``."""

    annotation: Any
    default: Any
    tells_default: bool = True


@dataclasses.dataclass(frozen=True)
class Part:
    """An annotation that asks for an instance of ``base``, or for a factory of its instances.

    ``num_facts`` counts the leading arguments that the caller of the factory supplies.
    """

    base: type
    is_factory: bool = False
    num_facts: int = 0


@functools.lru_cache(maxsize=1024)
def parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the named arguments of a class or function that a config may give.

    Where a class passes ``**kwargs`` on, the arguments of its next ancestor are its own, too; not
    those of a namesake, which it wraps and gives its arguments itself, as Lightning's loggers do.
    """
    if not isinstance(function, type):
        return _own_parameters(function)[0]
    arguments: dict[str, Parameter] = {}
    for ancestor in function.__mro__:
        if ancestor is not function and ancestor.__name__ == function.__name__:
            break
        if "__init__" in vars(ancestor) and ancestor is not object:
            declared, passes_on = _own_parameters(ancestor.__init__, ancestor)  # type: ignore[misc]
            arguments.update({name: declared[name] for name in declared if name not in arguments})
            if not passes_on:
                break
    if dataclasses.is_dataclass(function):
        for field in dataclasses.fields(function):
            if field.init and field.default_factory is not dataclasses.MISSING:
                annotation = arguments[field.name].annotation
                arguments[field.name] = Parameter(annotation, field.default_factory())
    return arguments


@functools.lru_cache(maxsize=1024)
def takes_any_name(function: Callable[..., Any]) -> bool:
    """Whether ``**kwargs`` leave the family (a logger's go to its service)."""
    arguments, passes_on = _own_parameters(getattr(function, "__init__", function))
    return passes_on and len(arguments) == len(parameters(function))


def _own_parameters(
    function: Callable[..., Any], cls: type | None = None
) -> tuple[dict[str, Parameter], bool]:
    try:
        listed = inspect.signature(function).parameters.values()
    except ValueError:  # a constructor written in C does not tell
        return {}, False
    hints = _type_hints(function)
    for ancestor in reversed(cls.__mro__) if dataclasses.is_dataclass(cls) else ():
        if dataclasses.is_dataclass(ancestor):  # fields are spelled where they are declared
            hints.update(_type_hints(ancestor))
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    arguments = {}
    for parameter in listed:
        annotation, shown = hints.get(parameter.name, (Any, InConfig()))
        if parameter.kind in named and parameter.name != "self" and shown.is_there:
            arguments[parameter.name] = Parameter(
                annotation, parameter.default, shown.tells_default
            )
    return arguments, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in listed)


def _type_hints(function: Callable[..., Any]) -> dict[str, tuple[Any, InConfig]]:
    """Return what a config gives; what names something for type checkers only is ``Any``."""
    function = inspect.unwrap(function)
    hints: dict[str, tuple[Any, InConfig]] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        module = vars(sys.modules[function.__module__]) if isinstance(function, type) else {}
        try:
            spaces = getattr(function, "__globals__", module)
            whole = typing.get_type_hints(one, spaces, include_extras=True)[name]
        except (NameError, TypeError, SyntaxError):
            whole = Any
        hints[name] = shown_in_config(whole)
    return hints


# --- annotations ---------------------------------------------------------------------------------


def members(annotation: Any) -> list[Any]:
    """List the alternatives of a union, else the annotation alone."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return [leaf for arg in typing.get_args(annotation) for leaf in members(arg)]
    if origin is typing.Annotated:
        return members(typing.get_args(annotation)[0])
    return [annotation]


def parts(annotation: Any) -> list[Part]:
    """List the instances and factories that an annotation asks for."""
    family_parts = []
    for member in members(annotation):
        arguments = typing.get_args(member)
        if typing.get_origin(member) is Callable and len(arguments) == 2:
            facts, base = arguments
            if _is_part(base):
                family_parts.append(Part(base, True, 0 if facts is Ellipsis else len(facts)))
        elif _is_part(member):
            family_parts.append(Part(member))
    return family_parts


def _is_part(annotation: Any) -> bool:
    is_class = isinstance(annotation, type) and typing.get_origin(annotation) is None
    is_array = hasattr(annotation, "__array__")
    return (
        is_class
        and annotation not in (type, Any)  # from Python 3.11 on, ``Any`` is a class, too
        and not _is_value(annotation)
        and not is_array
    )


def _is_value(annotation: Any) -> bool:
    return isinstance(annotation, type) and (
        annotation is object or issubclass(annotation, (*_SCALARS, *_CONTAINERS))
    )


@functools.lru_cache(maxsize=1024)
def is_abstract(cls: type) -> bool:
    """Whether a class leaves methods open, declared abstract with or without ``ABC``."""
    attributes = (inspect.getattr_static(cls, name) for name in dir(cls))
    return any(getattr(attribute, "__isabstractmethod__", False) for attribute in attributes)


def item_annotation(annotation: Any) -> Any:
    """Return the type of the items of a list whose items are parts, else None."""
    for member in members(annotation):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        is_list = isinstance(origin, type) and issubclass(list, origin)
        if is_list and len(arguments) == 1 and parts(arguments[0]):
            return arguments[0]
    return None


def value_annotation(annotation: Any) -> Any:
    """Return the type of the values of a mapping whose values are parts, else None."""
    for member in members(annotation):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
        if is_mapping and len(arguments) == 2 and parts(arguments[1]):
            return arguments[1]
    return None


def read_leaf(value: Any, annotation: Any) -> tuple[bool, Any]:
    """Read a value that is no part: (whether the annotation accepts it, the value as typed)."""
    if any(member in (Any, object) for member in members(annotation)):
        return True, value
    if value is None:  # to the parser, a value that is not given
        return any(member in (None, type(None)) for member in members(annotation)), value
    plain = _without_parts(annotation)
    if plain is None:
        return False, value
    try:
        return True, _leaf_parser(plain).parse_object({"value": value}).value
    except (ArgumentError, ValueError, TypeError):
        return False, value


@functools.lru_cache(maxsize=1024)
def _leaf_parser(annotation: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=annotation)
    return parser


def _without_parts(annotation: Any) -> Any:
    """Strip everything that a value could make import code: classes, callables, ``Any``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return annotation
    if origin is None or origin is typing.Annotated or origin in (typing.Union, types.UnionType):
        alternatives = members(annotation)
        if len(alternatives) > 1 or alternatives != [annotation]:
            plain = [_without_parts(alternative) for alternative in alternatives]
            plain = [alternative for alternative in plain if alternative is not None]
            return typing.Union[tuple(plain)] if plain else None  # noqa: UP007
        if annotation in (None, type(None)):
            return type(None)
        return annotation if _is_value(annotation) else None
    if not (isinstance(origin, type) and issubclass(origin, Collection | Iterable)):
        return None
    plain = [arg if arg is Ellipsis else _without_parts(arg) for arg in arguments]
    if None not in plain:
        generic: Any = origin
        return generic[tuple(plain)]
    return dict if issubclass(origin, Mapping) else None


def describe(annotation: Any) -> str:
    """Tell an annotation in a user's words: ``int or null``, ``a class of Prior``."""
    return " or ".join(dict.fromkeys(_describe(member) for member in members(annotation)))


def _describe(member: Any) -> str:
    family_parts = parts(member)
    if family_parts:
        return f"a class of {family_parts[0].base.__name__}"
    values = value_annotation(member)
    if values is not None:
        return f"{_describe(values)} for each NAME, as .NAME"
    if member in (None, type(None)):
        return "null"
    if isinstance(member, type) and typing.get_origin(member) is None:
        return member.__name__
    if typing.get_origin(member) is typing.Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(member))
    return str(member).replace("typing.", "").replace("collections.abc.", "")
