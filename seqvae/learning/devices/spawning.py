"""Training in processes of their own, one for each device of this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from torch import distributed

from seqvae.compute.termination import end_requested
from seqvae.errors import InputError, Terminated

_GRACE_SECONDS = 10.0  # after a failure
_INTERRUPTED_SECONDS = 3.0  # after an interrupt, for what loggers have to close
_TERMINATED, _INTERRUPTED = 128 + signal.SIGTERM, 128 + signal.SIGINT


def in_processes(work: Callable[[], None], count: int) -> None:
    """Do the same work in ``count`` new processes, which Lightning finds as one group.

    They are told of each other as by a launcher (``LOCAL_RANK`` and so on), and end with this one,
    however it ends. What they are given is sent by value, so that no shared memory is needed.

    Args:
        work: what each does; to be pickled.
        count: of processes.

    Raises:
        InputError: that of a process; or if one was killed, or cannot be started.
        KeyboardInterrupt: if interrupted.
        Terminated: if terminated.
    """
    content = pickle.dumps(work)
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(count)]
    port = _free_port()
    workers: list[BaseProcess] = [
        context.Process(target=_work, args=(rank, count, port, pipe))
        for rank, (_, pipe) in enumerate(pipes)
    ]
    try:
        with _deaf():  # who is born deaf stays so until it works
            for worker in workers:
                worker.start()
        for ours, theirs in pipes:
            theirs.close()
            with suppress(OSError):  # it has ended; its exit code tells
                ours.send_bytes(content)
        ended = _wait(workers)
    finally:
        _end(workers)
    if any(codes := [workers[rank].exitcode for rank in ended]):
        errors = [error for rank in ended for error in _received(pipes[rank][0])]
        raise _reason(errors, codes)


def _wait(workers: list[BaseProcess]) -> list[int]:
    """Wait until all have ended, or one has failed and the others have had a little time to.

    Returns:
        Who has ended, in this order.
    """
    running = {worker.sentinel: rank for rank, worker in enumerate(workers)}
    ranks: list[int] = []
    patience = None
    while running and (ended := wait(list(running), patience)):
        for sentinel in ended:
            assert isinstance(sentinel, int)
            rank = running.pop(sentinel)
            ranks.append(rank)
            workers[rank].join()
            if code := workers[rank].exitcode:
                patience = 1.0 if code < 0 else _GRACE_SECONDS
    return ranks


def _end(workers: list[BaseProcess]) -> None:
    """Leave no worker behind; an interrupted one ends by itself, given a little time."""
    until = time.monotonic() + _INTERRUPTED_SECONDS
    try:
        if sys.exc_info()[0] is KeyboardInterrupt:
            for worker in workers:
                worker.join(max(0.0, until - time.monotonic()))
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
            worker.join()


def _reason(errors: list[BaseException | str], codes: list[int | None]) -> BaseException:
    """Return what the failure of some workers means to whoever has asked for the work."""
    for error in errors:
        if isinstance(error, BaseException):
            return error
    if end_requested() or _TERMINATED in codes:
        return Terminated()
    if _INTERRUPTED in codes:
        return KeyboardInterrupt()
    killed = [code for code in codes if code is not None and code < 0]
    if killed:
        return InputError(
            f"a process of the training was ended by {signal.Signals(-killed[0]).name}, for want of"
            " memory perhaps; what was saved is whole: go on with --resume"
        )
    if errors:
        return RuntimeError(f"a process of the training failed:\n{errors[0]}")
    return InputError(
        "the processes of the training could not start; a script must call fit under "
        "if __name__ == '__main__':"
    )


def _received(pipe: Connection) -> list[BaseException | str]:
    with suppress(EOFError, OSError):
        if pipe.poll():
            return [pipe.recv()]
    return []


def _work(rank: int, count: int, port: int, pipe: Connection) -> None:
    """Be one of the processes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        pickle.loads(pipe.recv_bytes())()
    except InputError as error:
        pipe.send(error)
        sys.exit(2)
    except Terminated:
        sys.exit(_TERMINATED)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except Exception:
        pipe.send(traceback.format_exc()[-8000:])
        sys.exit(1)
    with suppress(Exception):
        distributed.destroy_process_group()


@contextmanager
def _deaf() -> Iterator[None]:
    """Hear no interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
