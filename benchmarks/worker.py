"""Measurements in processes of their own, one thread each, that take turns and cannot hang."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

WARM_UP = 2  # steps at the beginning of each block that do not count
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",  # of a compilation that was ended
}


class Block(NamedTuple):
    """What a turn has found.

    Attributes:
        seconds: of one step, the median of the block.
        threads: processor seconds for each second of the clock, over the block.
        peak_mib: most memory since ``forget_peak``, over what was held then.
        note: a choice that was made, such as the unrolling of a scan.
    """

    seconds: float
    threads: float = 1.0
    peak_mib: float | None = None
    note: str = ""


class _Failure(NamedTuple):
    reason: str


class Turns:
    """The measuring side: waits until it is its turn."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def wait(self, found: object = None) -> None:
        """Hand over what the last turn found (at first: nothing) and wait for the next one."""
        try:
            self._connection.send(found)
            self._connection.recv()
        except (EOFError, OSError):
            raise SystemExit from None


class Worker:
    """A measurement in a process of its own.

    Args:
        measure: called there with ``Turns`` and the arguments; prepares, then waits for its turns.
        arguments: for ``measure``.
        limit: seconds that preparing or a turn may take.

    Attributes:
        found: what its turns have found.
        reason: why it ended early, if it did.
    """

    def __init__(self, measure: Callable[..., None], *arguments: Any, limit: float = 600.0) -> None:
        self.limit = limit
        self.found: list[Any] = []
        self.reason: str | None = None
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, measure, arguments), daemon=True
        )
        os.environ.update(ENVIRONMENT)
        self._process.start()
        theirs.close()
        self._receive()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def take_turn(self) -> None:
        """Let it measure once more, unless it has failed."""
        if self.reason is None:
            self._connection.send(None)
            found = self._receive()
            if self.reason is None:
                self.found.append(found)

    def stop(self) -> None:
        """End the process and whatever it started, such as a compiler."""
        self._connection.close()
        self._process.join(0 if self.reason else 5)  # it ends by itself if it waits for its turn
        if self._process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()

    def _receive(self) -> object:
        answer: object = _Failure(f"took more than {self.limit:g} s")
        try:
            if self._connection.poll(self.limit):
                answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            answer = _Failure(f"the process ended with exit code {self._process.exitcode}")
        if isinstance(answer, _Failure):
            self.reason = answer.reason
            self.stop()
            return None
        return answer


def _serve(connection: Connection, measure: Callable[..., None], arguments: tuple) -> None:
    os.setsid()  # a group of its own, to be ended with whatever it started
    try:
        measure(Turns(connection), *arguments)
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        cure = "; pip install -e '.[bench]'" if isinstance(error, ImportError) else ""
        with suppress(OSError):
            connection.send(_Failure(f"{type(error).__name__}: {first_line}{cure}"))


class Stopwatch:
    """Gathers the seconds of the steps of a block."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._clock, self._processor = time.perf_counter(), time.process_time()

    def block(self, *, note: str = "", peak_mib: float | None = None) -> Block:
        """Sum the block up, without the warm-up."""
        processor = time.process_time() - self._processor
        threads = processor / (time.perf_counter() - self._clock)
        return Block(median(self.seconds[WARM_UP:]), threads, peak_mib, note)


def repeat(turns: Turns, step: Callable[[], None], steps: int, *, note: str = "") -> None:
    """Hand over blocks of ``step`` for ever; it returns when its work is done."""
    turns.wait()
    while True:
        watch = Stopwatch()
        for _ in range(WARM_UP + steps):
            start = time.perf_counter()
            step()
            watch.seconds.append(time.perf_counter() - start)
        turns.wait(watch.block(note=note))


def forget_peak() -> float:
    """Return the memory that the process holds (MiB); its peak counts from now (on Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def peak_mib() -> float:
    """Return the largest resident set of the process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
