"""Bound: the time that a restore or a drill may take, and what stood still in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opskit.errors import DatabaseError, OpskitError, ServerFault
from opskit.log import logger
from opskit.postgres import locks
from opskit.postgres.connect import connect
from opskit.postgres.locks import Session
from opskit.threads import Thread

# What did not move in the last part of the time stands still.
_FIRST_LOOK = 0.8
_PAUSE_SECONDS = 0.2
_STATEMENT_SHOWN = 200


class NoProgress(DatabaseError):
    """A statement stood still until the time was over: it is not a slow machine."""


class Bound:
    """The time that a run may take, from now on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._passed = threading.Event()
        self._standing: list[Session] = []

    def passed(self) -> bool:
        """Return whether the time is over, and everything is being ended."""
        return self._passed.is_set()

    @contextmanager
    def over(self, url: str, databases: Sequence[str]) -> Iterator[None]:
        """End all sessions in some databases if the block takes too long.

        `url` leads to another database of the server.

        Raises:
            NoProgress: the time is over, and a statement made no progress.
            ServerFault: the time is over; with more of it, it might have gone well.
        """
        done = threading.Event()
        watch = Thread(self._watch, done, url, databases, name="bound")
        try:
            yield
        except OpskitError as error:
            if self.passed():
                raise self._fault() from error
            raise
        finally:
            done.set()
            watch.join()

    def _watch(self, done: threading.Event, url: str, databases: Sequence[str]) -> None:
        if done.wait(self._left_seconds(_FIRST_LOOK)):
            return
        try:
            with connect(url, purpose="bound") as connection:
                before = locks.working(connection, databases)
                if done.wait(self._left_seconds(1)):
                    return
                now = locks.working(connection, databases)
                self._standing = [each for each in now if each in before]
                self._passed.set()
                while not done.wait(_PAUSE_SECONDS):
                    locks.end(connection, databases)
        except DatabaseError as error:
            # Each program and statement has a limit of its own as well.
            logger().warning("the time cannot be watched", failed=error.message)

    def _left_seconds(self, share: float) -> float:
        return max(0.0, self._began + self._seconds * share - time.monotonic())

    def _fault(self) -> DatabaseError:
        what = f"the run took longer than {self._seconds:g} seconds and was stopped"
        if not self._standing:
            return ServerFault(
                what, hint="Raise timeout in [drill] if the machine needs longer."
            )
        statement = " ".join(self._standing[0].statement.split())[:_STATEMENT_SHOWN]
        return NoProgress(
            f"{what}; no progress in the last fifth of it",
            said=statement,
            hint="See which function of the database the statement runs; raise timeout "
            "in [drill] if it needs longer.",
        )
