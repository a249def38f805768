"""Blockers: the open transactions that a migration would have to wait for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

from opskit.postgres.connect import Connection, query

_TABLES_SHOWN = 3
# Locks are those on tables of the database and what belongs to them. Who may not see
# the sessions of others learns neither their state nor their age.
_BLOCKERS: LiteralString = """
    WITH locked AS (
      SELECT l.pid, l.virtualtransaction, array_agg(DISTINCT
               format('%%I.%%I', n.nspname, coalesce(t.relname, c.relname))) AS tables
      FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_index i ON i.indexrelid = c.oid
        LEFT JOIN pg_class t ON t.oid = i.indrelid
      WHERE l.granted AND c.oid >= 16384 AND n.nspname !~ '^pg_'
        AND l.database = (SELECT oid FROM pg_database
                          WHERE datname = current_database())
      GROUP BY 1, 2)
    SELECT a.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''),
           coalesce(a.state, ''),
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8, k.tables, ''
    FROM pg_stat_activity a JOIN locked k ON k.pid = a.pid
    WHERE a.pid <> pg_backend_pid()
      AND coalesce(a.backend_type, 'client backend') = 'client backend'
      AND coalesce(a.application_name, '') NOT LIKE 'opskit %%'
      AND (a.application_name = 'pg_dump' OR a.xact_start IS NULL
           OR clock_timestamp() - a.xact_start > make_interval(secs => %s))
    UNION ALL
    SELECT 0, p.owner, '', 'prepared',
           extract(epoch FROM clock_timestamp() - p.prepared)::float8, k.tables, p.gid
    FROM pg_prepared_xacts p
      JOIN pg_locks x ON x.transactionid = p.transaction AND x.pid IS NULL
      JOIN locked k ON k.pid IS NULL AND k.virtualtransaction = x.virtualtransaction
    WHERE p.database = current_database()
    ORDER BY 5 DESC NULLS LAST, 1"""


@dataclass(frozen=True, kw_only=True)
class Blocker:
    """A transaction that holds locks on tables: whose, since when, and on which.

    `pid` is 0 for a prepared one, whose name is `gid`. `seconds` is None where this
    role may not see it.
    """

    pid: int
    user: str
    application: str
    state: str
    seconds: float | None
    tables: tuple[str, ...]
    gid: str = ""

    @property
    def is_dump(self) -> bool:
        """Whether it is a pg_dump, which holds every table until it has ended."""
        return self.application == "pg_dump"

    @property
    def kind(self) -> str:
        """What it is, in the words of an administrator."""
        if self.is_dump:
            return "a running pg_dump"
        if self.gid:
            return f"the prepared transaction {self.gid}"
        if self.state.startswith("idle in transaction"):
            return "a session that is idle in its transaction"
        return "a long transaction" if self.state else "a session of another role"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.gid:
            return f"COMMIT PREPARED or ROLLBACK PREPARED {_literal(self.gid)}."
        if self.is_dump:
            return "Wait for that backup to end."
        return (
            f"Wait for it to end, or end it: SELECT pg_terminate_backend({self.pid});"
        )

    def __str__(self) -> str:
        who = [f"server process {self.pid}"] if self.pid else []
        who += [f"user {self.user}"] if self.user else []
        who += [self.application] if self.application else []
        age = "" if self.seconds is None else f", {self.seconds:.0f} s old"
        more = len(self.tables) - _TABLES_SHOWN
        tables = ", ".join(self.tables[:_TABLES_SHOWN])
        return f"{self.kind} ({', '.join(who)}{age}) holds {tables}" + (
            f" and {more} more" if more > 0 else ""
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {
            "pid": self.pid or None,
            "user": self.user,
            "application": self.application,
            "kind": self.kind,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "tables": list(self.tables),
            "hint": self.remedy,
        }


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def blockers(connection: Connection, *, seconds: float) -> list[Blocker]:
    """Return who holds locks on tables for longer than that, and every pg_dump.

    The oldest comes first. Sessions of opskit itself are left out.
    """
    return [
        Blocker(
            pid=pid,
            user=user,
            application=application,
            state=state,
            seconds=age,
            tables=tuple(tables),
            gid=gid,
        )
        for pid, user, application, state, age, tables, gid in query(
            connection, _BLOCKERS, seconds
        )
    ]
