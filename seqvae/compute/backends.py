"""Where work in several processes runs, by joblib: processes here (loky), Ray, or Dask."""

from __future__ import annotations

import functools
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from seqvae.errors import InputError, nearest

BACKENDS = ("loky", "ray", "dask")
SECONDS_BETWEEN_LOOKS = 1.0
"""At which a process that works looks whether the one that asked it to is still there."""


def check_backend(backend: str, remote_args: Mapping[str, Any] | None) -> None:
    """Refuse a backend that is none, is not installed, or not to be found.

    Raises:
        InputError: telling what to give or install.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is unknown{nearest(backend, BACKENDS)}")
    if remote_args and backend != "ray":
        raise InputError(f"ray_remote_args are for backend 'ray', not {backend!r}")
    if backend in ("ray", "dask"):
        from importlib.util import find_spec

        if find_spec("distributed" if backend == "dask" else backend) is None:
            raise InputError(
                f"backend {backend!r} is not installed; pip install 'seqvae[{backend}]'"
            )
    if backend == "dask" and not _is_connected():
        import dask

        if dask.config.get("scheduler-address", None) is None:
            raise InputError(
                "backend 'dask' needs a scheduler; set DASK_SCHEDULER_ADDRESS, as in tcp://HOST:8786"
            )


@contextmanager
def chosen(backend: str, remote_args: Mapping[str, Any] | None) -> Iterator[None]:
    """Let joblib work by a backend, with one thread for each worker.

    Raises:
        InputError: for workers of Dask that do several tasks at a time.
    """
    from joblib import parallel_config

    options: dict[str, Any] = {}
    if backend == "loky":
        options = {"inner_max_num_threads": 1}
    elif backend == "ray":
        from ray.util.joblib import register_ray

        register_ray()
        options = {"ray_remote_args": dict(remote_args)} if remote_args else {}
    with _one_thread_each(), ExitStack() as stack:
        if backend == "dask":
            stack.enter_context(_connected())
        stack.enter_context(parallel_config(backend=backend, **options))
        yield


@contextmanager
def _connected() -> Iterator[None]:
    """Connect with Dask, unless that is done.

    The noise of tasks in threads of one process would get mixed.
    """
    from distributed import Client, get_client

    with nullcontext(get_client()) if _is_connected() else Client() as client:
        if any(threads > 1 for threads in client.nthreads().values()):
            raise InputError(
                "backend 'dask' needs workers of one thread each; start them with --nthreads 1"
            )
        yield


def _is_connected() -> bool:
    from distributed import get_client

    try:
        get_client()
    except ValueError:
        return False
    return True


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


def is_of_killed_worker(error: Exception) -> bool:
    """Whether a worker was killed; each backend has its own word for it."""
    words = ("WorkerCrashedError", "RayActorError", "ActorDiedError", "KilledWorker")
    names = [kind.__name__ for kind in type(error).__mro__]
    return isinstance(error, BrokenExecutor) or any(word in names for word in words)


@functools.cache
def begin_to_serve(parent: int) -> None:
    """Let this process end once the one that it works for has, however that ended.

    A killed process tells nobody, and its workers would learn to the end of their tasks, and then
    wait for minutes. Its bars get a lock of their own, not one that a killed worker leaves behind.

    Args:
        parent: the number of the process that it works for.
    """
    from tqdm import tqdm

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    tqdm.set_lock(threading.RLock())
    if os.name == "posix":  # elsewhere the number stays when the process is gone
        threading.Thread(target=look, daemon=True).start()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let the workers start with one thread each, and quietly."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    added = [name for name in names if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        with warnings.catch_warnings():
            # loky's word for a worker that was replaced
            warnings.filterwarnings("ignore", message=".*worker stopped while some jobs.*")
            # joblib's word where whoever asked has ended, as for an error
            warnings.filterwarnings("ignore", message=r"\d+ tasks (which|have been success)")
            yield
    finally:
        for name in added:
            os.environ.pop(name, None)
