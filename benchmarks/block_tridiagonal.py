"""Back ends of block-tridiagonal systems side by side, as multiples of the default's time.

Rounds alternate between the back ends in one process, on one thread; the figures are milliseconds
of the fastest rounds and their ratio to that of the default, which bears a star.
``--device cuda`` runs the same on an accelerator, without ``Banded``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from seqvae.linalg import Banded, BlockTridiagonal, CyclicReduction, Factor, Sequential, factorize
from seqvae.linalg.factorize import default_backend

SIZES = [
    (40, 100, 3),
    (70, 200, 8),
    (200, 100, 16),
    (10, 2000, 4),
    (1, 2000, 4),
    (1000, 10, 4),
    (2000, 1, 8),
]
Backend = Callable[[BlockTridiagonal], Factor]
BACKENDS: list[Backend] = [Sequential, CyclicReduction, Banded]
Task = Callable[[Factor, torch.Tensor], object]


def problem(size: tuple[int, int, int]) -> tuple[BlockTridiagonal, torch.Tensor]:
    """A posterior precision of slow dynamics seen through a few neurons, and right-hand sides."""
    batch, num_steps, dim = size
    torch.manual_seed(0)
    dynamics = 0.97 * torch.linalg.qr(torch.randn(dim, dim)).Q
    readout = 0.5 * torch.randn(batch, num_steps, 2 * dim, dim)
    prior = 10 * (torch.eye(dim) + dynamics.T @ dynamics)
    lower = (-10 * dynamics).expand(batch, num_steps - 1, dim, dim).contiguous()
    rhs = torch.randn(batch, num_steps, dim)
    return BlockTridiagonal(prior + readout.mT @ readout, lower), rhs


def newton_step(factor: Factor, rhs: torch.Tensor) -> object:
    """What each Newton iteration asks."""
    return factor.solve(rhs), factor.logdet


def moments(factor: Factor, rhs: torch.Tensor) -> object:
    """What the end of a Newton search asks."""
    return factor.selected_inverse()


def draw(factor: Factor, rhs: torch.Tensor) -> object:
    """Mean, draw and log-determinant, and their gradient."""
    path = factor.solve(rhs) + factor.draw(rhs)
    return (path.square().sum() + factor.logdet.sum()).backward()


def draw_and_moments(factor: Factor, rhs: torch.Tensor) -> object:
    """The same with the blocks of the inverse, as a KL needs them."""
    inverse = factor.selected_inverse()
    path = factor.solve(rhs) + factor.draw(rhs)
    moments = inverse.diagonal.square().sum() + inverse.lower.square().sum()
    return (path.square().sum() + factor.logdet.sum() + moments).backward()


def fastest(
    task: Task, matrix: BlockTridiagonal, rhs: torch.Tensor, backends: list[Backend], rounds: int
) -> list[float]:
    """Milliseconds of the fastest round of each back end, taking turns."""
    seconds = [float("inf")] * len(backends)
    for _ in range(rounds + 1):
        for i, backend in enumerate(backends):
            start = time.perf_counter()
            task(factorize(matrix, backend), rhs)
            if rhs.is_cuda:
                torch.cuda.synchronize()
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    return [1e3 * s for s in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, arguments.dtype))
    print(f"{'task':<22}{'trials, time, dim':>18}{'Sequential':>20}{'CyclicReduction':>20}", end="")
    print(f"{'Banded':>20}")
    tasks = [(newton_step, False), (moments, False), (draw, True), (draw_and_moments, True)]
    for task, gradient in tasks:
        for size in SIZES:
            matrix, rhs = problem(size)
            matrix = BlockTridiagonal(
                matrix.diagonal.to(arguments.device).requires_grad_(gradient),
                matrix.lower.to(arguments.device).requires_grad_(gradient),
            )
            backends = BACKENDS if arguments.device == "cpu" and not gradient else BACKENDS[:2]
            times = fastest(task, matrix, rhs.to(arguments.device), backends, arguments.rounds)
            default = backends.index(default_backend(matrix))
            cells = "".join(
                f"{t:12.2f}{t / times[default]:6.2f}{' *'[i == default]:<2}"
                for i, t in enumerate(times)
            )
            print(f"{task.__name__:<22}{str(size)[1:-1]:>18}{cells}", flush=True)


if __name__ == "__main__":
    main()
