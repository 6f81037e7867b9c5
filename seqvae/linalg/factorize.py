"""The front door: factorise, by the back end that is fastest for the case."""

from __future__ import annotations

from collections.abc import Callable

from seqvae.linalg.banded import Banded
from seqvae.linalg.block_tridiagonal import BlockTridiagonal, Factor
from seqvae.linalg.cyclic_reduction import CyclicReduction
from seqvae.linalg.sequential import Sequential

# Measured by benchmarks/block_tridiagonal.py.
STEPS_WORTH_LAPACK = 8


def factorize(
    matrix: BlockTridiagonal, backend: Callable[[BlockTridiagonal], Factor] | None = None
) -> Factor:
    """Return a Cholesky factor of symmetric positive definite block-tridiagonal matrices.

    Nothing is raised where one of them is not positive definite: see ``Factor``.

    Args:
        matrix: P, a batch of them.
        backend: ``Sequential``, ``CyclicReduction`` or ``Banded``, which agree to rounding; None:
            ``default_backend(matrix)``.
    """
    return (backend or default_backend(matrix))(matrix)


def default_backend(matrix: BlockTridiagonal) -> Callable[[BlockTridiagonal], Factor]:
    """Return the back end that is fastest for this matrix.

    On an accelerator ``CyclicReduction``, whose calls are few. On a CPU, where a gradient is to
    flow into P, ``Sequential``. Without gradient ``Banded``, unless the chains are so short that
    its call for each is dearer. It never depends on the size of the batch, because what a draw
    makes of the same noise depends on the order of elimination.
    """
    if matrix.diagonal.device.type != "cpu":
        return CyclicReduction
    if matrix.tracks_gradient:
        return Sequential
    return Banded if matrix.diagonal.shape[1] >= STEPS_WORTH_LAPACK else Sequential
