"""Doing the jobs of a grid: here, in processes, or on a cluster, by joblib."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from seqvae.crossvalidation.cell import Job, run_chain, write_result
from seqvae.errors import InputError

BACKENDS = ("loky", "ray", "dask")


def run_jobs(
    chains: Sequence[list[Job]],
    *,
    num_workers: int,
    backend: str,
    remote_args: Mapping[str, Any] | None,
    num_done: int = 0,
    progress: bool,
) -> Iterator[dict[str, Any]]:
    """Do chains of jobs in any order and yield each result as it comes.

    Every chain runs on one thread and depends on nothing but itself, so neither the backend nor the
    number of workers changes a result.

    Args:
        chains: what is to be done; a job that hangs on no other is a chain of its own.
        num_workers: jobs at a time; -1: as many as there are cores.
        backend: ``loky`` (processes), ``ray`` or ``dask`` (as they are connected: a laptop's cores
            or a cluster).
        remote_args: of Ray's workers, such as ``{"num_gpus": 1}``.
        num_done: jobs that were done before, for the progress bar.
        progress: whether a progress bar is shown.
    """
    from joblib import Parallel, delayed

    jobs = [job for chain in chains for job in chain]
    bar = tqdm(total=num_done + len(jobs), initial=num_done, desc="crossvalidate", unit="cell",
               disable=not progress, dynamic_ncols=True)  # fmt: skip
    with bar, _one_thread(), _chosen(backend, remote_args):
        # a batch of one: jobs are long, and a killed grid then loses as little as can be
        parallel = Parallel(
            n_jobs=num_workers,
            return_as="list" if backend == "ray" else "generator_unordered",
            batch_size=1,
            pre_dispatch="2 * n_jobs",
            max_nbytes="100K",
        )
        if backend == "ray":  # which answers at the end only, but tells how far it is
            parallel.print_progress = lambda: bar.update(
                num_done + sum(map(len, chains[: parallel.n_completed_tasks])) - bar.n
            )
        paths = {job.key: job.path for job in jobs}
        for results in parallel(delayed(run_chain)(chain) for chain in chains):
            if backend != "ray":
                bar.update(len(results))
            for told in results:
                if not paths[told["key"]].exists():  # the worker's disk was another
                    write_result(paths[told["key"]], told)
                yield told


def check_backend(backend: str, num_workers: int, remote_args: Mapping[str, Any] | None) -> None:
    """Refuse what cannot be run, before any work is done.

    Raises:
        InputError: for a backend that is not installed, or no worker.
    """
    if num_workers == 0 or num_workers < -1:
        raise InputError(f"jobs must be at least 1, or -1 for one per core, got {num_workers}")
    if remote_args and backend != "ray":
        raise InputError(f"ray_remote_args are for backend 'ray', not {backend!r}")
    if backend in ("ray", "dask"):
        from importlib.util import find_spec

        if find_spec("distributed" if backend == "dask" else backend) is None:
            raise InputError(
                f"backend {backend!r} is not installed; pip install 'seqvae[{backend}]'"
            )


def parse_shard(shard: str | None) -> tuple[int, int]:
    """Read ``"i/n"``: this command does the i-th of n shares, counted from 1.

    Raises:
        InputError: if it is not of that form.
    """
    if shard is None:
        return 1, 1
    part, _, whole = shard.partition("/")
    if not (part.isdecimal() and whole.isdecimal() and 1 <= int(part) <= int(whole)):
        raise InputError(f"shard must be like 2/8, from 1/n to n/n, got {shard!r}")
    return int(part), int(whole)


def share(chains: Sequence[list[Job]], shard: tuple[int, int]) -> list[list[Job]]:
    """Return every n-th chain from the i-th on, so that large and small sizes are spread."""
    part, whole = shard
    return list(chains[part - 1 :: whole])


@contextmanager
def _chosen(backend: str, remote_args: Mapping[str, Any] | None) -> Iterator[None]:
    from joblib import parallel_config

    if backend == "loky":
        with parallel_config(backend="loky", inner_max_num_threads=1):
            yield
        return
    options: dict[str, Any] = {}
    if backend == "ray":
        from ray.util.joblib import register_ray

        register_ray()
        options = {"ray_remote_args": dict(remote_args)} if remote_args else {}
    with parallel_config(backend=backend, **options):
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
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
