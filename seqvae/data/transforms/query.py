"""Conditions on neurons in words, such as "rate > 1 and id != 7"; nothing else is evaluated."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from seqvae.errors import InputError, nearest

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda one, others: np.isin(one, others),
    ast.NotIn: lambda one, others: ~np.isin(one, others),
}
_LONGEST = 1000


def chosen_by(
    query: str, columns: Mapping[str, Shaped[np.ndarray, " neuron"]], *, field: str
) -> Bool[np.ndarray, " neuron"]:
    """Return which neurons meet a condition.

    It is made of names of columns, numbers, texts and lists of these, compared by <, <=, >, >=, ==,
    !=, in and not in, joined by and, or, not and brackets.

    Args:
        query: the condition.
        columns: what is known of each neuron, by name.
        field: the name of the setting, for errors.

    Raises:
        InputError: for anything else, or an unknown name.
    """
    count = len(next(iter(columns.values())))

    def answer(node: ast.expr) -> Any:
        if isinstance(node, ast.BoolOp):
            parts = [answer(part) for part in node.values]
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return join.reduce(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return np.logical_not(answer(node.operand))
        if isinstance(node, ast.Compare):
            sides = [value(side) for side in (node.left, *node.comparators)]
            pairs = zip(node.ops, sides, sides[1:], strict=False)
            each = [_COMPARE[type(op)](one, other) for op, one, other in pairs]
            return np.logical_and.reduce(each)
        raise _Unknown

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            if node.id not in columns:
                raise InputError(f"{field}: there is no {node.id!r}{nearest(node.id, columns)}")
            return columns[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.Constant) and type(node.value) in (int, float, str):
            return node.value
        if isinstance(node, ast.List | ast.Tuple):
            return [value(item) for item in node.elts]
        raise _Unknown

    try:
        if len(query) > _LONGEST:
            raise _Unknown
        met = np.asarray(answer(ast.parse(query.strip(), mode="eval").body))
    except InputError:
        raise
    except (_Unknown, SyntaxError, TypeError, ValueError, KeyError, RecursionError, MemoryError):
        raise InputError(
            f"{field} must compare {', '.join(columns)} with numbers or texts, e.g. "
            f"'rate > 1 and id != 7', got {query[:80]!r}"
        ) from None
    return np.broadcast_to(met.astype(bool), (count,))


class _Unknown(Exception):
    """Something in a condition that is no part of one."""
