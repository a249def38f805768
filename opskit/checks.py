"""Check: one thing that was looked at. Drills, doctor and health all speak it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from opskit.errors import OpskitError

# What Markdown would take for its own. The backslash comes first, so that it does not
# escape what the others write.
_ESCAPES = {
    "\\": "\\\\",
    "|": "\\|",
    "<": "&lt;",
    "`": "\\`",
    "[": "\\[",
    "]": "\\]",
}
_NAMED = 5
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Health(StrEnum):
    """How something watched is, from best to worst."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at, and whether it was as it should be.

    `passed` is None where it was not checked; `detail` then says why. `expected` and
    `observed` are short texts a person can compare; `detail` says what to look at when
    they differ, `hint` what to do. A check that is only `advisory` makes nothing
    unhealthy when it fails.
    """

    name: str
    passed: bool | None
    expected: str = ""
    observed: str = ""
    detail: str = ""
    hint: str = ""
    advisory: bool = False

    @property
    def failed(self) -> bool:
        """Whether it was checked and did not pass."""
        return self.passed is False

    @property
    def status(self) -> Health:
        """How healthy what was looked at is."""
        if self.passed:
            return Health.HEALTHY
        is_bad = self.failed and not self.advisory
        return Health.UNHEALTHY if is_bad else Health.DEGRADED

    def as_json(self) -> dict[str, object]:
        """Return the fields of the contract for a comparison."""
        return {
            "name": self.name,
            "passed": self.passed,
            "expected": self.expected,
            "observed": self.observed,
            "detail": self.detail,
        }

    def as_health_json(self) -> dict[str, object]:
        """Return the fields of the contract for doctor and status."""
        return {
            "name": self.name,
            "status": self.status.value,
            "observed": self.observed,
            "limit": self.expected,
            "hint": self.hint,
        }


def compare(name: str, expected: object, observed: object, detail: str = "") -> Check:
    """Return a check that passes exactly when the two values are equal."""
    return Check(
        name=name,
        passed=expected == observed,
        expected=str(expected),
        observed=str(observed),
        detail=detail,
    )


def not_checked(name: str, reason: str) -> Check:
    """Return a check that was not made, and why."""
    return Check(name=name, passed=None, detail=reason)


def worst(checks: Iterable[Check]) -> Health:
    """Return the worst health among the checks."""
    order = list(Health)
    return max((each.status for each in checks), key=order.index, default=order[0])


def failure(name: str, error: OpskitError) -> Check:
    """Return a check that failed with an error."""
    return Check(name=name, passed=False, observed=error.message, hint=error.hint)


def attempt(name: str, action: Callable[[], str]) -> Check:
    """Return a check of an action: what it returns, or why it failed."""
    try:
        return Check(name=name, passed=True, observed=action())
    except OpskitError as error:
        return failure(name, error)


def count(number: int, noun: str, plural: str = "") -> str:
    """Return how many of something there are, as `1 table` or `2 tables`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def some(names: Sequence[str], separator: str = ", ") -> str:
    """Return the first of many names, and how many more there are."""
    more = len(names) - _NAMED
    shown = separator.join(names[:_NAMED]) or "none"
    return f"{shown} and {more} more" if more > 0 else shown


def size(size_bytes: float) -> str:
    """Return a size with a unit that keeps it short."""
    unit = 0
    # What would round to 1024.0 belongs to the next unit.
    while size_bytes >= 1023.95 and unit < len(_SIZE_UNITS) - 1:
        size_bytes /= 1024
        unit += 1
    return (
        f"{size_bytes:.0f} {_SIZE_UNITS[unit]}"
        if unit == 0
        else (f"{size_bytes:.1f} {_SIZE_UNITS[unit]}")
    )


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if minutes < 60:
        return f"{minutes} min {whole % 60} s"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


def cell(text: str) -> str:
    """Return a text for a cell of a Markdown table: nothing in it is markup."""
    for special, written in _ESCAPES.items():
        text = text.replace(special, written)
    return "".join(
        each if each.isprintable() else "�" for each in " ".join(text.split())
    )
