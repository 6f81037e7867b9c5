"""Doing the jobs of a grid."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from seqvae.compute.progress import bar as progress_bar
from seqvae.compute.workers import Workers
from seqvae.crossvalidation.cell import run_chain, undone, write_result
from seqvae.crossvalidation.job import Job


def run_jobs(
    chains: Sequence[list[Job]], *, workers: Workers, num_done: int = 0, progress: bool
) -> Generator[dict[str, Any], None, None]:
    """Do chains of jobs in any order and yield each result as it comes, once it lies on disk.

    Every chain runs on one thread and depends on nothing but itself, so neither the backend nor the
    number of workers changes a result.

    Args:
        chains: what is to be done; a job that depends on no other is a chain of its own.
        workers: that do it.
        num_done: jobs that were done before, for the progress bar.
        progress: whether a progress bar is shown.

    Raises:
        InputError: if workers are killed again and again, or a result cannot be written.
    """
    paths = {job.key: job.path for chain in chains for job in chain}
    total = num_done + len(paths)
    bar = progress_bar(total, initial=num_done, work="crossvalidate", unit="cell", show=progress)
    answers = workers.answers(
        run_chain, chains, bar=bar, size=len, rest=lambda chain: undone(chain) or None
    )
    with bar, closing(answers):
        for results in answers:
            for result in results:
                if not paths[result["key"]].exists():  # the worker's disk was another
                    write_result(paths[result["key"]], result)
                yield result
