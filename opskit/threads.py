"""Runs several pieces of one work at once; the first that fails ends all of them."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


def together(jobs: Sequence[Callable[[], T]], *, stop: Callable[[], None]) -> list[T]:
    """Run each job in a thread of its own and return what they return.

    After the first error, and after an interrupt, `stop` is called; it must make those
    that still run end soon. They are waited for, and that first error is raised.
    """
    if len(jobs) == 1:
        return [jobs[0]()]
    with ThreadPoolExecutor(len(jobs), thread_name_prefix="stream") as pool:
        try:
            # What the log says on every line of this run belongs on theirs.
            started = [pool.submit(contextvars.copy_context().run, job) for job in jobs]
            done, _ = wait(started, return_when=FIRST_EXCEPTION)
            return [each.result() for each in started if each in done]
        except BaseException:
            stop()
            raise
