"""Threads that belong to a run: what the run has bound is bound in them as well.

Threads are started here and nowhere else: one that does not know its run would log
without its id, and secrets that it reads would not be masked in the run's other lines.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Thread(threading.Thread):
    """A thread that has begun, and that does not keep the process from ending."""

    def __init__(self, target: Callable[..., object], *args: object, name: str) -> None:
        run = contextvars.copy_context().run
        super().__init__(target=run, args=(target, *args), name=name, daemon=True)
        self.start()


def within(seconds: float, call: Callable[[], T], *, name: str) -> T:
    """Return what a call returns; it goes on alone if that takes too long.

    Raises:
        TimeoutError: it does.
    """
    future: Future[T] = Future()
    Thread(fulfil, future, call, name=name)
    return future.result(seconds)


def fulfil(future: Future[T], call: Callable[[], T]) -> None:
    """Give a future what a call returns or raises, unless it was cancelled before."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - the caller gets it
        future.set_exception(error)


class Wake:
    """Ends a wait early; `set` may be called by any thread, and by a signal's handler.

    Not by an Event's: whoever waits holds its lock for a moment, and a handler that
    runs in this moment, in the same thread, would wait for that lock for ever.
    """

    def __init__(self) -> None:
        self._calls = queue.SimpleQueue[None]()

    def set(self) -> None:
        """End the wait, or the next one."""
        self._calls.put(None)

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until it is set; all that came before counts once."""
        with contextlib.suppress(queue.Empty):
            self._calls.get(timeout=seconds)
            while True:
                self._calls.get_nowait()


class Pool(ThreadPoolExecutor):
    """Threads that each run calls as part of the run that submitted them."""

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Have a call run in one of the threads."""
        context = contextvars.copy_context()
        return super().submit(lambda: context.run(fn, *args, **kwargs))


class Abandoned(Exception):
    """The blocks ended before their end: what was made of them must not stay."""


class Feed:
    """Work in a thread of its own on blocks that are handed to it one by one.

    Only so many blocks wait at once. However the work ends, also before the last of
    the blocks, the caller is not held up, and must `finish` or `abandon`.
    """

    def __init__(
        self, work: Callable[[Iterator[bytes]], object], *, name: str, blocks_max: int
    ) -> None:
        self.error: BaseException | None = None
        self._work = work
        self._queue: queue.Queue[bytes | None] = queue.Queue(blocks_max)
        self._rest = iter(self._queue.get, None)
        self._is_abandoned = False
        self._thread = Thread(self._run, name=name)

    def put(self, block: bytes, wait_seconds: float | None = None) -> None:
        """Hand on a block, unless the work has failed; waits while it is behind.

        Raises:
            TimeoutError: it was behind for all of that time.
        """
        if self.error is None:
            self._put(block, wait_seconds)

    def finish(self, wait_seconds: float | None = None) -> None:
        """Say that there are no more blocks, and wait for the end of the work.

        Raises:
            TimeoutError: it did not end in that time.
        """
        self._put(None, wait_seconds)
        self._thread.join(wait_seconds)
        if self._thread.is_alive():
            raise TimeoutError

    def abandon(self, wait_seconds: float | None = None) -> None:
        """Let the work break off, and wait for its end; nobody gets what waits."""
        self._is_abandoned = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put(None)
        self._thread.join(wait_seconds)

    def _put(self, item: bytes | None, wait_seconds: float | None) -> None:
        try:
            self._queue.put(item, timeout=wait_seconds)
        except queue.Full:
            raise TimeoutError from None

    def _run(self) -> None:
        try:
            self._work(self._blocks())
        except Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 - for the caller
            self.error = error
        for _ in self._rest:
            pass

    def _blocks(self) -> Iterator[bytes]:
        yield from self._rest
        if self._is_abandoned:
            raise Abandoned


class Lane:
    """Calls that go to one place, such as a server: only so many are made at once."""

    def __init__(self, *, threads_max: int) -> None:
        self._waiting: deque[tuple[Callable[[], object], Future[Any]]] = deque()
        self._threads, self._threads_max = 0, threads_max
        self._lock = threading.Lock()

    def ask(self, call: Callable[[], object]) -> Future[Any]:
        """Have a thread make a call, at once or after others; return its result."""
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.append((call, future))
            is_full = self._threads == self._threads_max
            self._threads += not is_full
        if not is_full:
            Thread(self._work, name="lane")
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                call, future = self._waiting.popleft()
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - for whoever asks the future
                future.set_exception(error)


def together(jobs: Sequence[Callable[[], T]], *, stop: Callable[[], None]) -> list[T]:
    """Run each job in a thread of its own and return what they return.

    After the first error or an interrupt `stop` is called, and all threads are waited
    for: `stop` must end waits that have no limit. That first error is raised.
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
