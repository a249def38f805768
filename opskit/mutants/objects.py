"""Damages to the structure: objects lost, altered, disabled or added."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import LiteralString

from opskit.checks import Check
from opskit.compare import structure
from opskit.mutants.mutant import Candidate, Ground, Kind, Supply
from opskit.postgres import mutation, mutation_objects, schema
from opskit.postgres.connect import Connection
from opskit.postgres.mutation import Statement
from opskit.postgres.mutation_objects import Damage

# So many may be refused before those asked for are found.
_REFUSED_MAX = 50
_LARGE_OBJECT = "large object"
_RELATIONS = ("table", "view", "materialized view")


class Parts:
    """The parts of the comparison of structure, each by itself."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._equal: dict[str, bool] = {}
        self.names: dict[str, list[str]] = {kind: [] for kind in schema.KINDS}
        for each in ground.copy.schema:
            self.names.setdefault(each.kind, []).append(each.name)

    def check(self, part: str, connection: Connection) -> Check:
        """Compare the objects of one kind as the session sees them."""
        observed = schema.take(connection, kinds=[part])
        expected = self._ground.copy.schema
        # All of them: what is shortened for people may be the very one looked for.
        return structure.check_kind(
            part, expected, observed, names_shown=len(expected) + len(observed)
        )

    def is_equal(self, part: str) -> bool:
        """Return whether a part is equal while nothing is planted.

        Where it is not, whatever is planted would seem to be noticed.
        """
        if part not in self._equal:
            self._equal[part] = self.check(part, self._ground.connection).passed
        return self._equal[part]

    def candidate(
        self, part: str, statements: Sequence[Statement], text: str, names: list[str]
    ) -> Candidate:
        """Return a candidate that the comparison of a part must notice."""
        return Candidate(
            target=text,
            statements=statements,
            look=lambda connection: self.check(part, connection),
            names=names,
        )


def kinds(ground: Ground, seed: str) -> list[Kind]:
    """Return each kind of damage to objects that the copy has something for."""
    parts = Parts(ground)
    generic = [mutation_objects.dropping(kind) for kind in schema.KINDS]
    damages = [*mutation_objects.DAMAGES, *(each for each in generic if each)]
    found = [
        Kind(name=each.kind, supply=_damages(ground, parts, each, seed))
        for each in damages
        if parts.names.get(each.part)
    ]
    if any(parts.names[kind] for kind in _RELATIONS):
        found.append(Kind(name="add a grant", supply=_grants(ground, parts, seed)))
    if parts.names.get(_LARGE_OBJECT):
        supply = _large_objects(ground, parts, seed)
        found.append(Kind(name="change the owner of a large object", supply=supply))
    found.append(Kind(name="add a stray object", supply=_strays(ground, parts, seed)))
    return found


def _sampled(
    ground: Ground, query: LiteralString, names: Sequence[str], seed: str
) -> list[tuple[str, str]]:
    return mutation.sampled(
        ground.connection,
        query,
        names=names,
        salt=_salt(seed),
        limit=ground.number + _REFUSED_MAX,
    )


def _damages(ground: Ground, parts: Parts, damage: Damage, seed: str) -> Supply:
    part = damage.part
    if parts.is_equal(part):
        for name, text in _sampled(
            ground, damage.query, parts.names[part], f"{seed}/{damage.kind}"
        ):
            yield parts.candidate(part, [mutation.written(text)], text, [name])


def _grants(ground: Ground, parts: Parts, seed: str) -> Supply:
    if parts.is_equal("grant"):
        relations = [name for kind in _RELATIONS for name in parts.names[kind]]
        for name, text in _sampled(
            ground, mutation_objects.ADD_A_GRANT, relations, f"{seed}/add a grant"
        ):
            named = [name, mutation_objects.ROLE]
            yield parts.candidate("grant", [mutation.written(text)], text, named)


def _large_objects(ground: Ground, parts: Parts, seed: str) -> Supply:
    role = mutation_objects.ROLE
    theirs = any(role in name for name in parts.names[_LARGE_OBJECT])
    if not theirs and parts.is_equal(_LARGE_OBJECT):
        for oid in mutation.large_objects(
            ground.connection, salt=_salt(f"{seed}/owner"), limit=ground.number
        ):
            damage = mutation.give_large_object_away(oid, role)
            yield parts.candidate(
                _LARGE_OBJECT, [damage], f"large object {oid}", [f"of {role}"]
            )


def _strays(ground: Ground, parts: Parts, seed: str) -> Supply:
    """Yield objects that the source did not have: without end, in any database."""
    rng = random.Random(f"{seed}/strays")  # noqa: S311 - the same seed, the same mutants
    schemas = mutation_objects.schemas(ground.connection)
    before = [] if schemas else [mutation.written("CREATE SCHEMA opskit_mutant")]
    strays = [each for each in mutation_objects.STRAYS if parts.is_equal(each[0])]
    for number in itertools.count(1) if strays else ():
        home = rng.choice(schemas) if schemas else "opskit_mutant"
        name = f"{home}.opskit_mutant_{number}"
        part, suffix, template = rng.choice(strays)
        text = template.format(name=name)
        statements = [*before, mutation.written(text)]
        yield parts.candidate(part, statements, text, [f"{name}{suffix}"])


def _salt(seed: str) -> int:
    return random.Random(seed).getrandbits(63)  # noqa: S311 - as above
