"""Check: what drills, doctor and health all speak."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at, and whether it was as it should be.

    `expected` and `observed` are short texts a person can compare; `detail` says
    what to look at when they differ.
    """

    name: str
    passed: bool
    expected: str = ""
    observed: str = ""
    detail: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the fields of the contract."""
        return asdict(self)


def compare(name: str, expected: object, observed: object, detail: str = "") -> Check:
    """Return a check that passes exactly when the two values are equal."""
    return Check(
        name=name,
        passed=expected == observed,
        expected=str(expected),
        observed=str(observed),
        detail=detail,
    )


def count(number: int, noun: str, plural: str = "") -> str:
    """Return how many of something there are, as `1 table` or `2 tables`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


class Health(StrEnum):
    """How something watched is, from best to worst."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that doctor and status looked at.

    `limit` says what `observed` should be, `hint` what to do where it is not.
    """

    name: str
    status: Health
    observed: str
    limit: str = ""
    hint: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the fields of the contract."""
        return asdict(self)


def worst(findings: Iterable[Finding]) -> Health:
    """Return the worst health among the findings."""
    order = list(Health)
    return max(
        (each.status for each in findings), key=order.index, default=Health.HEALTHY
    )
