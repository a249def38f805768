"""Plants mutants in a restored database, each in a transaction that is rolled back.

What is damaged apart from rows and objects, sequences and large objects, is here too.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import LiteralString

import psycopg
from psycopg import sql

from opskit.catalog.manifest import SequenceRecord
from opskit.checks import Check
from opskit.compare import contents
from opskit.compare.contents import RestoredCopy
from opskit.errors import DatabaseError, ServerFault
from opskit.mutants import objects, rows
from opskit.mutants.mutant import (
    Attempts,
    Candidate,
    Ground,
    Miss,
    Mutant,
    MutantReport,
    Supply,
    large_objects,
    rotate,
)
from opskit.postgres import content
from opskit.postgres.connect import Connection, translated

# All large objects are read again for each mutant.
_SIZE_BYTES_MAX = 256 * 1024 * 1024
_OBJECT_NUMBER_MAX = 2**32 - 1
_STEPS_FORWARD = 1000


def apart_kinds(ground: Ground, seed: str) -> dict[str, Supply]:
    """Return each kind of damage to sequences and large objects that is possible."""
    found = {}
    sequences = sorted(ground.copy.sequences, key=_name)
    if sequences:
        for name, steps in (
            ("set a sequence back", -1),
            ("set a sequence forward", _STEPS_FORWARD),
        ):
            found[name] = _sequences(ground, sequences, seed + name, steps)
    recorded = ground.copy.manifest.large_objects
    if recorded.size_bytes <= _SIZE_BYTES_MAX:
        found["add a large object"] = _additions(ground, seed)
        if recorded.count:
            found["delete a large object"] = _deletions(ground, seed)
            found["change a large object"] = _changes(ground, seed)
    return found


def _name(record: SequenceRecord) -> str:
    return f"{record.schema_name}.{record.name}"


def _sequences(
    ground: Ground, records: Sequence[SequenceRecord], seed: str, steps: int
) -> Supply:
    rng = random.Random(seed)  # noqa: S311 - the same seed must give the same mutants
    for record in rng.sample(records, len(records)):
        bounds = ground.connection.execute(
            """
            SELECT s.seqincrement, s.seqmin, s.seqmax FROM pg_sequence s
            JOIN pg_class c ON c.oid = s.seqrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relname = %s
            """,
            (record.schema_name, record.name),
        ).fetchone()
        value = None
        if bounds is not None:
            increment, least, greatest = map(int, bounds)
            value = _moved(record, increment, least, greatest, steps)
        yield None if value is None else _set(record, value)


def _moved(
    record: SequenceRecord, increment: int, least: int, greatest: int, steps: int
) -> int | None:
    """Return where to set a sequence, so that it is not where it was."""
    for count in (steps, steps // abs(steps)):
        value = record.last_value + count * increment
        if least <= value <= greatest:
            return value
    # It would hand out once more what it handed out last.
    return record.last_value if record.is_called and steps < 0 else None


def _set(record: SequenceRecord, value: int) -> Candidate:
    def look(connection: Connection) -> Check | None:
        check = contents.check_sequence(connection, record)
        return check if check.observed or check.passed else None

    # Unlike setval, it can be rolled back.
    damage = sql.SQL("ALTER SEQUENCE {} RESTART WITH {}").format(
        sql.Identifier(record.schema_name, record.name), sql.Literal(value)
    )
    return Candidate(
        target=f"{_name(record)} from {record.last_value} to {value}",
        statements=[damage],
        look=look,
        names=[_name(record)],
    )


def _objects(ground: Ground, seed: str, kind: str) -> list[int]:
    rng = random.Random(seed + kind)  # noqa: S311 - as above
    return large_objects(
        ground.connection, salt=rng.getrandbits(63), limit=ground.number
    )


def _large_object(
    ground: Ground, target: str, text: LiteralString, *values: int
) -> Candidate:
    recorded = ground.copy.manifest.large_objects
    return Candidate(
        target=target,
        statements=[sql.SQL(text).format(*map(sql.Literal, values))],
        look=lambda connection: contents.check_large_objects(connection, recorded),
        names=["large objects"],
    )


def _deletions(ground: Ground, seed: str) -> Supply:
    for oid in _objects(ground, seed, "delete"):
        text: LiteralString = "SELECT lo_unlink({})"
        yield _large_object(ground, f"large object {oid}", text, oid)


def _changes(ground: Ground, seed: str) -> Supply:
    """Flip a bit of a large object."""
    rng = random.Random(f"{seed}/byte")  # noqa: S311 - as above
    for oid in _objects(ground, seed, "change"):
        query = "SELECT octet_length(lo_get(%s))"
        ((size_bytes,),) = ground.connection.execute(query, (oid,)).fetchall()
        if not size_bytes:
            yield None
            continue
        offset = rng.randrange(size_bytes)
        yield _large_object(
            ground,
            f"large object {oid}, byte {offset}",
            "SELECT lo_put({0}, {1}, set_byte(lo_get({0}, {1}, 1), 0, "
            "get_byte(lo_get({0}, {1}, 1), 0) # 1))",
            oid,
            offset,
        )


def _additions(ground: Ground, seed: str) -> Supply:
    rng = random.Random(f"{seed}/add")  # noqa: S311 - as above
    while True:
        # Where the number is taken, the server refuses. None is asked of its counter,
        # which a rollback does not set back.
        oid = rng.randint(1, _OBJECT_NUMBER_MAX)
        text: LiteralString = r"SELECT lo_from_bytea({}, '\x00')"
        yield _large_object(ground, f"large object {oid}", text, oid)


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
        of_contents = rows.kinds(ground, seed) | apart_kinds(ground, seed)
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
    """Plant a candidate in a transaction that is rolled back.

    Returns None if the server refused it, or nothing was changed.
    """
    connection, touched = ground.connection, 0
    try:
        with translated("mutant"), connection.transaction(force_rollback=True):
            for statement in candidate.statements:
                touched = connection.execute(statement).rowcount
            if candidate.touches not in (None, touched):
                return None
            check = candidate.look(connection)
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
