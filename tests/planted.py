"""Planted locks: statements, the lock that each takes, and what notices it.

`python -m tests.planted` prints them as the table in docs/migrations.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

By = Literal[
    "event trigger",
    "statement in the log",
    "statement in the log, since PostgreSQL 17 event trigger",
    "sampler",
]
TRIGGER: By = "event trigger"
LOG: By = "statement in the log"
LATER: By = "statement in the log, since PostgreSQL 17 event trigger"
SAMPLER: By = "sampler"

# How the server calls the mode of each LOCK TABLE.
MODES = {
    "ACCESS SHARE": "AccessShareLock",
    "ROW SHARE": "RowShareLock",
    "ROW EXCLUSIVE": "RowExclusiveLock",
    "SHARE UPDATE EXCLUSIVE": "ShareUpdateExclusiveLock",
    "SHARE": "ShareLock",
    "SHARE ROW EXCLUSIVE": "ShareRowExclusiveLock",
    "EXCLUSIVE": "ExclusiveLock",
    "ACCESS EXCLUSIVE": "AccessExclusiveLock",
}
_EXCLUSIVE, _SHARE, _MAINTENANCE = (
    "AccessExclusiveLock",
    "ShareLock",
    MODES["SHARE UPDATE EXCLUSIVE"],
)
_FOREIGN = MODES["SHARE ROW EXCLUSIVE"]


@dataclass(frozen=True)
class Way:
    """A way in which LOCK TABLE runs in one transaction, in each mode."""

    title: str
    statements: tuple[str, ...]
    by: By

    def of(self, mode: str) -> list[str]:
        """Return its statements for a mode."""
        lock = f"LOCK TABLE public.t IN {mode} MODE"
        return [each.replace("LOCK", lock) for each in self.statements]


WAYS = (
    Way("LOCK TABLE", ("LOCK",), LOG),
    Way("LOCK TABLE, rolled back to a savepoint",
        ("SAVEPOINT s", "LOCK", "ROLLBACK TO s"), LOG),
    Way("LOCK TABLE in a DO block that goes on for 0.5 s",
        ("DO $$ BEGIN LOCK; PERFORM pg_sleep(0.5); END $$",), SAMPLER),
    Way("LOCK TABLE in a DO block, then CREATE TABLE",
        ("DO $$ BEGIN LOCK; END $$", "CREATE TABLE made (i int)"), TRIGGER),
)  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """A statement, the table that it locks, in which mode, and what notices it."""

    statement: str
    table: str
    mode: str
    by: By

    def noticed_by(self, major: int) -> By:
        """Return what notices it on a server of this major."""
        if self.by != LATER:
            return self.by
        return TRIGGER if major >= 17 else LOG


COMMANDS = (
    Planted("ALTER TABLE t ADD c int", "public.t", _EXCLUSIVE, TRIGGER),
    Planted("DO $$ BEGIN ALTER TABLE t ADD c int; END $$", "public.t", _EXCLUSIVE,
            TRIGGER),
    Planted("ALTER TABLE t VALIDATE CONSTRAINT c", "public.t", _MAINTENANCE, TRIGGER),
    Planted("CREATE INDEX ON t (n)", "public.t", _SHARE, TRIGGER),
    Planted("CREATE INDEX CONCURRENTLY ON t (n)", "public.t", _MAINTENANCE, LOG),
    Planted("DROP INDEX t_n", "public.t", _EXCLUSIVE, TRIGGER),
    Planted("DROP TABLE t CASCADE", "public.t", _EXCLUSIVE, TRIGGER),
    Planted("CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION "
            "suppress_redundant_updates_trigger()", "public.t", _FOREIGN, TRIGGER),
    Planted("ALTER TABLE other ADD FOREIGN KEY (t_id) REFERENCES t", "public.t",
            _FOREIGN, TRIGGER),
    Planted("TRUNCATE t", "public.t", _EXCLUSIVE, LOG),
    Planted('TRUNCATE "Odd Name"', 'public."Odd Name"', _EXCLUSIVE, LOG),
    Planted("TRUNCATE parts", "public.part1", _EXCLUSIVE, LOG),
    Planted("ALTER TABLE parts ADD c int", "public.part1", _EXCLUSIVE, TRIGGER),
    Planted("REINDEX TABLE t", "public.t", _SHARE, LATER),
    Planted("REINDEX INDEX t_n", "public.t", _EXCLUSIVE, LATER),
    Planted("REINDEX TABLE CONCURRENTLY t", "public.t", _MAINTENANCE, LOG),
    Planted("VACUUM FULL t", "public.t", _EXCLUSIVE, LOG),
    Planted("VACUUM (FULL, ANALYZE)", "public.t", _EXCLUSIVE, LOG),
    Planted("VACUUM t", "public.t", _MAINTENANCE, LOG),
    Planted("CLUSTER t USING t_n", "public.t", _EXCLUSIVE, LOG),
    Planted("REFRESH MATERIALIZED VIEW seen", "public.seen", _EXCLUSIVE, TRIGGER),
)  # fmt: skip


def matrix() -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| planted | table | mode | noticed by |"
    yield "|---|---|---|---|"
    for way in WAYS:
        yield f"| {way.title} | `public.t` | each of the eight | {way.by} |"
    for each in COMMANDS:
        yield f"| `{each.statement}` | `{each.table}` | {each.mode} | {each.by} |"


if __name__ == "__main__":
    print("\n".join(matrix()))
