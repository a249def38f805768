"""The time that a restore may take: what stands still at its end, and what is slow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from opskit.errors import DatabaseError, ServerFault
from opskit.postgres.locks import Session
from opskit.restore import engine
from opskit.restore.engine import Bound, NoProgress

SECONDS = 100.0
# A slow statement gets on each time that the machine has run for so long.
ROW_SECONDS = 8.0


class Machine:
    """Runs a statement and whoever looks at it, and pauses both once.

    The clock goes on in the pause. The pause comes with a wait, the first or a later
    one, or with the connection if `in_wait` is 0.
    """

    def __init__(self, *, pause_seconds: float, in_wait: int, stands: bool) -> None:
        self._clock, self._ran, self._waits = 0.0, 0.0, 0
        self._pause, self._in_wait, self._stands = pause_seconds, in_wait, stands
        self.ended = threading.Event()

    def monotonic(self) -> float:
        return self._clock

    def wait(self, seconds: float) -> None:
        self._waits += 1
        pause = self._pause if self._waits == self._in_wait else 0.0
        self._clock += max(seconds, pause)
        self._ran += max(seconds - pause, 0.0)

    @contextmanager
    def connect(self, _url: str, **_options: str) -> Iterator[None]:
        if not self._in_wait:
            self._clock += self._pause
        yield

    def working(self, _connection: None, _databases: list[str]) -> list[Session]:
        rows = 0 if self._stands else int(self._ran / ROW_SECONDS)
        began_at = datetime(2026, 1, 1, tzinfo=UTC)
        return [Session(7, began_at, "COPY public.t", str(rows), None)]

    def end(self, _connection: None, _databases: list[str]) -> None:
        self.ended.set()

    def event(self) -> threading.Event:
        machine = self

        class Event(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                assert timeout is not None
                machine.wait(timeout)
                # The bound's last waits are for the end of the block.
                return super().wait(0.01 if machine.ended.is_set() else 0)

        return Event()


def outcome(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> type[DatabaseError]:
    """Run a statement until its session is ended; return the class of the error."""
    monkeypatch.setattr(engine, "time", machine)
    monkeypatch.setattr(engine, "threading", SimpleNamespace(Event=machine.event))
    monkeypatch.setattr(engine, "connect", machine.connect)
    monkeypatch.setattr(engine, "locks", machine)
    with pytest.raises(DatabaseError) as caught:
        _run(machine)
    return type(caught.value)


def _run(machine: Machine) -> None:
    with Bound(SECONDS).over("", ["copy"]):
        assert machine.ended.wait(60)
        raise DatabaseError("the session was ended")


# The first wait is until the first look; the others are between the looks.
PAUSES = [(0.0, 1), (90.0, 0), (90.0, 1), *((90.0, wait) for wait in range(2, 14))]


@pytest.mark.parametrize(("pause_seconds", "in_wait"), PAUSES)
def test_a_pause_of_the_machine_does_not_make_a_slow_statement_stand_still(
    monkeypatch: pytest.MonkeyPatch, pause_seconds: float, in_wait: int
) -> None:
    """Wherever it comes; what stands still is told from it each time."""
    slow = Machine(pause_seconds=pause_seconds, in_wait=in_wait, stands=False)
    standing = Machine(pause_seconds=pause_seconds, in_wait=in_wait, stands=True)

    assert outcome(monkeypatch, slow) is ServerFault
    assert outcome(monkeypatch, standing) is NoProgress
