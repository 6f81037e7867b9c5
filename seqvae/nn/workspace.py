"""Buffers that a recursion keeps from one training step to the next."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch

Buffers = TypeVar("Buffers")


class Lease(Generic[Buffers]):
    """The use of some buffers, from a forward pass until its backward pass is done.

    Args:
        entry: the place of the buffers in their workspace.
    """

    def __init__(self, entry: _Entry[Buffers]) -> None:
        self._entry = entry
        self._buffers = entry.buffers

    @property
    def buffers(self) -> Buffers:
        """The buffers, still as this lease filled them.

        Raises:
            RuntimeError: a later forward pass has filled them anew.
        """
        if self._entry.holder() is not self:
            raise RuntimeError(
                "a graph was gone through a second time after another forward pass, which took "
                "over its buffers; call backward for all of it first, or use recursion='loop'"
            )
        return self._buffers

    def release(self) -> None:
        """Let the next forward pass have the buffers; until then they stay as they are."""
        self._entry.free = True


class _Entry(Generic[Buffers]):
    """One set of buffers and who fills it."""

    def __init__(self, key: Hashable, buffers: Buffers) -> None:
        self.key = key
        self.buffers = buffers
        self.free = True
        self.holder: Callable[[], Lease[Buffers] | None] = lambda: None

    @property
    def available(self) -> bool:
        """Whether the last lease is released, or its graph gone."""
        return self.free or self.holder() is None


class Workspace(Generic[Buffers]):
    """Keeps the buffers of the last few shapes; fresh memory costs more than what is put into it.

    A large tensor that is made anew in every step is mapped by the operating system page by page,
    which on CPU takes as long as the matrix products that fill it. A copy of a workspace is empty.

    Args:
        capacity: shapes kept: a full batch, the last, smaller one of an epoch, and validation's.
    """

    def __init__(self, capacity: int = 3) -> None:
        self._capacity = capacity
        self._entries: list[_Entry[Buffers]] = []
        self._lock = threading.Lock()

    def lease(self, key: Hashable, make: Callable[[], Buffers]) -> Lease[Buffers]:
        """Return buffers for the shape ``key``, made by ``make`` if none of it is free."""
        with self._lock:
            entry = next((e for e in self._entries if e.key == key and e.available), None)
            if entry is None:
                with torch.inference_mode(False):  # or only inference could ever write to them
                    entry = _Entry(key, make())
                idle = [other for other in self._entries if other.available]
                for other in idle[: len(self._entries) + 1 - self._capacity]:
                    self._entries.remove(other)
                if len(self._entries) < self._capacity:
                    self._entries.append(entry)
            lease = Lease(entry)
            entry.free, entry.holder = False, weakref.ref(lease)
            return lease

    def __deepcopy__(self, memo: dict) -> Workspace[Buffers]:
        return Workspace(self._capacity)

    def __reduce__(self) -> tuple:
        return Workspace, (self._capacity,)


def refuse_second_derivatives() -> None:
    """Refuse a backward pass that is to be differentiated in its turn (``create_graph=True``).

    Raises:
        RuntimeError: it would not be recorded, and a derivative of it silently wrong.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the fused recursion is differentiable once only; for create_graph=True build the "
            "model with recursion='loop'"
        )
