"""Damages to what stands apart from tables: sequences and large objects."""

from __future__ import annotations

import random
from collections.abc import Sequence

from opskit.catalog.manifest import SequenceRecord
from opskit.checks import Check
from opskit.compare import contents
from opskit.mutants import mutant as mutants_mutant
from opskit.mutants.mutant import Candidate, Ground, Kind, Supply
from opskit.postgres.connect import Connection

# All large objects are read again for each mutant.
_SIZE_BYTES_MAX = 256 * 1024 * 1024
_OBJECT_NUMBER_MAX = 2**32 - 1
_STEPS_FORWARD = 1000


def kinds(ground: Ground, seed: str) -> list[Kind]:
    """Return each kind of damage to sequences and large objects that is possible."""
    found = []
    sequences = sorted(ground.copy.sequences, key=_name)
    if sequences:
        found = [
            Kind(name=name, supply=_sequences(ground, sequences, seed + name, steps))
            for name, steps in (
                ("set a sequence back", -1),
                ("set a sequence forward", _STEPS_FORWARD),
            )
        ]
    recorded = ground.copy.manifest.large_objects
    if recorded.size_bytes <= _SIZE_BYTES_MAX:
        found.append(Kind(name="add a large object", supply=_additions(ground, seed)))
        if recorded.count:
            found += [
                Kind(name="delete a large object", supply=_deletions(ground, seed)),
                Kind(name="change a large object", supply=_changes(ground, seed)),
            ]
    return found


def _name(record: SequenceRecord) -> str:
    return f"{record.schema_name}.{record.name}"


def _sequences(
    ground: Ground, records: Sequence[SequenceRecord], seed: str, steps: int
) -> Supply:
    rng = random.Random(seed)  # noqa: S311 - the same seed must give the same mutants
    for record in rng.sample(records, len(records)):
        bounds = mutants_mutant.sequence_bounds(
            ground.connection, record.schema_name, record.name
        )
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
        statements=[
            mutants_mutant.set_sequence(record.schema_name, record.name, value)
        ],
        look=look,
        names=[_name(record)],
    )


def _objects(ground: Ground, seed: str, kind: str) -> list[int]:
    rng = random.Random(seed + kind)  # noqa: S311 - as above
    return mutants_mutant.large_objects(
        ground.connection, salt=rng.getrandbits(63), limit=ground.number
    )


def _large_object(
    ground: Ground, target: str, statement: mutants_mutant.Statement
) -> Candidate:
    recorded = ground.copy.manifest.large_objects
    return Candidate(
        target=target,
        statements=[statement],
        look=lambda connection: contents.check_large_objects(connection, recorded),
        names=["large objects"],
    )


def _deletions(ground: Ground, seed: str) -> Supply:
    for oid in _objects(ground, seed, "delete"):
        damage = mutants_mutant.delete_large_object(oid)
        yield _large_object(ground, f"large object {oid}", damage)


def _changes(ground: Ground, seed: str) -> Supply:
    rng = random.Random(f"{seed}/byte")  # noqa: S311 - as above
    for oid in _objects(ground, seed, "change"):
        size_bytes = mutants_mutant.large_object_size(ground.connection, oid)
        if not size_bytes:
            yield None
            continue
        offset = rng.randrange(size_bytes)
        damage = mutants_mutant.flip_in_large_object(oid, offset)
        yield _large_object(ground, f"large object {oid}, byte {offset}", damage)


def _additions(ground: Ground, seed: str) -> Supply:
    rng = random.Random(f"{seed}/add")  # noqa: S311 - as above
    while True:
        # Where the number is taken, the server refuses. None is asked of its counter,
        # which a rollback does not set back.
        oid = rng.randint(1, _OBJECT_NUMBER_MAX)
        damage = mutants_mutant.add_large_object(oid)
        yield _large_object(ground, f"large object {oid}", damage)
