"""Migration tools of others: what is learnt from how they failed."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from opskit.errors import MigrationFailed
from opskit.postgres.migrations import WAITED
from opskit.release.programs import Program
from opskit.release.revisions import Bounds, Revision

SQL = "\n[SQL: {}]\n(Background on this error at: https://sqlalche.me/e/20/e3q8)\n"
LONG = SQL.format("UPDATE item SET name = 'x' " * 100)


@pytest.mark.parametrize(
    ("error", "sqlstate"),
    [
        ("canceling statement due to lock timeout\n", WAITED),
        (f"canceling statement due to lock timeout{LONG}", WAITED),
        (f"(psycopg.errors.LockNotAvailable) anderer Wortlaut{LONG}", WAITED),
        (f"syntax error{LONG}", ""),
        ("syntax error" + SQL.format("INSERT INTO log VALUES ('lock timeout')"), ""),
    ],
    ids=["short", "long", "not English", "another", "another that speaks of it"],
)
def test_a_lock_that_was_waited_for_is_told_from_other_errors(
    error: str, sqlstate: str, tmp_path: Path
) -> None:
    """SQLAlchemy prints the whole statement after the server's words."""
    tool = Program(name="tool", folder=tmp_path, url_variable="URL", hint="")
    revision = Revision(id="1", title="", phase="expand", sha256="", has_way_back=True)
    bounds = Bounds(lock_wait=timedelta(seconds=1), statement=timedelta(seconds=60))
    command = [sys.executable, "-c", "import sys; sys.exit(sys.argv[1])", error]

    with pytest.raises(MigrationFailed) as raised:
        tool.move(command, "postgresql://127.0.0.1/shop", revision, bounds)

    assert raised.value.sqlstate == sqlstate
