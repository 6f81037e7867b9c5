"""Whether compiled gates would make the training step of the sequential VAE faster.

    python benchmarks/compiled_gates.py

Compiles ``compiled_gates.c`` by the C compiler of the system, for this processor, with vector
exponentials, and times it beside the passes of the package (``GRUPath.advance``, ``Slopes``) over
the gates of whole sequences, in turn: milliseconds of all steps of each recursion of the sizes
``small`` and ``maze``, without their products. Needs gcc or clang, and glibc's ``libmvec``.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sizes import SIZES

from seqvae.nn.gru_path import GRUPath

FLAGS = ["-O3", "-march=native", "-ffast-math", "-fopenmp-simd", "-shared", "-fPIC"]
ROUNDS = 30


def compiled(folder: Path) -> ctypes.CDLL:
    """Return the library of the kernels."""
    source, library = Path(__file__).with_suffix(".c"), folder / "gates.so"
    command = [os.environ.get("CC", "cc"), *FLAGS, str(source), "-o", str(library)]
    subprocess.run([*command, "-lmvec", "-lm"], check=True)
    return ctypes.CDLL(str(library))


def of_package(path: GRUPath) -> None:
    """Make the states of all steps, and the gradients to all gate rows, as the package does."""
    for step in range(path.num_steps):
        path.advance(step)
    assert path.slopes is not None
    path.slopes.gradient.fill_(1.0)
    for block in path.slopes.blocks():
        for step in range(block.stop - 1, block.start - 1, -1):
            path.slopes.step(step - block.start, step)


def of_library(path: GRUPath, library: ctypes.CDLL) -> None:
    """Make the same by the compiled kernels."""
    slopes, size = path.slopes, path.hidden * path.columns
    assert slopes is not None
    apart = 4 * size  # bytes from gate to gate

    def rows(buffer: torch.Tensor) -> list[ctypes.c_void_p]:
        return [ctypes.c_void_p(buffer.data_ptr() + gate * apart) for gate in range(4)]

    def place(buffer: torch.Tensor) -> ctypes.c_void_p:
        return ctypes.c_void_p(buffer.data_ptr())

    for step in range(path.num_steps):
        for cell, states in enumerate(path.cell_states):
            gates = rows(path.gates[step, cell])
            library.forward(*gates, place(states[step]), place(states[step + 1]), size)
    slopes.gradient.fill_(1.0)
    for block in reversed(list(path.blocks())):
        for step in range(block.stop - 1, block.start - 1, -1):
            for cell, states in enumerate(path.cell_states):
                gates, after = rows(path.gates[step, cell]), place(states[step + 1])
                gradient = place(slopes.cell_gradients[cell])
                to_rows = rows(slopes.rows[step - block.start, cell])
                library.backward(*gates, after, gradient, *to_rows, size)


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with TemporaryDirectory() as folder:
        library = compiled(Path(folder))
        for name in ("small", "maze"):
            size = SIZES[name]
            recursions = {
                "two encoders": (2, size.num_encoded, 2, size.encoder_dim),
                "controller": (1, size.num_bins, 1, size.controller_dim),
                "generator": (1, size.num_bins, 1, size.generator_dim),
            }
            for told, (number, num_steps, cells, hidden) in recursions.items():
                like = torch.zeros(())
                path = GRUPath(num_steps, cells, hidden, size.batch_size, like=like, keep=True)
                sums = torch.randn_like(path.gates)
                ways = {"package": lambda p=path: of_package(p),
                        "compiled": lambda p=path: of_library(p, library)}  # fmt: skip
                spent: dict[str, list[float]] = {way: [] for way in ways}
                ends = {}
                for _ in range(ROUNDS):
                    for way, work in ways.items():
                        path.gates.copy_(sums)
                        spent[way].append(number * 1e3 * seconds(work))
                        ends[way] = path.states[-1].clone()
                assert path.slopes is not None
                torch.testing.assert_close(ends["package"], ends["compiled"], atol=1e-5, rtol=0)
                package, ours = (statistics.median(times) for times in spent.values())
                print(f"{name:8}{told:14}package {package:6.1f} ms  compiled {ours:6.1f} ms  "
                      f"package / compiled {package / ours:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
