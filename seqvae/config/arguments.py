"""How a config gives an argument that Python gives more freely."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class InConfig:
    """Beside a type in ``Annotated``: how a config, and so a flag, gives the argument.

    Attributes:
        annotation: the type that a config gives, where Python takes others, too; None: the same.
        is_there: whether a config has the argument at all.
        tells_default: whether a written config tells the default, too. An argument that came later
            and whose default is what was before it leaves written configs as they were.
    """

    annotation: Any = None
    is_there: bool = True
    tells_default: bool = True


def shown_in_config(annotation: Any) -> tuple[Any, InConfig]:
    """Return the type that a config gives for an annotation, and how it gives it."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        marks = [mark for mark in arguments[1:] if isinstance(mark, InConfig)]
        if marks:
            own = marks[0].annotation
            return arguments[0] if own is None else own, marks[0]
    if typing.get_origin(annotation) is typing.Union:
        shown = [shown_in_config(member) for member in arguments]
        marked = [mark for _, mark in shown if mark != InConfig()]
        if marked:
            return typing.Union[tuple(one for one, _ in shown)], marked[0]  # noqa: UP007
    return annotation, InConfig()
