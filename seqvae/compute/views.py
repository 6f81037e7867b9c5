"""Modules as they are for some of the neurons, whose weights are rows of the whole ones."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Int
from torch import Tensor, nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Chosen(NamedTuple):
    """Some neurons.

    Attributes:
        neurons: their indices among all neurons.
        heldin: the places of those that are held in, among all held-in neurons.
        num_neurons: how many there are in all.
        num_heldin: how many are held in.
    """

    neurons: Int[Tensor, " neuron"]
    heldin: Int[Tensor, " heldin"]
    num_neurons: int
    num_heldin: int


@runtime_checkable
class KnowsNeurons(Protocol):
    """A part that has weights for each neuron."""

    def among(self, chosen: Chosen) -> nn.Module:
        """Return the part for some of the neurons; gradients reach its own weights."""


def view_of(module: AnyModule) -> AnyModule:
    """Return a module that shares everything, of which parts can be put in another's place."""
    view = object.__new__(type(module))
    view.__dict__ = {**module.__dict__, "_modules": dict(module._modules)}
    view.__dict__.pop("forward", None)  # Lightning may have put that of the module there
    for kind in ("_parameters", "_buffers"):
        view.__dict__[kind] = dict(module.__dict__[kind])
    return view


def put(view: nn.Module, name: str, weight: Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer."""
    view._parameters.pop(name, None)
    view._buffers.pop(name, None)
    view.__dict__[name] = weight


def rows_of(module: AnyModule, rows: Int[Tensor, " row"], number: int) -> AnyModule:
    """Return a module of which each weight with ``number`` rows, at any depth, has some of them."""
    view = view_of(module)
    for name, weight in [*module._parameters.items(), *module._buffers.items()]:
        if weight is not None and weight.ndim and len(weight) == number:
            put(view, name, weight.index_select(0, rows.to(weight.device)))
    for name, child in module._modules.items():
        view._modules[name] = None if child is None else rows_of(child, rows, number)
    return view
