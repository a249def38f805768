"""Copies: databases that restores and drills make beside others, marked as such.

A copy's mark stands in front of its comment. It names the run, and is bound to the
database's own number and name: a mark that was restored into another database, or a
copy that somebody renamed to keep it, is not a leftover. Only what is marked is ever
dropped here. The run that made a copy holds an advisory lock of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterator
from typing import LiteralString

import psycopg

from opskit.errors import DatabaseError
from opskit.log import logger
from opskit.postgres import database
from opskit.postgres.connect import (
    Connection,
    connect,
    execute,
    query,
    query_column,
    query_value,
    quoted,
    translated,
)
from opskit.postgres.inventory import Inventory
from opskit.postgres.parameters import with_database

_MARK = re.compile(
    r"\[opskit copy, run (?P<run>\w+), (?P<binding>[0-9a-f]{16})"
    r"(?:, closed (?P<closed>\d+))?\]\n?"
)
# The class of the advisory locks of copies, beside the digest of a name.
_LOCK_CLASS = 1_869_640_555
_DESCRIBED: LiteralString = (
    "SELECT oid, datname, shobj_description(oid, 'pg_database') FROM pg_database "
)


def create(
    connection: Connection,
    name: str,
    inventory: Inventory,
    *,
    run_id: str,
    tablespace: str = "",
) -> None:
    """Create a database like the source's and mark it as a copy of this run.

    Without a run it gets no mark, and nobody ever drops it. No other run takes a copy
    for a dead one's until the connection ends. A kill before the mark leaves an empty
    database.
    """
    if not run_id:
        database.create_like(connection, name, inventory, tablespace=tablespace)
        return
    connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (_LOCK_CLASS, name))
    database.create_like(connection, name, inventory, tablespace=tablespace)
    try:
        mark(connection, name, run_id)
    except BaseException:
        database.drop(connection, name)
        raise


def mark(
    connection: Connection, name: str, run_id: str, *, closed: int | None = None
) -> None:
    """Write the mark before a copy's comment, with a database that it keeps closed."""
    for oid, comment in _described(connection, name):
        also = "" if closed is None else f", closed {closed}"
        text = f"[opskit copy, run {run_id}, {_binding(oid, name)}{also}]"
        own = _own_comment(oid, name, comment)
        _comment(connection, name, f"{text}\n{own}" if own else text)


def run_about(connection: Connection, name: str, script: str, *, run_id: str) -> None:
    """Run statements about a copy itself; where one comments on it the mark stays."""
    if not run_id:
        database.run_script(connection, script)
        return
    with connection.transaction():
        database.run_script(connection, script)
        mark(connection, name, run_id)


def unmark(connection: Connection, name: str) -> None:
    """Leave a database the comment of its own: it is no copy any more."""
    for oid, comment in _described(connection, name):
        _comment(connection, name, _own_comment(oid, name, comment))


def without_mark(statement: str) -> str:
    """Return a statement that comments on a copy without the mark."""
    before, divider, comment = statement.partition(" IS '")
    return before + divider + _MARK.sub("", comment, count=1)


def drop_copy(connection: Connection, url: str, name: str) -> None:
    """Drop a copy that has its mark, with its subscriptions, which would hold it back.

    `url` leads to any database of the server. One that is closed for the copy is opened
    first. Subscriptions were never connected; nothing is asked of their publishers.
    """
    copies = dict(_copies(connection))
    if name not in copies:
        return
    _reopen(connection, name, copies[name])
    _drop(connection, url, name)


def drop_made(connection: Connection, url: str, name: str, *, run_id: str) -> None:
    """Drop what `create` made for this run; without a run it has no mark."""
    (drop_copy if run_id else _drop)(connection, url, name)


