"""Plants mutants one by one, each undone before the next."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from opskit.compare.contents import RestoredCopy
from opskit.errors import DatabaseError, ServerFault
from opskit.mutants import apart, objects, rows
from opskit.mutants import mutant as mutants_mutant
from opskit.mutants.mutant import (
    Candidate,
    Ground,
    Kind,
    Mutant,
    MutantReport,
    Supply,
    shuffled,
)
from opskit.postgres import content
from opskit.postgres.connect import translated
from opskit.progress import advance

# A kind is given up when as many candidates in a row could not be planted.
_ATTEMPTS_MAX = 30


@dataclass(kw_only=True)
class _Progress:
    """What became of the mutants so far."""

    planted: list[Mutant] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    done: set[tuple[str, str]] = field(default_factory=set)


def plant(copy: RestoredCopy, *, number: int, seed: str) -> MutantReport:
    """Plant mutants in a copy that was found equal, and see which are noticed.

    Each is planted in a transaction of its own, the affected part of the comparison
    runs again in it, and it is rolled back. The same seed gives the same mutants in
    the same copy. They are spread over all kinds that the copy has something for,
    rows and sequences as many as objects.

    Raises:
        ServerFault: the server failed, or the connection to the copy was lost.
    """
    progress = _Progress()
    with copy.connect() as connection:
        content.use_encoding(connection, copy.manifest.inventory.encoding)
        ground = Ground(
            connection=connection,
            copy=copy,
            number=number,
            is_silent=mutants_mutant.prepare_session(connection),
        )
        rotation = _spread(ground, seed)
        while rotation and len(progress.planted) < number:
            for kind in tuple(rotation):
                if len(progress.planted) == number:
                    break
                mutant = _next(ground, kind, progress)
                if mutant is None:
                    rotation.remove(kind)
                else:
                    progress.planted.append(mutant)
                    advance(1, "mutants")
    planted = {each.kind for each in progress.planted}
    return MutantReport(
        seed=seed,
        planted=tuple(progress.planted),
        refused=tuple(sorted(progress.tried - planted)),
    )


def _spread(ground: Ground, seed: str) -> list[Kind]:
    """Return all kinds in the order of their turns: contents, structure, contents…"""
    rng = random.Random(seed)  # noqa: S311 - the same seed must give the same mutants
    contents = [*rows.kinds(ground, seed), *apart.kinds(ground, seed)]
    pairs = itertools.zip_longest(
        shuffled(contents, rng), shuffled(objects.kinds(ground, seed), rng)
    )
    return [kind for pair in pairs for kind in pair if kind is not None]


def _next(ground: Ground, kind: Kind, progress: _Progress) -> Mutant | None:
    """Plant the next mutant of a kind, if one of its next candidates can be."""
    for candidate in _candidates(ground, kind):
        if candidate is None or (kind.name, candidate.target) in progress.done:
            continue
        progress.tried.add(kind.name)
        mutant = _try(ground, kind.name, candidate)
        if mutant is not None:
            progress.done.add((kind.name, candidate.target))
            return mutant
    return None


def _candidates(ground: Ground, kind: Kind) -> Supply:
    """Yield the next candidates of a kind; none where the server refuses to look."""
    try:
        with translated(kind.name):
            yield from itertools.islice(kind.supply, _ATTEMPTS_MAX)
    except ServerFault:
        raise
    except DatabaseError:
        return


def _try(ground: Ground, kind: str, candidate: Candidate) -> Mutant | None:
    """Plant a candidate; None if the server refused it or nothing was changed."""
    try:
        with mutants_mutant.undone(ground.connection):
            touched = mutants_mutant.run(ground.connection, candidate.statements)
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
    noticed = not check.passed and all(name in words for name in candidate.names)
    return Mutant(
        kind=kind,
        target=candidate.target,
        noticed=noticed,
        noticed_by=check.name if noticed else "",
    )
