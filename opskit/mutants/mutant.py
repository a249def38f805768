"""Mutant: a damage that a comparison must notice, and the rotation that plants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum, auto
from itertools import islice
from typing import Any

from psycopg import sql

from opskit.checks import Check
from opskit.compare.contents import RestoredCopy
from opskit.postgres.connect import Connection
from opskit.progress import advance

# A kind is given up when as many attempts in a row planted nothing.
_ATTEMPTS_MAX = 30
_NAME = "mutants"
_SHOWN_MAX = 10


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One damage that was planted; `noticed_by` is the check that named it."""

    kind: str
    target: str
    noticed: bool
    noticed_by: str = ""


@dataclass(frozen=True, kw_only=True)
class MutantReport:
    """What was planted with a seed.

    Of the kinds that were `refused` none could be planted, though there was something
    to damage.
    """

    seed: str
    planted: tuple[Mutant, ...]
    refused: tuple[str, ...] = ()

    @property
    def survivors(self) -> tuple[Mutant, ...]:
        return tuple(each for each in self.planted if not each.noticed)

    @property
    def killed(self) -> int:
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


class Miss(Enum):
    NOTHING_THERE = auto()
    REFUSED = auto()


Attempts = Iterator[Mutant | Miss]


def rotate(
    kinds: Sequence[tuple[str, Attempts]], *, number: int, seed: str
) -> MutantReport:
    """Plant so many mutants, one of each kind in turn while there are any.

    An attempt plants a mutant, looks whether it is noticed, and takes it back.
    """
    planted: list[Mutant] = []
    refused: set[str] = set()
    rotation = list(kinds)
    while rotation and len(planted) < number:
        for kind in tuple(rotation):
            if len(planted) == number:
                break
            name, attempts = kind
            for attempt in islice(attempts, _ATTEMPTS_MAX):
                if isinstance(attempt, Mutant):
                    planted.append(attempt)
                    advance(1, "mutants")
                    break
                if attempt is Miss.REFUSED:
                    refused.add(name)
            else:
                rotation.remove(kind)
    return MutantReport(
        seed=seed,
        planted=tuple(planted),
        refused=tuple(sorted(refused - {each.kind for each in planted})),
    )


Statement = sql.SQL | sql.Composed


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


def large_objects(connection: Connection, *, salt: int, limit: int) -> list[int]:
    """Return numbers of large objects in an order that the salt decides."""
    rows = connection.execute(
        "SELECT oid FROM pg_largeobject_metadata "
        "ORDER BY hashint8extended(oid::bigint, %s), 1 LIMIT %s",
        (salt, limit),
    ).fetchall()
    return [int(oid) for (oid,) in rows]
