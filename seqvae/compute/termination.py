"""An end that the system asks for: SIGTERM, as batch systems send it before they take a machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from seqvae.errors import Terminated

INSISTENCE_SECONDS = 15.0
"""Where the exception is swallowed, it is raised again after this."""
ECHO_SECONDS = 2.0
"""A signal that comes again within this time is the same one, sent to a process and its group."""

SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1")  # batch systems send either
    if hasattr(signal, name)
]


class _Watch:
    """What is known of the end that was asked for, and how it is answered.

    Attributes:
        signals: those that are answered; none: an end is left to others.
        asked: when the end was asked for.
        patience: seconds that may pass until whoever calls ``asked`` has come to an end by itself.
    """

    def __init__(self) -> None:
        self.signals: list[signal.Signals] = []
        self.request_time: float | None = None
        self.patience = 0.0
        self._timer: threading.Timer | None = None
        self._is_over = False

    def answer(self, number: int, frame: FrameType | None) -> None:
        """Raise ``Terminated``; where there is patience, only when it is over or asked again."""
        now = time.monotonic()
        is_first = self.request_time is None
        if (
            self.request_time is not None
            and not self._is_over
            and now - self.request_time < ECHO_SECONDS
        ):
            return
        self.request_time = now
        if is_first and self.patience > 0:
            children = multiprocessing.active_children()  # processes that train with this one
            for child in children:
                child.terminate()
            self._ask_again_in(self.patience + (ECHO_SECONDS if children else 0.0))
            return
        is_swallowed = _is_swallowed(frame)
        self._ask_again_in(0.02 if is_swallowed else INSISTENCE_SECONDS)
        if not is_swallowed:
            raise Terminated

    def _ask_again_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._is_over = False
        self._timer = threading.Timer(seconds, self._give_up)
        self._timer.daemon = True
        self._timer.start()

    def _give_up(self) -> None:
        self._is_over = True
        os.kill(os.getpid(), signal.SIGTERM)

    def calm(self) -> None:
        """Wait no longer, and forget."""
        if self._timer is not None:
            self._timer.cancel()
        self.request_time, self.patience, self._timer, self._is_over = None, 0.0, None, False


def _is_swallowed(frame: FrameType | None) -> bool:
    """Whether Python runs a finaliser, out of which no exception comes."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename.endswith(("weakref.py", "_weakrefset.py")):
            return True
        frame = frame.f_back
    return False


_WATCH = _Watch()


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise ``Terminated``, so that passing files go and workers end.

    A handler of the caller's own stays, and so does everything outside the main thread. Within
    another such block this one changes nothing.
    """
    is_main = threading.current_thread() is threading.main_thread()
    free = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    if _WATCH.signals or not is_main or signal.SIGTERM not in free:
        yield
        return
    _WATCH.signals = free
    take_over()
    try:
        yield
    finally:
        _WATCH.calm()  # first, that its timer finds no process without a handler
        for number in free:
            signal.signal(number, signal.SIG_DFL)
        _WATCH.signals = []


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Let SIGTERM wait for whoever calls ``asked``, but no longer than so many seconds.

    A second SIGTERM ends at once. Processes that train with this one are told, too.
    """
    if not _WATCH.signals:
        yield
        return
    _WATCH.patience = seconds
    try:
        yield
    finally:
        _WATCH.patience = 0.0


def end_requested() -> bool:
    """Whether an end was asked for."""
    return _WATCH.request_time is not None


def take_over(*, patience: float | None = None) -> None:
    """Answer the signals here, whoever has put a handler in between; also in a training process.

    Args:
        patience: as of ``patient``, for a process that trains with another.
    """
    if multiprocessing.parent_process() is not None and patience is not None:
        _WATCH.signals, _WATCH.patience = SIGNALS, patience
    if threading.current_thread() is threading.main_thread():
        for number in _WATCH.signals:
            signal.signal(number, _WATCH.answer)
