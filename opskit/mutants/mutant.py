"""Candidate: a damage that may be planted, and the part of the comparison it is for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from opskit.checks import Check
from opskit.compare.contents import RestoredCopy
from opskit.postgres.connect import Connection
from opskit.postgres.mutation import Statement


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