def sweep(connection: Connection, url: str, *, looks_like: str) -> None:
    """Drop the copies that killed runs left, and open what they had closed.

    A copy is in use while a session is in it or holds its lock. What looks like a copy
    by its name, a regular expression, but has no mark, is only reported.
    """
    copies = dict(_copies(connection))
    idle = _idle(connection)
    for name in sorted(idle & copies.keys()):
        logger().warning("dropping what a killed run left", database=name)
        try:
            drop_copy(connection, url, name)
        except DatabaseError as error:
            logger().warning("a copy could not be dropped", failed=error.message)
    for name in sorted(idle - copies.keys()):
        if re.fullmatch(looks_like, name):
            logger().warning(
                "a database is named like a copy of a killed run but not marked as "
                "one; if nobody needs it, drop it",
                database=name,
            )


def _reopen(connection: Connection, copy: str, closed: int | None) -> None:
    """Let sessions into a copy, and into what is closed for it, where they are not."""
    closed_ones: LiteralString = (
        "SELECT datname FROM pg_database "
        "WHERE NOT datallowconn AND (datname = %s OR oid = %s)"
    )
    for name in query_column(connection, closed_ones, copy, closed):
        database.allow_connections(connection, name, allowed=True)


def all_copies(connection: Connection) -> set[str]:
    """Return the copies on a server, whoever owns them."""
    rows = query(connection, _DESCRIBED)
    return {name for oid, name, text in rows if _mark_of(oid, name, text or "")}


def _copies(connection: Connection) -> Iterator[tuple[str, int | None]]:
    """Yield the copies that the connection's role owns, and what each keeps closed."""
    statement = _DESCRIBED + "WHERE pg_has_role(datdba, 'USAGE')"
    for oid, name, comment in query(connection, statement):
        mark = _mark_of(oid, name, comment or "")
        if mark is not None:
            yield name, None if mark["closed"] is None else int(mark["closed"])


def _idle(connection: Connection) -> set[str]:
    """Return the databases that no session is in, or holds the lock of a copy."""
    names = query_column(
        connection,
        """
        SELECT datname FROM pg_database d
        WHERE NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)
          AND NOT EXISTS (
            SELECT FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.classid = %s::bigint::oid
              AND l.objid::bigint = hashtext(d.datname::text)::bigint & 4294967295)""",
        _LOCK_CLASS,
    )
    return set(names)


def _described(connection: Connection, name: str) -> list[tuple[int, str]]:
    statement = _DESCRIBED + "WHERE datname = %s"
    rows = query(connection, statement, name)
    return [(int(oid), comment or "") for oid, _name, comment in rows]


def _binding(oid: int, name: str) -> str:
    return hashlib.sha256(f"{oid} {name}".encode()).hexdigest()[:16]


def _mark_of(oid: int, name: str, comment: str) -> re.Match[str] | None:
    mark = _MARK.match(comment)
    bound = mark is not None and mark["binding"] == _binding(oid, name)
    return mark if bound else None


def _own_comment(oid: int, name: str, comment: str) -> str:
    mark = _mark_of(oid, name, comment)
    return comment if mark is None else comment[mark.end() :]


def _comment(connection: Connection, name: str, text: str) -> None:
    execute(connection, "COMMENT ON DATABASE {} IS {text}", name, text=text or None)


def _drop(connection: Connection, url: str, name: str) -> None:
    with contextlib.suppress(DatabaseError):
        # A database that cannot be entered is dropped all the same, or says why not.
        _drop_subscriptions(with_database(url, name))
    database.drop(connection, name)


def _drop_subscriptions(url: str) -> None:
    with connect(url, purpose="cleaning up") as inside:
        for subscription in query_column(
            inside,
            "SELECT subname FROM pg_subscription s JOIN pg_database d "
            "ON d.oid = s.subdbid WHERE d.datname = current_database()",
        ):
            execute(inside, "ALTER SUBSCRIPTION {} DISABLE", subscription)
            execute(inside, "ALTER SUBSCRIPTION {} SET (slot_name=NONE)", subscription)
            execute(inside, "DROP SUBSCRIPTION {}", subscription)


