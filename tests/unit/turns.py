"""Threads that take turns: each step of each is let go one at a time, as chosen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from opskit.store import ObjectInfo
from tests.memory_store import MemoryStore

_PATIENCE_SECONDS = 120


class Turns:
    """Runs actors in threads; `choose` says whose step is next of those that wait."""

    def __init__(self, choose: Callable[[Sequence[str]], str]) -> None:
        self._choose = choose
        self._condition = threading.Condition()
        self._waiting: set[str] = set()
        self._running: set[str] = set()
        self._next: str | None = None
        self.errors: list[BaseException] = []

    def step(self) -> None:
        """Wait for this thread's turn."""
        name = threading.current_thread().name
        with self._condition:
            self._waiting.add(name)
            self._condition.notify_all()
            turned = self._condition.wait_for(
                lambda: self._next == name, timeout=_PATIENCE_SECONDS
            )
            assert turned, "nobody lets the threads go on"
            self._next = None
            self._waiting.discard(name)

    def run(self, actors: dict[str, Callable[[], None]]) -> None:
        """Run all actors to their ends."""
        self._running = set(actors)
        threads = [
            threading.Thread(target=self._act, args=[name, act], name=name)
            for name, act in actors.items()
        ]
        for thread in threads:
            thread.start()
        while self._let_one_go():
            pass
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _let_one_go(self) -> bool:
        with self._condition:
            quiet = self._condition.wait_for(
                lambda: self._next is None and self._waiting == self._running,
                timeout=_PATIENCE_SECONDS,
            )
            assert quiet, "a thread neither waits nor ends"
            if not self._running:
                return False
            self._next = self._choose(sorted(self._waiting))
            self._condition.notify_all()
            return True

    def _act(self, name: str, act: Callable[[], None]) -> None:
        try:
            self.step()
            act()
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.errors.append(error)
        finally:
            with self._condition:
                self._running.discard(name)
                self._condition.notify_all()


class SharedStore(MemoryStore):
    """A store for many threads, with a clock that the test sets.

    `before` is called before each operation, outside of its lock.
    """

    def __init__(self, name: str = "shared") -> None:
        super().__init__(name)
        self.seconds = 0.0
        self.before: Callable[[], None] = lambda: None
        self.puts: list[str] = []
        self._mutex = threading.RLock()

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """See `Store.put`."""
        self.before()
        with self._mutex:
            self.puts.append(key)
            super().put(key, chunks)
            content, _ = self._objects[key]
            self._objects[key] = (content, self._now())
            return super().stat(key)

    @contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        """See `Store.open`."""
        self.before()
        with self._mutex, super().open(key, start) as file:
            yield file

    def stat(self, key: str) -> ObjectInfo:
        """See `Store.stat`; what `put` and `list` call is no operation of its own."""
        with self._mutex:
            return super().stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`; one moment's view of all keys."""
        self.before()
        with self._mutex:
            return iter([*super().list(prefix)])

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self.before()
        with self._mutex:
            super().delete(key)

    def _now(self) -> datetime:
        return datetime(2026, 3, 10, tzinfo=UTC) + timedelta(seconds=self.seconds)
