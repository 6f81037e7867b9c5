"""One thread for many small systems and products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work with one thread: more wait for each other longer than they work."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


@contextmanager
def one_numpy_thread() -> Iterator[None]:
    """Let numpy's linear algebra work with one thread.

    Its threads spin while they wait for each other: products of some thousand rows took five to
    fifty times the processor's time with two threads, beside other processes on two cores.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield
