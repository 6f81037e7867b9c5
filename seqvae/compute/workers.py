"""Work in several processes, one thread each; what a killed process did not do is done again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import closing, contextmanager
from typing import TypeVar

from seqvae.errors import InputError

Task = TypeVar("Task")
Answer = TypeVar("Answer")

MOST_KILLED = 3
"""Times in a row that a killed worker may end all others before something is done."""


def in_processes(
    function: Callable[[Task], Answer], tasks: Sequence[Task], *, num_workers: int
) -> Generator[Answer, None, None]:
    """Yield what a function answers to tasks, as the answers come.

    Args:
        function: of a module, as what is done lies in other processes.
        tasks: what it is given, one at a time; a task whose worker is killed is given again.
        num_workers: processes; -1: as many as there are cores.

    Raises:
        InputError: if workers are killed again and again.
    """
    from joblib import Parallel, delayed, parallel_config

    left, in_vain = dict(enumerate(tasks)), 0
    with one_thread_each(), parallel_config(backend="loky", inner_max_num_threads=1):
        while left:
            former = len(left)
            parallel = Parallel(num_workers, return_as="generator_unordered", batch_size=1)
            try:
                answers = parallel(delayed(_numbered)(function, *item) for item in [*left.items()])
                with closing(answers):
                    for number, answer in answers:
                        del left[number]
                        yield answer
            except Exception as error:
                if not is_of_killed_worker(error):
                    raise
                in_vain = in_vain + 1 if len(left) == former else 0
                if in_vain == MOST_KILLED:
                    raise InputError(
                        "a worker was killed again and again, as systems do that run out of "
                        "memory; lower jobs"
                    ) from error


def _numbered(function: Callable[[Task], Answer], number: int, task: Task) -> tuple[int, Answer]:
    import torch

    torch.set_num_threads(1)
    return number, function(task)


def is_of_killed_worker(error: Exception) -> bool:
    """Whether a worker was killed; each backend has its own word for it."""
    words = ("WorkerCrashedError", "RayActorError", "ActorDiedError", "KilledWorker")
    names = [kind.__name__ for kind in type(error).__mro__]
    return isinstance(error, BrokenExecutor) or any(word in names for word in words)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let the workers start with one thread each, and quietly."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    added = [name for name in names if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        with warnings.catch_warnings():
            # loky's word for a worker that was replaced
            warnings.filterwarnings("ignore", message=".*worker stopped while some jobs.*")
            yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def check_num_workers(num_workers: int) -> None:
    """Refuse no worker.

    Raises:
        InputError: for anything but a number from 1 on, or -1.
    """
    if num_workers == 0 or num_workers < -1:
        raise InputError(f"jobs must be at least 1, or -1 for one per core, got {num_workers}")
