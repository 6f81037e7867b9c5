"""Matrix products into a buffer, by the library that is fastest at them.

On x86 torch multiplies single precision by MKL, which leaves the AVX-512 units of CPUs that are
not Intel's unused: half the speed of a Zen 5. oneDNN, which torch brings along for its compiler,
uses them. A Zen 4 computes AVX-512 in two halves, and MKL, which writes its products in place, is
as fast there but at long sums. oneDNN is taken where it is known to win, and nowhere else; the
choice depends on the machine and the shapes only, so that a run can be repeated bit for bit.
"""

from __future__ import annotations

import functools
import math
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

FEWEST_PRODUCTS = 1_000_000
"""Multiplications below which the call of oneDNN costs more than it saves."""

LONG_SUM = 512.0
"""Summands of an entry from which on oneDNN wins where both libraries use the same units."""

ZEN_5 = 26
"""The family of AMD's CPUs from which on AVX-512 is computed in one piece."""


class Products(NamedTuple):
    """The ways to use left @ right.

    Attributes:
        new: (left, right) -> the product.
        write: (buffer, left, right) puts it into the buffer.
        add: (buffer, left, right) adds it to the buffer.
        write_steps: (buffers, left, rights) puts left @ right into the buffer of each step, for
            which the first axis stands.
    """

    new: Callable[[Tensor, Tensor], Tensor]
    write: Callable[[Tensor, Tensor, Tensor], object]
    add: Callable[[Tensor, Tensor, Tensor], object]
    write_steps: Callable[[Tensor, Tensor, Tensor], object]


def products(rows: int, inner: int, columns: int, *, like: Tensor) -> Products:
    """Return the fastest way to multiply (rows, inner) by (inner, columns).

    Args:
        rows: of the left factor and of the product.
        inner: columns of the left factor, rows of the right one.
        columns: of the right factor and of the product.
        like: gives dtype and device.
    """
    large = rows * inner * columns >= FEWEST_PRODUCTS
    single = like.dtype == torch.float32 and like.device.type == "cpu"
    return ONEDNN if large and single and inner >= onednn_from() else TORCH


@functools.cache
def onednn_from() -> float:
    """Return from how many summands on oneDNN is faster on this CPU; infinite: never."""
    if not has_onednn() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return math.inf
    return summands_for_onednn(_cpu())


def summands_for_onednn(cpu: str) -> float:
    """Return ``onednn_from`` of a CPU that has AVX-512, by what the system says of it."""
    family = re.search(r"family\s*:?\s*(\d+)", cpu, flags=re.IGNORECASE)
    if "AuthenticAMD" not in cpu or family is None:
        return math.inf
    return 0.0 if int(family[1]) >= ZEN_5 else LONG_SUM


def has_onednn() -> bool:
    """Return whether torch has oneDNN, and the product of it that is used here."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _cpu() -> str:
    """Return what the system says of its CPU, its maker included."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.read_text(errors="replace") if cpuinfo.exists() else platform.processor()


def _torch_write(buffer: Tensor, left: Tensor, right: Tensor) -> None:
    torch.mm(left, right, out=buffer)


def _torch_add(buffer: Tensor, left: Tensor, right: Tensor) -> None:
    buffer.addmm_(left, right)


def _torch_write_steps(buffers: Tensor, left: Tensor, rights: Tensor) -> None:
    torch.bmm(left.expand(len(rights), -1, -1), rights, out=buffers)


def _onednn(left: Tensor, right: Tensor) -> Tensor:
    weight = right.t()
    if not (right.is_contiguous() or weight.is_contiguous()):
        weight = weight.contiguous()  # a weight with gaps falls to a slow reference kernel
    return torch.ops.mkldnn._linear_pointwise(left, weight, None, "none", [], "")


def _onednn_write(buffer: Tensor, left: Tensor, right: Tensor) -> None:
    buffer.copy_(_onednn(left, right))


def _onednn_add(buffer: Tensor, left: Tensor, right: Tensor) -> None:
    buffer.add_(_onednn(left, right))


def _onednn_write_steps(buffers: Tensor, left: Tensor, rights: Tensor) -> None:
    num_steps, inner, columns = rights.shape
    product = _onednn(left, rights.transpose(0, 1).reshape(inner, -1))  # faster than step by step
    buffers.copy_(product.unflatten(1, (num_steps, columns)).transpose(0, 1))


TORCH = Products(torch.mm, _torch_write, _torch_add, _torch_write_steps)
ONEDNN = Products(_onednn, _onednn_write, _onednn_add, _onednn_write_steps)
