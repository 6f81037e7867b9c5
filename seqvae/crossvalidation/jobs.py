"""Doing the jobs of a grid: here, in processes, or on a cluster, by joblib."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import Any

from tqdm import tqdm

from seqvae.compute.progress import bar as progress_bar
from seqvae.compute.workers import (
    MOST_KILLED,
    check_num_workers,
    is_of_killed_worker,
    one_thread_each,
)
from seqvae.crossvalidation.cell import Job, run_chain, undone, write_result
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
) -> Generator[dict[str, Any], None, None]:
    """Do chains of jobs in any order and yield each result as it comes.

    Every chain runs on one thread and depends on nothing but itself, so neither the backend nor the
    number of workers changes a result. A worker that is killed takes the others with it; what is
    not done is then begun anew.

    Args:
        chains: what is to be done; a job that depends on no other is a chain of its own.
        num_workers: jobs at a time; -1: as many as there are cores.
        backend: ``loky`` (processes), ``ray`` or ``dask`` (as they are connected: a laptop's cores
            or a cluster).
        remote_args: of Ray's workers, such as ``{"num_gpus": 1}``.
        num_done: jobs that were done before, for the progress bar.
        progress: whether a progress bar is shown.

    Raises:
        InputError: if workers are killed again and again, or a result cannot be written.
    """
    if remote_args and remote_args.get("num_gpus"):
        num_workers = workers_on_gpus(num_workers, float(remote_args["num_gpus"]))
    jobs = [job for chain in chains for job in chain]
    total = num_done + len(jobs)
    bar = progress_bar(total, initial=num_done, work="crossvalidate", unit="cell", show=progress)
    with bar, one_thread_each(), _chosen(backend, remote_args):
        left = list(chains)
        in_vain = 0
        while left:
            keys = set()
            try:
                with closing(_results(left, num_workers, backend, bar)) as results:
                    for result in results:
                        keys.add(result["key"])
                        yield result
                return
            except Exception as error:
                if not is_of_killed_worker(error):
                    raise
                former = sum(map(len, left))
                left = [undone(chain) for chain in left if chain[-1].key not in keys]
                left = [chain for chain in left if chain]
                in_vain = in_vain + 1 if sum(map(len, left)) == former else 0
                if in_vain == MOST_KILLED:
                    raise InputError(
                        "a worker was killed again and again, as systems do that run out of "
                        "memory; lower jobs; the cells that are done are kept"
                    ) from error
                bar.update(num_done + len(jobs) - sum(map(len, left)) - bar.n)


def _results(
    chains: Sequence[list[Job]], num_workers: int, backend: str, bar: tqdm
) -> Generator[dict[str, Any], None, None]:
    """Yield the result of each job of the chains, and see that it lies where it belongs."""
    from joblib import Parallel, delayed

    begun = bar.n
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
            begun + sum(map(len, chains[: parallel.n_completed_tasks])) - bar.n
        )
    paths = {job.key: job.path for chain in chains for job in chain}
    chain_results = parallel(delayed(run_chain)(chain) for chain in chains)
    with closing(chain_results) if backend != "ray" else nullcontext():
        for results in chain_results:
            if backend != "ray":
                bar.update(len(results))
            for result in results:
                if not paths[result["key"]].exists():  # the worker's disk was another
                    write_result(paths[result["key"]], result)
                yield result


def check_backend(backend: str, num_workers: int, remote_args: Mapping[str, Any] | None) -> None:
    """Refuse what cannot be run, before any work is done.

    Raises:
        InputError: for a backend that is not installed, or no worker.
    """
    check_num_workers(num_workers)
    if remote_args and backend != "ray":
        raise InputError(f"ray_remote_args are for backend 'ray', not {backend!r}")
    if backend in ("ray", "dask"):
        from importlib.util import find_spec

        if find_spec("distributed" if backend == "dask" else backend) is None:
            raise InputError(
                f"backend {backend!r} is not installed; pip install 'seqvae[{backend}]'"
            )


def workers_on_gpus(num_workers: int, num_gpus: float) -> int:
    """Return how many workers Ray can give their GPUs; -1: as many as there are GPUs for.

    Each sees its own only, by ``CUDA_VISIBLE_DEVICES``.

    Raises:
        InputError: if there are too few, for which Ray would wait for ever.
    """
    import logging

    import ray

    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    gpus = ray.cluster_resources().get("GPU", 0.0)
    most = int(gpus / num_gpus)
    if num_workers == -1 and most > 0:
        return most
    if max(num_workers, 1) > most:
        raise InputError(
            f"jobs={num_workers} workers with {num_gpus:g} GPUs each are more than the {gpus:g} "
            "GPUs of the Ray cluster allow; lower jobs or num_gpus in ray_remote_args"
        )
    return num_workers


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


def shard_chains(chains: Sequence[list[Job]], shard: tuple[int, int]) -> list[list[Job]]:
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
