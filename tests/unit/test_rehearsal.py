"""The run of a rehearsal beside a writer: what a failure there says."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from opskit.errors import MigrationFailed, ServerFault
from opskit.postgres import witness
from opskit.postgres.witness import Line
from opskit.release import rehearsal
from opskit.release.report import Rehearsal
from opskit.release.revisions import Bounds, Revision

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
FIRST, NEXT = (
    Revision(id=each, title="", phase="expand", sha256="", has_way_back=False)
    for each in ("0001", "0002")
)
DISK_FULL, LOCK_WAIT, RAISED = "53100", "55P03", "P0001"


class _Copy:
    """The second copy: the server's log, and a tool whose attempts fail or do not."""

    def __init__(self, *attempts: str) -> None:
        self.attempts, self.log, self.applied = [*attempts], list[Line](), list[str]()

    def apply(self, _url: str, revision: Revision, _bounds: Bounds) -> None:
        sqlstate = self.attempts.pop(0) if self.attempts else ""
        if sqlstate:
            line = Line(time=NOW, session=1, transaction="", message="said")
            self.log.append(replace(line, sqlstate=sqlstate))
            raise MigrationFailed("the migration failed", said=f"by {sqlstate}")
        self.applied.append(revision.id)


def _beside(monkeypatch: pytest.MonkeyPatch, copy: _Copy) -> Rehearsal:
    """Run two revisions beside a writer."""
    writer = SimpleNamespace(rollback=lambda: None)
    monkeypatch.setattr(rehearsal, "connect", lambda *_, **__: nullcontext(writer))
    monkeypatch.setattr(rehearsal, "invalid_indexes", lambda _url: set())
    monkeypatch.setattr(witness, "position", lambda _c: len(copy.log))
    monkeypatch.setattr(witness, "read_log", lambda _c, _name, begin: copy.log[begin:])
    made = Rehearsal(backup_id="a", started_at=NOW, revisions=[FIRST, NEXT])
    made.cost = SimpleNamespace(locks=(), tables=frozenset())  # type: ignore[assignment]
    bounds = Bounds(lock_wait=timedelta(seconds=1), statement=timedelta(seconds=1))
    run: Any = rehearsal._Run.__new__(rehearsal._Run)
    run._request = SimpleNamespace(tool=copy, bounds=bounds)
    run._made, run._connection, run._user = made, None, ""
    run._beside = "postgresql://db.example/postgres"
    run._with_writer("second")
    return made


def test_a_fault_of_the_server_beside_a_writer_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in the run alone."""
    with pytest.raises(ServerFault, match="throw-away server failed"):
        _beside(monkeypatch, _Copy(DISK_FULL))


@pytest.mark.parametrize(
    ("attempts", "verdicts", "applied"),
    [
        ((), [], ["0001", "0002"]),
        ((LOCK_WAIT,), [], ["0001", "0002"]),
        ((RAISED,), [("migration 0001 beside a writer", False)], []),
        (("", RAISED), [("migration 0002 beside a writer", False)], ["0001"]),
        ((LOCK_WAIT, RAISED), [("migration 0001 beside a writer", None)], []),
    ],
)
def test_a_failure_beside_a_writer_is_shown(
    monkeypatch: pytest.MonkeyPatch,
    attempts: tuple[str, ...],
    verdicts: list[tuple[str, bool | None]],
    applied: list[str],
) -> None:
    """But for a wait for the writer, which is shown among the waits."""
    copy = _Copy(*attempts)

    made = _beside(monkeypatch, copy)

    assert [(each.name, each.passed) for each in made.checks] == verdicts
    assert all("by P0001" in each.detail for each in made.checks)
    assert copy.applied == applied
