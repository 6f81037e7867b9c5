from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from seqvae.compute import termination
from seqvae.compute.termination import end_requested, patient, take_over, terminable
from seqvae.errors import Terminated

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def default_handlers():
    """Start without handlers, such as those that other libraries leave behind."""
    former = {number: signal.signal(number, signal.SIG_DFL) for number in termination.SIGNALS}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def ask_and_sleep(*, again: bool = False) -> None:
    ask()
    if again:
        time.sleep(0.2)
        ask()
    time.sleep(10)


def del_and_sleep(things: list[object]) -> None:
    things.clear()
    time.sleep(10)


def test_exit_code_is_that_of_a_termination():
    assert Terminated().code == 143
    assert isinstance(Terminated(), SystemExit)
    assert not isinstance(Terminated(), Exception)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_termination_is_raised_and_the_former_handler_comes_back(number):
    with pytest.raises(Terminated), terminable():
        ask(number)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_second_signal_of_the_same_termination_does_not_disturb_the_clearing_away():
    cleared = []

    def work():
        try:
            ask()
        finally:
            ask()
            cleared.append(True)

    with pytest.raises(Terminated), terminable():
        work()
    assert cleared


def test_inner_block_changes_nothing():
    with terminable():
        with terminable():
            pass
        with pytest.raises(Terminated):
            ask()


def test_handler_of_the_callers_own_stays():
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    try:
        with terminable(), patient(5.0):
            ask()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert heard


def test_other_threads_are_left_alone():
    def work():
        with terminable():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL]


def test_patience_waits_for_whoever_asks():
    with terminable(), patient(30.0):
        assert not end_requested()
        ask()
        assert end_requested()
    assert not end_requested()


def test_patience_has_an_end():
    began = time.monotonic()
    with pytest.raises(Terminated), terminable(), patient(0.2):
        ask_and_sleep()
    assert 0.2 <= time.monotonic() - began < 5


def test_second_termination_ends_patience(monkeypatch):
    monkeypatch.setattr(termination, "ECHO_SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(Terminated), terminable(), patient(30.0):
        ask_and_sleep(again=True)
    assert time.monotonic() - began < 5


class Quits:
    def __del__(self):
        ask()


def test_termination_waits_for_the_end_of_a_finaliser():
    began = time.monotonic()
    with pytest.raises(Terminated), terminable():
        del_and_sleep([Quits()])
    assert time.monotonic() - began < 5


def test_termination_that_is_swallowed_comes_again(monkeypatch):
    def work():
        with contextlib.suppress(Terminated):
            ask()
        time.sleep(10)

    monkeypatch.setattr(termination, "INSISTENCE_SECONDS", 0.2)
    began = time.monotonic()
    with pytest.raises(Terminated), terminable():
        work()
    assert time.monotonic() - began < 5


def test_handler_that_another_has_put_in_between_is_taken_over():
    with terminable():
        signal.signal(signal.SIGTERM, lambda *_: None)
        take_over()
        with pytest.raises(Terminated):
            ask()


def test_nothing_is_taken_over_from_whoever_did_not_ask_for_it():
    take_over(patience=3.0)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
