"""What the processes of one training tell each other."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, distributed


class Place(NamedTuple):
    """Which of the processes that were started to run the same command this one is.

    Attributes:
        rank: its number; 0 writes the files.
        started: how many there are.
    """

    rank: int = 0
    started: int = 1


class Share(NamedTuple):
    """What a process has of the trials of one step.

    Where a batch has fewer trials than there are processes, some have none. They repeat one of the
    others', for nothing, so that all stay in step.

    Attributes:
        own: trials of this process.
        whole: trials of all processes together.
        num_processes: how many there are.
    """

    own: int
    whole: int
    num_processes: int = 1

    @property
    def scale(self) -> float:
        """Weight of a mean over the own trials: processes' average is then the mean over all."""
        return self.num_processes * self.own / self.whole

    def mean_of_all(self, local_mean: Tensor) -> Tensor:
        """Return the mean over the trials of all processes, given that over the own ones.

        The gradient goes through the own trials alone, so that the average over processes of the
        gradient of any function of the mean is the gradient over all trials.
        """
        if self.num_processes == 1:
            return local_mean
        scaled = self.scale * local_mean
        mean = scaled.detach() / self.num_processes
        distributed.all_reduce(mean)
        return mean + (scaled - scaled.detach())


ALONE = Share(own=1, whole=1)
"""One process has all trials."""


def gathered(value: Any, num_processes: int) -> list[Any]:
    """Return what each process gave, in their order; all must ask."""
    if num_processes == 1:
        return [value]
    values = [None] * num_processes
    distributed.all_gather_object(values, value)
    return values
