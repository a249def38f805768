"""Candidate: a damage that may be planted, and the part of the comparison it is for."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from opskit.checks import Check
from opskit.compare.contents import RestoredCopy
from opskit.postgres.connect import Connection, translated

Statement = sql.SQL | sql.Composed

_LOCK_SECONDS_MAX = 10

# What a database or a role may have set otherwise and would stand in the way. With no
# parallel and no shared scans, the first rows of a table are the same each time.
_SESSION: tuple[LiteralString, ...] = (
    "SET default_transaction_read_only = off",
    "SET default_transaction_isolation = 'read committed'",
    "SET default_tablespace = ''",
    "SET max_parallel_workers_per_gather = 0",
    "SET synchronize_seqscans = off",
)


def prepare_session(connection: Connection) -> bool:
    """Make a session ready to damage; return whether triggers and rules are silent.

    Without the right to silence them, foreign keys and triggers act as they would
    for a service, and the server refuses more.
    """
    for statement in _SESSION:
        connection.execute(statement)
    connection.execute(
        sql.SQL("SET lock_timeout = {}").format(
            sql.Literal(f"{_LOCK_SECONDS_MAX}s"),
        )
    )
    try:
        connection.execute("SET session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


@contextlib.contextmanager
def undone(connection: Connection) -> Iterator[None]:
    """Run the block in a transaction that is rolled back, however the block ends.

    Raises:
        DatabaseError: the server refused something in the block.
    """
    with translated("mutant"), connection.transaction(force_rollback=True):
        yield


def run(connection: Connection, statements: Sequence[Statement]) -> int:
    """Run statements and return how many rows the last of them touched."""
    touched = 0
    for statement in statements:
        touched = connection.execute(statement).rowcount
    return touched


def written(text: str) -> Statement:
    """Return a statement that the server itself wrote, quoted as it needs to be."""
    return sql.SQL(text)


def sampled(
    connection: Connection,
    query: LiteralString,
    *,
    names: Sequence[str],
    salt: int,
    limit: int,
) -> list[tuple[str, str]]:
    """Return names and statements of a query, in an order that the salt decides.

    Only the names given count. The order does not depend on object numbers, which
    differ from one restore to the next.
    """
    if not names:
        return []
    # Without parameters: the percent signs in the query are the server's format().
    statement = sql.SQL(
        "SELECT q.name, q.statement FROM ({}) AS q (name, statement) "
        "WHERE q.name = ANY ({}::text[]) "
        'ORDER BY hashtextextended((q.name || q.statement) COLLATE "C", {}), 1, 2 '
        "LIMIT {}"
    ).format(
        sql.SQL(query), sql.Literal(list(names)), sql.Literal(salt), sql.Literal(limit)
    )
    return [(name, text) for name, text in connection.execute(statement).fetchall()]


def sequence_bounds(
    connection: Connection, schema: str, name: str
) -> tuple[int, int, int] | None:
    """Return increment, least and greatest value of a sequence, if it is there."""
    row = connection.execute(
        """
        SELECT s.seqincrement, s.seqmin, s.seqmax FROM pg_sequence s
        JOIN pg_class c ON c.oid = s.seqrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relname = %s
        """,
        (schema, name),
    ).fetchone()
    return None if row is None else (int(row[0]), int(row[1]), int(row[2]))


def set_sequence(schema: str, name: str, value: int) -> Statement:
    """Return what sets a sequence; unlike setval, it can be rolled back."""
    return sql.SQL("ALTER SEQUENCE {} RESTART WITH {}").format(
        sql.Identifier(schema, name), sql.Literal(value)
    )


def large_objects(connection: Connection, *, salt: int, limit: int) -> list[int]:
    """Return numbers of large objects in an order that the salt decides."""
    rows = connection.execute(
        "SELECT oid FROM pg_largeobject_metadata "
        "ORDER BY hashint8extended(oid::bigint, %s), 1 LIMIT %s",
        (salt, limit),
    ).fetchall()
    return [int(oid) for (oid,) in rows]


def large_object_size(connection: Connection, oid: int) -> int:
    """Return the number of bytes in a large object."""
    row = connection.execute("SELECT octet_length(lo_get(%s))", (oid,)).fetchone()
    return 0 if row is None else int(row[0])


def delete_large_object(oid: int) -> Statement:
    """Return what deletes a large object."""
    return sql.SQL("SELECT lo_unlink({})").format(sql.Literal(oid))


def give_large_object_away(oid: int, role: str) -> Statement:
    """Return what makes a role the owner of a large object."""
    return sql.SQL("ALTER LARGE OBJECT {} OWNER TO {}").format(
        sql.Literal(oid), sql.Identifier(role)
    )


def flip_in_large_object(oid: int, offset: int) -> Statement:
    """Return what flips one bit of a large object."""
    return sql.SQL(
        "SELECT lo_put({0}, {1}, set_byte(lo_get({0}, {1}, 1), 0, "
        "get_byte(lo_get({0}, {1}, 1), 0) # 1))"
    ).format(sql.Literal(oid), sql.Literal(offset))


def add_large_object(oid: int) -> Statement:
    """Return what adds a large object of one byte."""
    return sql.SQL(r"SELECT lo_from_bytea({}, '\x00')").format(sql.Literal(oid))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A damage that the server may take or refuse.

    `look` runs the affected part of the comparison in the session that holds the
    damage; it returns None where that part could not be read. The check that it
    returns must fail and carry each of `names`. `touches` is how many rows the last
    statement touches if it changes anything.
    """

    target: str
    statements: Sequence[Statement]
    look: Callable[[Connection], Check | None]
    names: Sequence[str]
    touches: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where mutants are planted. `number` is how many are asked for in all."""

    connection: Connection
    copy: RestoredCopy
    number: int
    is_silent: bool


# Candidates of one kind; None where one was looked for in vain.
Supply = Iterator[Candidate | None]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of damage and its candidates."""

    name: str
    supply: Supply


