"""What the command line prints of a verb before it runs: its arguments, and the config."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import yaml

from seqvae.config import open_parameters, to_config
from seqvae.config.class_paths import class_path, family_names
from seqvae.config.signatures import REQUIRED, Parameter, describe, parameters, read_leaf


def config_text(
    function: Callable[..., Any], arguments: Mapping[str, Any], unnamed: Collection[str] = ()
) -> str:
    """Return every argument of a verb as YAML, defaults included.

    Args:
        function: the verb.
        arguments: as they are built.
        unnamed: keys of learners that say only in what they differ from the default's.
    """
    values = {name: parameter.default for name, parameter in parameters(function).items()}
    values.update(arguments)
    tree = {name: to_config(value, key=name) for name, value in values.items()}
    for key in unnamed:
        holder, _, name = key.rpartition(".")
        sections, built = (tree[holder], values[holder]) if holder else (tree, values)
        sections[name] = _told(built[name]).get("init_args", {})
    return yaml.safe_dump(tree, sort_keys=False)


def _told(value: Any) -> Any:
    """Return what a factory, and each in it, is told, and of anything else its config."""
    if not (isinstance(value, partial) and isinstance(value.func, type)):
        return to_config(value)
    arguments = {name: _told(one) for name, one in value.keywords.items()}
    return {"class_path": class_path(value.func), "init_args": arguments}


def help_text(
    verb: str, function: Callable[..., Any], tree: Mapping[str, Any], *, trust: bool = False
) -> str:
    """Return the arguments of a verb, with those of the classes that are chosen."""
    lines = [f"usage: seqvae {verb} [--key value ...]", "", _summary(function), ""]
    lines += _argument_lines(function, parameters(function), "")
    for name, parameter in parameters(function).items():
        if read_leaf("a folder", parameter.annotation)[0]:
            continue
        lines += _part_lines(tree.get(name), parameter.annotation, name, trust)
    if "data" in parameters(function) and "run" not in parameters(function):
        out = " out.h5" if parameters(function).get("out") else ""
        several = "" if out else " (several: of sessions)"
        lines += ["", f"The file of data{several}, or a config, may stand first, without its flag:"]
        lines += [f"  seqvae {verb} recording.nwb{out} --data.source.bin_width 0.02"]
    if "run" in parameters(function):
        lines += ["", "The run may stand first, without its flag:"]
        lines += [f"  seqvae {verb} runs/mine"]
    if "model" in parameters(function):
        lines += ["", "Add --print_config to see every setting of a run, nested ones, too."]
    return "\n".join(lines) + "\n"


def _part_lines(tree: Any, annotation: Any, key: str, trust: bool) -> list[str]:
    """Return the arguments of the class that a part is, and of the parts of it that are named."""
    opened = open_parameters(tree, annotation, key=key, trust=trust)
    if opened is None:
        return []
    cls, arguments, given = opened
    lines = ["", f"{key}: {_summary(cls)}", *_argument_lines(cls, arguments, f"{key}.")]
    for name, value in given.items():
        if name in arguments and isinstance(value, str | Mapping):
            lines += _part_lines(value, arguments[name].annotation, f"{key}.{name}", trust)
    return lines


def _argument_lines(
    function: Callable[..., Any], arguments: Mapping[str, Parameter], prefix: str
) -> list[str]:
    said = _argument_docs(function)
    lines = []
    for name, parameter in arguments.items():
        default = "" if parameter.default is REQUIRED else f" [{_short(parameter.default)}]"
        lines.append(f"  --{prefix}{name}  {describe(parameter.annotation)}{default}")
        names = family_names(parameter.annotation)
        sentences = [f"one of {', '.join(names)}"] if len(names) > 1 else []
        for sentence in (*sentences, *filter(None, [said.get(name)])):
            lines += textwrap.wrap(sentence, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines


def _short(default: Any) -> str:
    cls = getattr(default, "func", default)
    if isinstance(cls, type):
        return cls.__name__
    is_plain = default is None or isinstance(default, bool | int | float | str | list | tuple)
    return json.dumps(default) if is_plain else type(default).__name__


def _summary(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")


def _argument_docs(function: Callable[..., Any]) -> dict[str, str]:
    """Read the Args (or Attributes) of a docstring; what it leaves out, of the ancestors'."""
    pattern = re.compile(r"^    (\w+): (.+?)(?=^    \w|^\S|\Z)", re.MULTILINE | re.DOTALL)
    descriptions: dict[str, str] = {}
    for holder in getattr(function, "__mro__", (function,)):
        for name, description in pattern.findall(inspect.cleandoc(holder.__doc__ or "")):
            descriptions.setdefault(name, " ".join(description.split()))
    return descriptions
