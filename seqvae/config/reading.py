"""Live objects <-> plain config trees, so that a notebook and a YAML file say the same thing.

A tree is what YAML holds: scalars, lists, mappings. An object stands in it as Lightning writes it,

    {class_path: seqvae.models.VAE, init_args: {latent_dim: 3}}

and reads back as whatever the annotation asks for: ``Callable[[DataSpec], Model]`` gives a factory
(the class, or ``functools.partial`` of it), ``NeuralData`` an instance. Three short forms are read,
too: a class name alone, a bare name for a member of the family asked for (``Poisson``), and the
arguments alone where the annotation leaves no class to choose. Written trees are complete: defaults
stand in them, so that they stay true when a default changes later.

The tree is walked here so that each mistake is told in one sentence with its full key and the
nearest valid name, and so that no class is imported that may not be.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from seqvae.config.class_paths import check_trusted as check_trusted
from seqvae.config.class_paths import class_path, find_class, nearest_class
from seqvae.config.signatures import (
    REQUIRED,
    Parameter,
    Part,
    describe,
    is_abstract,
    item_annotation,
    parameters,
    parts,
    read_leaf,
    takes_any_name,
    value_annotation,
)
from seqvae.config.writing import arguments_of, attributes
from seqvae.config.writing import to_config as to_config
from seqvae.errors import InputError, nearest


def from_config(tree: Any, annotation: Any, *, key: str = "config", trust: bool = False) -> Any:
    """Build what ``annotation`` asks for from a plain tree; all names and types are checked.

    Args:
        tree: a config tree.
        annotation: the type to build.
        key: the dotted name of the tree, for the errors.
        trust: allow classes from anywhere, not only from ``TRUSTED``.

    Raises:
        InputError: naming key, value and nearest valid name.
    """
    items = item_annotation(annotation) if isinstance(tree, list) else None
    if items is not None:
        return [
            from_config(item, items, key=f"{key}[{i}]", trust=trust) for i, item in enumerate(tree)
        ]
    values = value_annotation(annotation) if isinstance(tree, Mapping) else None
    if values is not None:
        return {
            str(name): from_config(item, values, key=_join(key, str(name)), trust=trust)
            for name, item in tree.items()
        }
    if not (isinstance(tree, Mapping) and parts(annotation)):
        accepted, value = read_leaf(tree, annotation)
        if accepted:
            return value
    part, cls, tree_arguments = _open(tree, annotation, key, trust)
    arguments = read_arguments(cls, tree_arguments, key=key, trust=trust, num_facts=part.num_facts)
    if part.is_factory:
        return functools.partial(cls, **arguments) if arguments else cls
    try:
        value = cls(**arguments)
    except InputError:
        raise
    except (ValueError, TypeError, ArithmeticError) as error:
        raise InputError(f"{key}: {error}") from error
    if not set(parameters(cls)) <= set(attributes(value)):
        arguments_of[value] = arguments
    return value


def read_arguments(
    function: Callable[..., Any],
    tree: Mapping[str, Any],
    *,
    key: str = "",
    trust: bool = False,
    num_facts: int = 0,
) -> dict[str, Any]:
    """Build the keyword arguments of a verb or class from a mapping of name to tree.

    Args:
        function: the verb or class.
        tree: the arguments that are given.
        key: the dotted name of the mapping, for the errors.
        trust: allow classes from anywhere.
        num_facts: leading arguments that somebody else supplies.

    Raises:
        InputError: for a name that is not an argument, a wrong value, a missing argument.
    """
    arguments = {}
    for name, value in tree.items():
        parameter = _parameter(function, name, key, num_facts)
        # Foreign signatures say ``x: int = None``; a default is right by definition.
        if not (value is None and parameter.default is None):
            value = from_config(value, parameter.annotation, key=_join(key, name), trust=trust)
        arguments[name] = value
    for name, parameter in _settable(function, num_facts).items():
        if parameter.default is REQUIRED and name not in arguments:
            requested = parts(parameter.annotation)
            raise InputError(
                f"{_join(key, name)} is required: give {describe(parameter.annotation)}"
                f"{nearest_class('', requested) if requested else ''}"
            )
    return arguments


class Opened(NamedTuple):
    """What a tree says of a part: its class, what this takes, and what of it is given."""

    cls: type
    parameters: dict[str, Parameter]
    given: Mapping[str, Any]


def open_parameters(
    tree: Any, annotation: Any, *, key: str = "config", trust: bool = False
) -> Opened | None:
    """Return the class that a tree names, or the only one possible, and its own arguments."""
    try:
        part, cls, given = _open({} if tree is None else tree, annotation, key, trust)
    except InputError:
        return None
    return Opened(cls, _settable(cls, part.num_facts), given)


def setting_of(
    function: Callable[..., Any],
    tree: Mapping[str, Any],
    dotted: str,
    *,
    key: str = "",
    trust: bool = False,
) -> Any:
    """Return the value of a dotted key as ``override`` knows it, the default where none is given.

    Raises:
        InputError: for a key that is not there.
    """
    name, _, rest = dotted.partition(".")
    parameter, key = _parameter(function, name, key), _join(key, name)
    default = None if parameter.default is REQUIRED else parameter.default
    value = tree[name] if name in tree else to_config(default, key=key)
    if not rest:
        return value
    _, cls, arguments = _open({} if value is None else value, parameter.annotation, key, trust)
    return setting_of(cls, arguments, rest, key=key, trust=trust)


def override(
    function: Callable[..., Any],
    tree: Mapping[str, Any],
    assignment: tuple[str, Any],
    *,
    key: str = "",
    trust: bool = False,
) -> dict[str, Any]:
    """Return the arguments' tree with one dotted key set, e.g. ``("model.latent_dim", 3)``.

    ``init_args`` may be left out of the dotted key. Defaults become explicit on the way. A new
    class keeps those of the former class's arguments that it knows.

    Raises:
        InputError: for a key that is not there.
    """
    dotted, value = assignment
    name, _, rest = dotted.partition(".")
    parameter = _parameter(function, name, key)
    annotation, key = parameter.annotation, _join(key, name)
    default = None if parameter.default is REQUIRED else parameter.default
    former = tree[name] if name in tree else to_config(default, key=key)
    return {**tree, name: _assigned(former, annotation, (rest, value), key, trust)}


def _assigned(
    former: Any, annotation: Any, assignment: tuple[str, Any], key: str, trust: bool
) -> Any:
    rest, value = assignment
    if rest == "class_path" or rest.startswith("init_args."):
        rest = rest.partition(".")[2]
    if rest:
        return _override_inside(former, annotation, (rest, value), key, trust)
    if parts(annotation) and isinstance(value, str) and not read_leaf(value, annotation)[0]:
        return _change_class(former, annotation, value, key, trust)
    return value


def _override_inside(
    former: Any, annotation: Any, assignment: tuple[str, Any], key: str, trust: bool
) -> dict[str, Any]:
    if parts(annotation):
        _, cls, arguments = _open({} if former is None else former, annotation, key, trust)
        arguments = override(cls, arguments, assignment, key=key, trust=trust)
        return {"class_path": class_path(cls), "init_args": arguments}
    values = value_annotation(annotation)
    if values is not None and isinstance(former, Mapping | None):
        name, _, rest = assignment[0].partition(".")
        tree = former or {}
        key = _join(key, name)
        return {**tree, name: _assigned(tree.get(name), values, (rest, assignment[1]), key, trust)}
    if read_leaf({}, annotation)[0] and isinstance(former, Mapping | None):
        return {**(former or {}), assignment[0]: assignment[1]}
    raise InputError(f"{key}.{assignment[0]} does not exist: {key} is {describe(annotation)}")


def _change_class(former: Any, annotation: Any, name: str, key: str, trust: bool) -> dict[str, Any]:
    part, cls, _ = _open(name, annotation, key, trust)
    arguments_kept = {}
    if isinstance(former, Mapping):
        _, former_class, arguments = _open(former, annotation, key, trust)
        former_annotations = {name: p.annotation for name, p in parameters(former_class).items()}
        arguments_kept = {
            argument: arguments[argument]
            for argument, parameter in _settable(cls, part.num_facts).items()
            if argument in arguments and former_annotations.get(argument) == parameter.annotation
        }
    return {"class_path": class_path(cls), "init_args": arguments_kept}


def _open(tree: Any, annotation: Any, key: str, trust: bool) -> tuple[Part, type, dict[str, Any]]:
    """Find the class that a node names, what it is asked for, and its arguments."""
    requested = parts(annotation)
    if isinstance(tree, str):
        tree = {"class_path": tree}
    if not requested or not isinstance(tree, Mapping):
        is_name = isinstance(tree, Mapping) and set(tree) == {"class_path"}
        got = tree["class_path"] if is_name else tree
        raise InputError(f"{key} must be {describe(annotation)}, got {got!r}")
    if "class_path" in tree:
        for name in tree:
            if name not in ("class_path", "init_args"):
                raise InputError(f"{key}.{name} must stand under {key}.init_args")
        name = tree["class_path"]
        cls = find_class(name, requested, key, trust)
        is_open = is_abstract(cls)
        for part in requested:
            if issubclass(cls, part.base) and not is_open:
                return part, cls, _arguments(tree, key)
        raise InputError(
            f"{key} must be {describe(annotation)}, got {name!r}"
            f"{', which is abstract' if is_open else ''}{nearest_class('', requested)}"
        )
    if len(requested) == 1 and not is_abstract(requested[0].base):
        return requested[0], requested[0].base, _arguments(tree, key)
    raise InputError(f"{key} has no class: name one (class_path){nearest_class('', requested)}")


def _arguments(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    arguments = tree.get("init_args", {}) if "class_path" in tree else tree
    if not isinstance(arguments, Mapping | None):
        raise InputError(f"{key}.init_args must be a mapping, got {arguments!r}")
    return {str(name): value for name, value in (arguments or {}).items()}


def _settable(function: Callable[..., Any], num_facts: int = 0) -> dict[str, Parameter]:
    """Return the arguments without the leading facts that somebody else supplies."""
    return dict(list(parameters(function).items())[num_facts:])


def _parameter(function: Callable[..., Any], name: str, key: str, num_facts: int = 0) -> Parameter:
    valid = _settable(function, num_facts)
    if name in valid:
        return valid[name]
    if takes_any_name(function):
        return Parameter(Any, REQUIRED)
    raise InputError(f"{_join(key, name)} does not exist{nearest(name, valid)}")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
