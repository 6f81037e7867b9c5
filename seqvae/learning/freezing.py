"""Parts of a model that are left as they are while the others are trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from seqvae.errors import InputError, nearest


def check_freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Refuse a name that is no part of a model, or names that leave nothing to learn.

    Raises:
        InputError: naming the first such name, and the nearest that there are.
    """
    parameters = [name for name, _ in model.named_parameters()]
    parts = {
        ".".join(words[:length])
        for words in (name.split(".") for name in parameters)
        for length in range(1, len(words) + 1)
    }
    for name in names:
        if name not in parts:
            tops = {part for part in parts if "." not in part} if "." not in name else parts
            raise InputError(f"freeze: the model has no part {name!r}{nearest(name, tops)}")
    if parameters and all(_is_part(parameter, names) for parameter in parameters):
        raise InputError(f"freeze: {list(names)} leaves no parameter to learn; freeze less")


@contextmanager
def frozen(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Keep the parameters of some parts as they are: no gradient, no decay, no optimiser state."""
    parameters = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and _is_part(name, names)
    ]
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None  # one that is left over would move it
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _is_part(parameter: str, names: Sequence[str]) -> bool:
    return any(f"{parameter}.".startswith(f"{name}.") for name in names)