_SECONDS_MAX = 30.0
_PAUSE_SECONDS = 0.25
# Of another role's session a role that may not see more than its user sees no type.
_SESSIONS = """
    pg_stat_activity a WHERE a.datname = ANY (%s)
    AND a.usesysid IS NOT NULL AND a.pid <> pg_backend_pid()
    AND a.backend_type IS DISTINCT FROM 'autovacuum worker'"""
_MAY_END = """
    (SELECT r.rolsuper OR NOT u.rolsuper AND (pg_has_role(u.oid, 'USAGE')
       OR pg_has_role('pg_signal_backend', 'USAGE'))
     FROM pg_roles r, pg_roles u WHERE r.rolname = current_user AND u.oid = a.usesysid)
"""


def obstacles(connection: Connection, name: str) -> list[str]:
    """Return what in a database keeps it from being renamed or ties it to its name."""
    rows = connection.execute(
        f"""
        SELECT 'the prepared transaction ' || gid
        FROM pg_prepared_xacts WHERE database = %s
        UNION ALL SELECT 'the replication slot ' || slot_name
        FROM pg_replication_slots WHERE database = %s
        UNION ALL SELECT 'the enabled subscription ' || subname
        FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
        WHERE s.subenabled AND d.datname = %s
        UNION ALL SELECT DISTINCT
          'a session of the role ' || a.usename || ', which this role may not end'
        FROM {_SESSIONS} AND NOT {_MAY_END}
        """,  # noqa: S608  # put together from constants
        (name, name, name, [name]),
    )
    return [text for (text,) in rows]


def take_name(
    connection: Connection, *, copy: str, target: str, kept: str | None, run_id: str
) -> None:
    """Give a copy the name `target`; a database that has it is called `kept` then.

    Everybody is kept out first. Whatever happens, the old database lets sessions in
    again; after a kill, `sweep` sees to that. DatabaseError: somebody stays who may not
    be ended.
    """
    names = [copy] if kept is None else [copy, target]
    if kept is not None:
        oid = query_value(
            connection, "SELECT oid FROM pg_database WHERE datname = %s", target
        )
        mark(connection, copy, run_id, closed=oid)
    try:
        for name in names:
            database.allow_connections(connection, name, allowed=False)
        _rename_when_free(connection, copy, target, kept)
    except BaseException:
        for name in reversed(names):
            database.allow_connections(connection, name, allowed=True)
        raise


def _rename_when_free(
    connection: Connection, copy: str, target: str, kept: str | None
) -> None:
    deadline = time.monotonic() + _SECONDS_MAX
    names = [copy, target]
    while True:
        connection.execute(
            f"SELECT pg_terminate_backend(a.pid) FROM {_SESSIONS} AND {_MAY_END}",  # noqa: S608
            (names,),
        )
        try:
            with translated("renaming"), connection.transaction():
                _rename(connection, copy, target, kept)
        except DatabaseError as error:
            if not isinstance(error.__cause__, psycopg.errors.ObjectInUse):
                raise
            if time.monotonic() > deadline:
                raise _still_in_use(connection, copy, target, kept) from error
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _rename(connection: Connection, copy: str, target: str, kept: str | None) -> None:
    unmark(connection, copy)
    if kept is not None:
        database.rename(connection, target, kept)
        database.allow_connections(connection, kept, allowed=True)
    database.rename(connection, copy, target)
    database.allow_connections(connection, target, allowed=True)


def _still_in_use(
    connection: Connection, copy: str, target: str, kept: str | None
) -> DatabaseError:
    """Keep the copy, which is complete, and return the error that says so."""
    unmark(connection, copy)
    names = [(copy, target)] if kept is None else [(target, kept), (copy, target)]
    steps = " ".join(
        f"ALTER DATABASE {quoted(old)} RENAME TO {quoted(new)};" for old, new in names
    )
    inside = obstacles(connection, target) or obstacles(connection, copy)
    return DatabaseError(
        f"the databases cannot be renamed while they are in use: {', '.join(inside)}",
        hint=f"The restored copy was compared and is kept as {copy}. When nobody is in "
        f"either database: {steps}",
        details={"kept": copy},
    )
