"""Threads that belong to a run: what the run has bound is bound in them as well.

Threads are started here and nowhere else: one that does not know its run would log
without its id, and secrets that it reads would not be masked in the run's other lines.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Thread(threading.Thread):
    """A thread that has begun, and that does not keep the process from ending."""

    def __init__(self, target: Callable[..., object], *args: object, name: str) -> None:
        run = contextvars.copy_context().run
        super().__init__(target=run, args=(target, *args), name=name, daemon=True)
        self.start()


class Pool(ThreadPoolExecutor):
    """Threads that each run calls as part of the run that submitted them."""

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Have a call run in one of the threads."""
        context = contextvars.copy_context()
        return super().submit(lambda: context.run(fn, *args, **kwargs))


def together(jobs: Sequence[Callable[[], T]], *, stop: Callable[[], None]) -> list[T]:
    """Run each job in a thread of its own and return what they return.

    After the first error, and after an interrupt, `stop` is called; it must make those
    that still run end soon. They are waited for, and that first error is raised.
    """
    if len(jobs) == 1:
        return [jobs[0]()]
    with Pool(len(jobs), thread_name_prefix="stream") as pool:
        try:
            started = [pool.submit(job) for job in jobs]
            done, _ = wait(started, return_when=FIRST_EXCEPTION)
            return [each.result() for each in started if each in done]
        except BaseException:
            stop()
            raise
