"""Damages to what stands apart from tables: sequences and large objects."""

from __future__ import annotations

import random
from collections.abc import Sequence

from psycopg import sql

from opskit.catalog.manifest import SequenceRecord
from opskit.checks import Check
from opskit.compare import contents
from opskit.mutants.candidate import (
    Candidate,
    Ground,
    Statement,
    Supply,
    large_objects,
)
from opskit.postgres.connect import Connection

# All large objects are read again for each mutant.
_SIZE_BYTES_MAX = 256 * 1024 * 1024
_OBJECT_NUMBER_MAX = 2**32 - 1
_STEPS_FORWARD = 1000


def kinds(ground: Ground, seed: str) -> dict[str, Supply]:
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
        bounds = _sequence_bounds(ground.connection, record.schema_name, record.name)
        value = None if bounds is None else _moved(record, *bounds, steps)
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

    return Candidate(
        target=f"{_name(record)} from {record.last_value} to {value}",
        statements=[_set_sequence(record.schema_name, record.name, value)],
        look=look,
        names=[_name(record)],
    )


def _objects(ground: Ground, seed: str, kind: str) -> list[int]:
    rng = random.Random(seed + kind)  # noqa: S311 - as above
    return large_objects(
        ground.connection, salt=rng.getrandbits(63), limit=ground.number
    )


def _large_object(ground: Ground, target: str, statement: Statement) -> Candidate:
    recorded = ground.copy.manifest.large_objects
    return Candidate(
        target=target,
        statements=[statement],
        look=lambda connection: contents.check_large_objects(connection, recorded),
        names=["large objects"],
    )


def _deletions(ground: Ground, seed: str) -> Supply:
    for oid in _objects(ground, seed, "delete"):
        damage = _delete(oid)
        yield _large_object(ground, f"large object {oid}", damage)


def _changes(ground: Ground, seed: str) -> Supply:
    rng = random.Random(f"{seed}/byte")  # noqa: S311 - as above
    for oid in _objects(ground, seed, "change"):
        size_bytes = _size(ground.connection, oid)
        if not size_bytes:
            yield None
            continue
        offset = rng.randrange(size_bytes)
        damage = _flip(oid, offset)
        yield _large_object(ground, f"large object {oid}, byte {offset}", damage)


def _additions(ground: Ground, seed: str) -> Supply:
    rng = random.Random(f"{seed}/add")  # noqa: S311 - as above
    while True:
        # Where the number is taken, the server refuses. None is asked of its counter,
        # which a rollback does not set back.
        oid = rng.randint(1, _OBJECT_NUMBER_MAX)
        damage = _add(oid)
        yield _large_object(ground, f"large object {oid}", damage)


def _sequence_bounds(
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


def _set_sequence(schema: str, name: str, value: int) -> Statement:
    """Return what sets a sequence; unlike setval, it can be rolled back."""
    return sql.SQL("ALTER SEQUENCE {} RESTART WITH {}").format(
        sql.Identifier(schema, name), sql.Literal(value)
    )


def _size(connection: Connection, oid: int) -> int:
    """Return the number of bytes in a large object."""
    row = connection.execute("SELECT octet_length(lo_get(%s))", (oid,)).fetchone()
    return 0 if row is None else int(row[0])


def _delete(oid: int) -> Statement:
    """Return what deletes a large object."""
    return sql.SQL("SELECT lo_unlink({})").format(sql.Literal(oid))


def _flip(oid: int, offset: int) -> Statement:
    """Return what flips one bit of a large object."""
    return sql.SQL(
        "SELECT lo_put({0}, {1}, set_byte(lo_get({0}, {1}, 1), 0, "
        "get_byte(lo_get({0}, {1}, 1), 0) # 1))"
    ).format(sql.Literal(oid), sql.Literal(offset))


def _add(oid: int) -> Statement:
    """Return what adds a large object of one byte."""
    return sql.SQL(r"SELECT lo_from_bytea({}, '\x00')").format(sql.Literal(oid))