def shuffled(kinds: Sequence[Kind], rng: random.Random) -> list[Kind]:
    """Return the kinds in an order that the generator decides."""
    return rng.sample(kinds, len(kinds))


_NAME = "mutants"
_SHOWN_MAX = 10


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One damage that the server took; `noticed_by` is the check that named it."""

    kind: str
    target: str
    noticed: bool
    noticed_by: str = ""


@dataclass(frozen=True, kw_only=True)
class MutantReport:
    """What was planted with a seed. `refused` are the kinds that the server took none
    of, though there was something to damage.
    """

    seed: str
    planted: tuple[Mutant, ...]
    refused: tuple[str, ...] = ()

    @property
    def survivors(self) -> tuple[Mutant, ...]:
        """The mutants that the comparison did not notice."""
        return tuple(each for each in self.planted if not each.noticed)

    @property
    def killed(self) -> int:
        """How many mutants the comparison noticed."""
        return len(self.planted) - len(self.survivors)

    @property
    def kill_rate(self) -> float:
        """The part of the mutants that was noticed; 0 where there was none."""
        return self.killed / len(self.planted) if self.planted else 0.0

    def check(self) -> Check:
        """Return the check of the drill: passed if all were noticed, and not none."""
        number = len(self.planted)
        return Check(
            name=_NAME,
            passed=bool(self.planted) and not self.survivors,
            expected=f"{number} of {number} noticed"
            if number
            else "at least 1 noticed",
            observed=f"{self.killed} of {number} noticed",
            detail="; ".join(part for part in self._details() if part),
        )

    def _details(self) -> list[str]:
        survivors = [f"{each.kind}: {each.target}" for each in self.survivors]
        return [
            f"seed {self.seed}",
            "" if self.planted else "nothing could be planted",
            _listed("not noticed", survivors),
            _listed("refused by the server", self.refused),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON-ready document."""
        return {
            "seed": self.seed,
            "planted": len(self.planted),
            "killed": self.killed,
            "kill_rate": self.kill_rate,
            "survivors": [asdict(each) for each in self.survivors],
            "refused": list(self.refused),
            "mutants": [asdict(each) for each in self.planted],
        }


def _listed(label: str, names: list[str] | tuple[str, ...]) -> str:
    if not names:
        return ""
    more = len(names) - _SHOWN_MAX
    cut = f" and {more} more" if more > 0 else ""
    return f"{label}: {', '.join(names[:_SHOWN_MAX])}{cut}"
