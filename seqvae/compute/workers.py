"""Work in several processes, one thread each; what a killed process did not do is done again."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

from seqvae.compute.backends import (
    begin_to_serve,
    check_backend,
    chosen,
    is_of_killed_worker,
    workers_on_gpus,
)
from seqvae.errors import InputError

Task = TypeVar("Task")
Answer = TypeVar("Answer")

MOST_KILLED = 3
"""Times in a row that a killed worker may end all others before something is done."""


@dataclass(frozen=True)
class Workers:
    """Who does tasks that depend on nothing but themselves, so that nobody can tell who did them.

    Attributes:
        number: of tasks at a time; 1: one after the other, here; -1: one for each core.
        backend: ``loky`` (processes), ``ray`` or ``dask`` (as they are connected: a laptop's cores
            or a cluster).
        remote_args: of Ray's workers, such as ``{"num_gpus": 1}``.

    Raises:
        InputError: for no worker, or a backend that is none or not installed.
    """

    number: int = 1
    backend: str = "loky"
    remote_args: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.number == 0 or self.number < -1:
            raise InputError(f"jobs must be at least 1, or -1 for one per core, got {self.number}")
        check_backend(self.backend, self.remote_args)

    @property
    def at_once(self) -> int:
        """Tasks that are done at a time."""
        return os.cpu_count() or 1 if self.number == -1 else self.number

    def answers(
        self,
        function: Callable[[Task], Answer],
        tasks: Iterable[Task],
        *,
        bar: tqdm | None = None,
        size: Callable[[Task], int] = lambda task: 1,
        rest: Callable[[Task], Task | None] = lambda task: task,
    ) -> Generator[Answer, None, None]:
        """Yield what a function answers to tasks, as the answers come.

        A worker that is killed takes the others with it; what is not done is then given again.

        Args:
            function: of a module, as what is done lies in other processes.
            tasks: what it is given, one at a time.
            bar: shows how far it is.
            size: of a task on the bar.
            rest: what is still to be done of a task whose worker was killed; None: nothing.

        Raises:
            InputError: if workers are killed again and again.
        """
        left, in_vain = dict(enumerate(tasks)), 0
        bar = tqdm(disable=True) if bar is None else bar
        end = bar.n + sum(map(size, left.values()))
        with nullcontext() if self._is_here else chosen(self.backend, self.remote_args):
            while left:
                given = dict(left)
                try:
                    with closing(self._numbered(function, given, bar, size)) as answers:
                        for number, answer in answers:
                            del left[number]
                            yield answer
                except Exception as error:
                    if not is_of_killed_worker(error):
                        raise
                    rests = {number: rest(task) for number, task in left.items()}
                    left = {number: task for number, task in rests.items() if task is not None}
                    in_vain = in_vain + 1 if left == given else 0
                    if in_vain == MOST_KILLED:
                        raise InputError(
                            "a worker was killed again and again, as systems do that run out of "
                            "memory; lower jobs; what is done is kept"
                        ) from error
                    bar.update(end - sum(map(size, left.values())) - bar.n)

    @property
    def _is_here(self) -> bool:
        return self.number == 1 and self.backend == "loky"

    def _numbered(
        self,
        function: Callable[[Task], Answer],
        tasks: Mapping[int, Task],
        bar: tqdm,
        size: Callable[[Task], int],
    ) -> Generator[tuple[int, Answer], None, None]:
        """Yield the number of each task and the answer to it."""
        if self._is_here:
            for number, task in tasks.items():
                answer = function(task)
                bar.update(size(task))
                yield number, answer
            return
        from joblib import Parallel, delayed

        tells_late, begun, sizes = self.backend == "ray", bar.n, [*map(size, tasks.values())]
        # a batch of one: tasks are long, and a kill then loses as little as can be
        parallel = Parallel(
            n_jobs=self._num_jobs,
            return_as="list" if tells_late else "generator_unordered",
            batch_size=1,
            pre_dispatch="2 * n_jobs",
            max_nbytes="100K",
        )
        if tells_late:  # it answers at the end only, but tells how far it is
            parallel.print_progress = lambda: bar.update(
                begun + sum(sizes[: parallel.n_completed_tasks]) - bar.n
            )
        home = (os.getpid(), os.getcwd()) if self.backend == "loky" else None
        answers = parallel(delayed(_served)(function, *item, home) for item in tasks.items())
        with nullcontext() if tells_late else closing(answers):
            for number, answer in answers:
                if not tells_late:
                    bar.update(size(tasks[number]))
                yield number, answer

    @property
    def _num_jobs(self) -> int:
        gpus = (self.remote_args or {}).get("num_gpus")
        return workers_on_gpus(self.number, float(gpus)) if gpus else self.number


def _served(
    function: Callable[[Task], Answer], number: int, task: Task, home: tuple[int, str] | None
) -> tuple[int, Answer]:
    import torch

    if home is not None:
        parent, folder = home
        begin_to_serve(parent)
        os.chdir(folder)  # processes are kept, and may have begun in another one
    torch.set_num_threads(1)
    return number, function(task)
