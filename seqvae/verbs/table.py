"""The table of verbs: what ``seqvae/__init__.pyi`` imports from ``seqvae/verbs``, a line each.

A verb is a file of its own with a function of the same name; beside it ``shown(answer, arguments)``
lays out what the command line prints; where there are such, ``completed(arguments)`` adds what a
command leaves out and ``exit_code(answer)`` tells its exit code. The first line of the file is its
line in the help. All that the command line must know before it imports a verb, and with it torch,
is read from the text of these files.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Verb:
    """A verb.

    Attributes:
        name: of the verb, its function and its file.
    """

    name: str

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse((PACKAGE / "verbs" / f"{self.name}.py").read_text(encoding="utf-8"))

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        line = (ast.get_docstring(self._tree) or "").partition("\n")[0].rstrip(".")
        return line[:1].lower() + line[1:]

    @cached_property
    def arguments(self) -> frozenset[str]:
        """The names of its arguments."""
        (function,) = (
            node
            for node in self._tree.body
            if isinstance(node, ast.FunctionDef) and node.name == self.name
        )
        return frozenset(
            argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)
        )

    @property
    def reads_run(self) -> bool:
        """Whether it asks runs, which answer for their data; else a config may be named."""
        return not self.arguments.isdisjoint(("run", "runs"))

    @property
    def learns(self) -> bool:
        """Whether it learns models, so that a config of its own says which."""
        return not self.arguments.isdisjoint(("model", "models"))

    @property
    def function(self) -> Callable[..., Any]:
        """What does it."""
        function: Callable[..., Any] = getattr(self._module, self.name)
        return function

    def completed(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments of a command with what it left out."""
        complete = self._hook("completed")
        return arguments if complete is None else complete(arguments)

    def shown(self, answer: Any, arguments: Mapping[str, Any]) -> str:
        """Return what the command line prints of an answer."""
        text: str = self._module.shown(answer, arguments)
        return text

    def exit_code(self, answer: Any) -> int:
        """Return the exit code of the command, 0 unless the verb says another."""
        code = self._hook("exit_code")
        return 0 if code is None else int(code(answer))

    def _hook(self, name: str) -> Callable[..., Any] | None:
        """Return a function that the file of the verb defines itself."""
        hook: Callable[..., Any] | None = getattr(self._module, name, None)
        return hook if getattr(hook, "__module__", None) == self._module.__name__ else None

    @property
    def _module(self) -> Any:
        return import_module(f"seqvae.verbs.{self.name}")


def verbs() -> dict[str, Verb]:
    """Return the verbs by name, in the order of the stub."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    imports = (node for node in stub.body if isinstance(node, ast.ImportFrom))
    return {
        alias.name: Verb(alias.name)
        for node in imports
        if node.module == f"verbs.{node.names[0].name}"
        for alias in node.names
    }
