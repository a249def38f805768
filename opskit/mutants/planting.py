"""Plants mutants in a restored database, each in a transaction that is rolled back."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import LiteralString

import psycopg
from psycopg import sql

from opskit.compare.contents import RestoredCopy
from opskit.errors import DatabaseError, ServerFault
from opskit.mutants import apart, objects, rows
from opskit.mutants.candidate import Candidate, Ground, Statement, Supply
from opskit.mutants.mutant import Attempts, Miss, Mutant, MutantReport, rotate
from opskit.postgres import content
from opskit.postgres.connect import Connection, translated

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


def _prepare_session(connection: Connection) -> bool:
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
def _undone(connection: Connection) -> Iterator[None]:
    """Run the block in a transaction that is rolled back, however the block ends.

    Raises:
        DatabaseError: the server refused something in the block.
    """
    with translated("mutant"), connection.transaction(force_rollback=True):
        yield


def _run(connection: Connection, statements: Sequence[Statement]) -> int:
    """Run statements and return how many rows the last of them touched."""
    touched = 0
    for statement in statements:
        touched = connection.execute(statement).rowcount
    return touched


def plant(copy: RestoredCopy, *, number: int, seed: str) -> MutantReport:
    """Plant mutants in a copy that equals its manifest, and see which are noticed.

    The affected part of the comparison runs again in the transaction of each. The same
    seed gives the same mutants in the same copy. They are spread over all kinds that
    the copy has something for, rows and sequences as many as objects.

    Raises:
        ServerFault: the server failed, or the connection to the copy was lost.
    """
    with copy.connect() as connection:
        content.use_encoding(connection, copy.manifest.inventory.encoding)
        ground = Ground(
            connection=connection,
            copy=copy,
            number=number,
            is_silent=_prepare_session(connection),
        )
        of_contents = rows.kinds(ground, seed) | apart.kinds(ground, seed)
        in_turns = alternating(of_contents, objects.kinds(ground, seed), seed)
        kinds = [(name, _attempts(ground, name, supply)) for name, supply in in_turns]
        return rotate(kinds, number=number, seed=seed)


def alternating(
    contents: Mapping[str, Supply], structure: Mapping[str, Supply], seed: str
) -> list[tuple[str, Supply]]:
    """Return all kinds in the order of their turns: contents, structure, contents…"""
    rng = random.Random(seed)  # noqa: S311 - the same seed must give the same mutants
    pairs = itertools.zip_longest(
        rng.sample(list(contents.items()), len(contents)),
        rng.sample(list(structure.items()), len(structure)),
    )
    return [kind for pair in pairs for kind in pair if kind is not None]


def _attempts(ground: Ground, kind: str, supply: Supply) -> Attempts:
    """Plant one candidate after the other; end where the server refuses to look."""
    planted: set[str] = set()
    try:
        with translated(kind):
            for candidate in supply:
                if candidate is None or candidate.target in planted:
                    yield Miss.NOTHING_THERE
                    continue
                mutant = _try(ground, kind, candidate)
                if mutant is None:
                    yield Miss.REFUSED
                    continue
                planted.add(candidate.target)
                yield mutant
    except ServerFault:
        raise
    except DatabaseError:
        return


def _try(ground: Ground, kind: str, candidate: Candidate) -> Mutant | None:
    """Plant a candidate; None if the server refused it or nothing was changed."""
    try:
        with _undone(ground.connection):
            touched = _run(ground.connection, candidate.statements)
            if candidate.touches not in (None, touched):
                return None
            check = candidate.look(ground.connection)
    except ServerFault:
        raise
    except DatabaseError:
        return None
    if check is None:
        return None
    words = f"{check.name}: {check.detail}"
    noticed = check.failed and all(name in words for name in candidate.names)
    return Mutant(
        kind=kind,
        target=candidate.target,
        noticed=noticed,
        noticed_by=check.name if noticed else "",
    )
