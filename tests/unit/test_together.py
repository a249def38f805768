"""Together: pieces of work that run at once and end together."""

from __future__ import annotations

import contextvars
import os
import signal
import threading
import time

import pytest

from opskit.tasks.signals import run_handlers_soon
from opskit.threads import together

_SECONDS = 30.0


def test_results_come_in_the_order_of_the_jobs() -> None:
    """Whichever ends first; and all of them do run at once."""
    second = threading.Event()

    def first() -> str:
        assert second.wait(_SECONDS)
        return "first"

    def other() -> str:
        second.set()
        return "second"

    assert together([first, other], stop=pytest.fail) == ["first", "second"]


def test_one_job_runs_where_it_is_called() -> None:
    """So that a Ctrl-C reaches it."""
    assert together([threading.current_thread], stop=pytest.fail) == [
        threading.main_thread()
    ]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_first_error_ends_the_others_and_is_raised(failing: int) -> None:
    """What the others say when they are ended is not what went wrong."""
    stopped = threading.Event()

    def fail() -> None:
        raise ValueError("the cause")

    def wait() -> None:
        assert stopped.wait(_SECONDS)
        raise RuntimeError("a consequence")

    jobs = [wait, wait, wait]
    jobs[failing] = fail

    with pytest.raises(ValueError, match="the cause"):
        together(jobs, stop=stopped.set)


def test_an_interrupt_ends_all_of_them() -> None:
    """They are gone before it goes on its way."""
    stopped = threading.Event()
    ended: list[bool] = []

    def work() -> None:
        ended.append(stopped.wait(_SECONDS))

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    run_handlers_soon()
    # The background jobs of a shell begin with it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            together([work, work, interrupt], stop=stopped.set)
    finally:
        signal.signal(signal.SIGINT, before)

    assert ended == [True, True]


def test_an_interrupt_that_comes_right_before_the_wait_ends_them_too() -> None:
    """The flag is set, and the main thread is not woken: another one took the signal."""
    stopped = threading.Event()

    def interrupt() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        time.sleep(0.5)  # the others wait, and whoever waits for them
        os.kill(os.getpid(), signal.SIGINT)

    run_handlers_soon()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            together([lambda: stopped.wait(_SECONDS), interrupt], stop=stopped.set)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, before)

    assert time.monotonic() - began < _SECONDS / 2


def test_what_the_log_says_on_every_line_is_known_in_each_job() -> None:
    """Context variables of the caller are those of the threads."""
    run_id = contextvars.ContextVar("run_id", default="")
    run_id.set("abc123")

    assert together([run_id.get, run_id.get], stop=pytest.fail) == ["abc123"] * 2
