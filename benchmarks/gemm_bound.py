"""A lower bound of the training step: its matrix products alone, each by the library fastest at it.

The libraries are those that the package itself may multiply by: torch.mm (MKL on x86) and oneDNN.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import NamedTuple

import torch
from sizes import Size
from torch import Tensor
from worker import Block, Turns

from seqvae.nn.products import ONEDNN, TORCH, has_onednn, onednn_from

ROWS = 1024  # of a block, where all steps can be one product
RUNS = 7  # the fastest counts: a bound is not to hold what other programs take
SECONDS = 1e-3  # of a run, at least


class Product(NamedTuple):
    """``times`` products of an (m, k) with a (k, n) matrix; ``times`` may be a fraction."""

    name: str
    times: float
    m: int
    k: int
    n: int

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        return 2.0 * self.times * self.m * self.k * self.n


def products(size: Size) -> list[Product]:
    """Every matrix product of forward and backward.

    Products within a recursion are done step by step, with ``batch`` rows. All others (input
    projections, weight gradients, readout) are done over time x batch, in blocks of ``ROWS`` rows.
    """
    s, inputs = size, size.inferred_input_dim
    encoded, bins = s.num_encoded, s.num_bins
    gates = 3 * s.generator_dim
    both = 2 * s.encoder_dim
    found: list[Product] = []

    def at_once(name: str, steps: int, k: int, n: int, *, to_inputs: bool = True) -> None:
        """Map k -> n over all steps; its weight gradient; the gradient of its inputs."""
        blocks = steps * s.batch_size / ROWS
        found.append(Product(name, blocks, ROWS, k, n))
        found.append(Product(f"{name}, to weights", blocks, n, ROWS, k))
        if to_inputs:
            found.append(Product(f"{name}, to inputs", blocks, ROWS, n, k))

    def stepwise(name: str, steps: int, k: int, n: int) -> None:
        """Map k -> n within a recursion: only the weight gradient is done at once."""
        found.append(Product(name, steps, s.batch_size, k, n))
        found.append(Product(f"{name}, to states", steps, s.batch_size, n, k))
        found.append(Product(f"{name}, to weights", steps * s.batch_size / ROWS, n, ROWS, k))

    for encoder in ("initial condition", "controller")[: 2 if inputs else 1]:
        directions = 2 * encoded
        encoder_gates = 3 * s.encoder_dim
        at_once(f"{encoder} encoder, data", directions, s.num_heldin, encoder_gates,
                to_inputs=False)  # fmt: skip
        stepwise(f"{encoder} encoder, recurrent", directions, s.encoder_dim, encoder_gates)
    stepwise("initial condition", 1, both, 2 * s.initial_condition_dim)
    stepwise("initial state", 1, s.initial_condition_dim, s.generator_dim)
    if inputs:
        controller_gates = 3 * s.controller_dim
        at_once("controller, encoding", encoded, both, controller_gates)
        stepwise("controller, factors", encoded, s.factor_dim, controller_gates)
        stepwise("controller, recurrent", encoded, s.controller_dim, controller_gates)
        stepwise("inferred inputs", encoded, s.controller_dim, 2 * inputs)
        stepwise("generator, inputs", encoded, inputs, gates)
        at_once("generator, forecast inputs", bins - encoded, inputs, gates)
    stepwise("generator, recurrent", bins, s.generator_dim, gates)
    if inputs:
        stepwise("factors", encoded, s.generator_dim, s.factor_dim)
    free = bins - encoded if inputs else bins
    at_once("factors, not fed back", free, s.generator_dim, s.factor_dim)
    at_once("readout", bins, s.factor_dim, s.num_neurons)
    return found


def libraries() -> dict[str, Callable[[Tensor, Tensor, Tensor], object]]:
    """Return what can multiply here: (buffer, left, right) -> the product, in it or anew."""
    found: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {"torch.mm": TORCH.write}
    if has_onednn():
        found["oneDNN"] = lambda _, left, right: ONEDNN.new(left, right)
    return found


def seconds_of(
    m: int, k: int, n: int, multiply: Callable[[Tensor, Tensor, Tensor], object]
) -> float:
    """Seconds of one product, or of its transpose if that is faster."""
    return min(_seconds(m, k, n, multiply), _seconds(n, k, m, multiply))


def _seconds(m: int, k: int, n: int, multiply: Callable[[Tensor, Tensor, Tensor], object]) -> float:
    left, right, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)

    def run(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            multiply(out, left, right)
        return (time.perf_counter() - start) / repeats

    repeats = int(SECONDS / run(3)) + 1
    return min(run(repeats) for _ in range(RUNS))


def measure(turns: Turns, size: Size) -> None:
    """Hand over the bound, measured anew each turn."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    listed = products(size)
    total = sum(product.flops for product in listed)
    shapes = sorted({(p.m, p.k, p.n) for p in listed})
    least = onednn_from()
    taken = "torch.mm" if least == inf else f"oneDNN for large ones of {least:g} summands or more"
    turns.wait()
    while True:
        seconds = {
            name: {shape: seconds_of(*shape, multiply) for shape in shapes}
            for name, multiply in libraries().items()
        }
        best = {shape: min(of[shape] for of in seconds.values()) for shape in shapes}
        bound = sum(p.times * best[p.m, p.k, p.n] for p in listed)
        rates = [f"{total / bound / 1e9:.0f}/s by the faster of each shape"]
        for name, of in seconds.items():
            alone = sum(p.times * of[p.m, p.k, p.n] for p in listed)
            rates.append(f"{total / alone / 1e9:.0f}/s by {name}")
        note = f"{total / 1e9:.1f} GFLOP at {', '.join(rates)}; the fused step takes {taken}"
        turns.wait(Block(bound, note=note))
