"""Check: three outcomes, and what each says of health."""

from __future__ import annotations

import pytest

from opskit.checks import Check, Health, attempt, not_checked, worst
from opskit.errors import StoreError


@pytest.mark.parametrize(
    ("passed", "advisory", "health"),
    [
        (True, False, Health.HEALTHY),
        (True, True, Health.HEALTHY),
        (False, False, Health.UNHEALTHY),
        (False, True, Health.DEGRADED),
        (None, False, Health.DEGRADED),
    ],
)
def test_the_outcome_decides_on_health(
    passed: bool | None, advisory: bool, health: Health
) -> None:
    """What was not checked is neither healthy nor unhealthy."""
    check = Check(name="a", passed=passed, advisory=advisory)

    assert check.status is health
    assert check.failed is (passed is False)


def test_the_worst_check_decides_on_all() -> None:
    """Without any there is nothing to complain of."""
    good, bad = Check(name="a", passed=True), Check(name="b", passed=False)

    assert worst([]) is Health.HEALTHY
    assert worst([good, not_checked("c", "why")]) is Health.DEGRADED
    assert worst([bad, good, not_checked("c", "why")]) is Health.UNHEALTHY


def test_each_reader_gets_the_fields_that_it_knows() -> None:
    """A drill's document has no hint, a document of health no detail."""
    check = Check(
        name="a", passed=None, expected="1", observed="2", detail="d", hint="h"
    )

    assert check.as_json() == {
        "name": "a", "passed": None, "expected": "1", "observed": "2", "detail": "d",
    }  # fmt: skip
    assert check.as_health_json() == {
        "name": "a", "status": "degraded", "observed": "2", "limit": "1", "hint": "h",
    }  # fmt: skip


def test_an_attempt_that_fails_is_a_failed_check() -> None:
    """With what failed and what to do."""

    def fail() -> str:
        raise StoreError("no answer", hint="Look at it.")

    good, bad = attempt("a", lambda: "fine"), attempt("b", fail)

    assert (good.passed, good.observed) == (True, "fine")
    assert (bad.passed, bad.observed, bad.hint) == (False, "no answer", "Look at it.")
