"""YAML and JSON from anywhere, read in bounded time and memory; nothing in them is executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from seqvae.errors import InputError

MAX_YAML = 256 * 1024
"""Bytes of the largest config that is read; PyYAML takes seconds for it."""
MAX_JSON = 64 * 1024 * 1024
"""Bytes of the largest JSON file that is read; it holds a few numbers for each neuron."""
_MAX_NODES = 100_000
_MAX_DEPTH = 64
_MAX_DIGITS = 40


def read_yaml(path: str | Path, name: str) -> Any:
    """Read a YAML file of plain values.

    Args:
        path: the file.
        name: what it is called in an error.

    Raises:
        InputError: if it is too large, or no YAML of plain values; with line and column.
        OSError: if it cannot be opened.
    """
    return parse_yaml(read_text(path, name, MAX_YAML), name)


def read_json(path: str | Path, name: str) -> Any:
    """Read a JSON file.

    Raises:
        InputError: if it is too large, or no JSON.
        OSError: if it cannot be opened.
    """
    text = read_text(path, name, MAX_JSON)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is damaged: it is not JSON") from error


def parse_yaml(text: str, name: str) -> Any:
    """Return what YAML text says: numbers, text, lists, mappings.

    Anchors may repeat a part, but not make the whole larger than 100,000 entries.

    Raises:
        InputError: with line and column.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, {}, set())
        return loader.construct_document(node)
    except InputError as error:
        raise InputError(f"{name} is no config: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise InputError(f"{name}{place}: {problem}") from error
    except RecursionError as error:
        raise InputError(f"{name} is no config: it is nested too deeply") from error
    except Exception as error:  # PyYAML's own, for such as 2026-99-99
        raise InputError(f"{name} is not valid YAML: {error}") from error


def read_text(path: str | Path, name: str, most: int) -> str:
    """Read a text file of no more than so many bytes.

    Raises:
        InputError: if it is larger, no text, or a device, which would never end.
        OSError: if it cannot be opened.
    """
    file = Path(path)
    if file.exists() and not file.is_file():
        raise InputError(f"{name} is a folder or a device, not a file")
    with file.open("rb") as opened:
        content = opened.read(most + 1)
    if len(content) > most:
        raise InputError(f"{name} is larger than {most // 1024} kB; no such file of seqvae is")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} cannot be read: it is no text file") from error


def _check_size(node: yaml.Node, sizes: dict[int, int], above: set[int]) -> int:
    """Return the number of values below a node with every alias written out.

    Raises:
        InputError: for too many, too deep, an alias of itself, a key that stands twice, a number
            of too many digits.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    if id(node) in above:
        raise InputError("an anchor contains itself")
    if len(above) > _MAX_DEPTH:
        raise InputError(f"it is nested more than {_MAX_DEPTH} deep")
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(key for place, key in enumerate(keys) if key in keys[:place])
            raise InputError(f"{twice!r} stands twice in one mapping")
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    elif node.tag.endswith((":int", ":float")) and len(node.value) > _MAX_DIGITS:
        raise InputError(f"it has a number of {len(node.value)} digits")
    above.add(id(node))
    size = 1 + sum(_check_size(child, sizes, above) for child in children)
    above.remove(id(node))
    if size > _MAX_NODES:
        raise InputError(f"it holds more than {_MAX_NODES} values, anchors written out")
    sizes[id(node)] = size
    return size
