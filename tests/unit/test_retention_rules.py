"""Retention: each rule by example, with the reasons that it gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from opskit.catalog.documents import Proof
from opskit.catalog.retention import Candidate, RetentionPlan, plan
from opskit.config import RetentionSettings

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)

# From the newest to the oldest: two on one day, an ISO year that is not the calendar's.
TIMES = (
    "2026-03-10T09:00",
    "2026-03-10T03:00",
    "2026-03-09T03:00",
    "2026-03-02T03:00",
    "2026-02-27T03:00",
    "2026-01-01T03:00",
    "2025-12-29T03:00",
    "2025-12-28T03:00",
    "2024-12-31T03:00",
)


def _policy(**rules: Any) -> RetentionSettings:
    """Return a policy whose rules keep nothing but what is given."""
    nothing: dict[str, Any] = {
        "keep_last": 0,
        "keep_within": timedelta(0),
        "keep_daily": 0,
        "keep_weekly": 0,
        "keep_monthly": 0,
        "min_keep": 0,
    }
    return RetentionSettings.model_construct(**(nothing | rules))


def _set(time: str, proof: Proof = "unproven") -> Candidate:
    started_at = datetime.fromisoformat(time).replace(tzinfo=UTC)
    return Candidate(backup_id=time, started_at=started_at, proof=proof)


def _plan(policy: RetentionSettings, *sets: Candidate) -> RetentionPlan:
    return plan(sets, policy, now=NOW)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (
            {"keep_last": 2},
            {
                "2026-03-10T09:00": ["keep_last 1"],
                "2026-03-10T03:00": ["keep_last 2"],
            },
        ),
        (
            {"keep_within": timedelta(hours=33)},
            {
                "2026-03-10T09:00": ["keep_within"],
                "2026-03-10T03:00": ["keep_within"],
            },
        ),
        (
            {"keep_daily": 3},
            {
                "2026-03-10T09:00": ["keep_daily 2026-03-10"],
                "2026-03-09T03:00": ["keep_daily 2026-03-09"],
                "2026-03-02T03:00": ["keep_daily 2026-03-02"],
            },
        ),
        (
            {"keep_weekly": 5},
            {
                "2026-03-10T09:00": ["keep_weekly 2026-W11"],
                "2026-03-02T03:00": ["keep_weekly 2026-W10"],
                "2026-02-27T03:00": ["keep_weekly 2026-W09"],
                "2026-01-01T03:00": ["keep_weekly 2026-W01"],
                "2025-12-28T03:00": ["keep_weekly 2025-W52"],
            },
        ),
        (
            {"keep_monthly": 5},
            {
                "2026-03-10T09:00": ["keep_monthly 2026-03"],
                "2026-02-27T03:00": ["keep_monthly 2026-02"],
                "2026-01-01T03:00": ["keep_monthly 2026-01"],
                "2025-12-29T03:00": ["keep_monthly 2025-12"],
                "2024-12-31T03:00": ["keep_monthly 2024-12"],
            },
        ),
        (
            {"keep_last": 1, "min_keep": 2},
            {
                "2026-03-10T09:00": ["keep_last 1", "min_keep 2"],
                "2026-03-10T03:00": ["min_keep 2"],
            },
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_each_rule_keeps_what_it_says(
    rules: dict[str, Any], kept: dict[str, list[str]]
) -> None:
    """Each rule keeps its own sets, newest first, and gives itself as the reason."""
    found = _plan(_policy(**rules), *map(_set, TIMES))

    assert list(found.keep.items()) == list(kept.items())
    assert found.delete == tuple(time for time in TIMES if time not in kept)


def test_a_set_has_every_reason_that_keeps_it() -> None:
    """Rules add up: one set is told every rule that keeps it, in a fixed order."""
    policy = RetentionSettings(
        keep_last=1,
        keep_within=timedelta(days=1),
        keep_daily=1,
        keep_weekly=1,
        keep_monthly=1,
        min_keep=1,
    )
    found = _plan(policy, _set("2026-03-10T09:00", "drilled"))

    assert found.keep == {
        "2026-03-10T09:00": [
            "keep_within",
            "keep_last 1",
            "keep_daily 2026-03-10",
            "keep_weekly 2026-W11",
            "keep_monthly 2026-03",
            "min_keep 1",
            "newest that passed a drill",
        ]
    }


def test_only_the_newest_drilled_set_is_kept_for_its_drill() -> None:
    """An older drilled set may go once a newer one has passed."""
    found = _plan(
        _policy(keep_last=1),
        _set("2026-03-10T09:00"),
        _set("2026-03-09T09:00", "drilled"),
        _set("2026-03-08T09:00", "drilled"),
    )

    assert found.keep["2026-03-09T09:00"] == ["newest that passed a drill"]
    assert found.delete == ("2026-03-08T09:00",)


def test_failed_sets_do_not_count() -> None:
    """Counting rules and `min_keep` pass over sets that failed."""
    found = _plan(
        _policy(keep_last=1, keep_daily=1, min_keep=1),
        _set("2026-03-10T09:00", "failed"),
        _set("2026-03-09T09:00", "verified"),
    )

    assert found.delete == ("2026-03-10T09:00",)
    assert found.keep == {
        "2026-03-09T09:00": ["keep_last 1", "keep_daily 2026-03-09", "min_keep 1"]
    }


def test_a_young_failed_set_stays_to_be_looked_into() -> None:
    """Age keeps a failed set where there are good ones, and nothing else does."""
    found = _plan(
        _policy(keep_within=timedelta(days=2), keep_last=5, min_keep=1),
        _set("2026-03-10T09:00", "failed"),
        _set("2026-03-01T09:00", "failed"),
        _set("2026-02-01T09:00"),
    )

    assert found.keep == {
        "2026-03-10T09:00": ["keep_within"],
        "2026-02-01T09:00": ["keep_last 1", "min_keep 1"],
    }
    assert found.delete == ("2026-03-01T09:00",)


def test_failed_sets_stay_for_want_of_better() -> None:
    """Where every set has failed, the newest are not deleted all the same."""
    found = _plan(
        _policy(keep_last=5, min_keep=2),
        _set("2026-03-10T09:00", "failed"),
        _set("2026-03-01T09:00", "failed"),
        _set("2026-02-01T09:00", "failed"),
    )

    assert list(found.keep) == ["2026-03-10T09:00", "2026-03-01T09:00"]
    assert found.delete == ("2026-02-01T09:00",)


@pytest.mark.parametrize(
    ("ahead", "future"),
    [(timedelta(minutes=10), False), (timedelta(minutes=10, seconds=1), True)],
)
def test_only_clocks_far_ahead_make_a_set_future(
    ahead: timedelta, future: bool
) -> None:
    """Ten minutes of difference between clocks are no future."""
    ahead_of_us = Candidate(backup_id="a", started_at=NOW + ahead, proof="unproven")
    found = _plan(_policy(keep_last=1), ahead_of_us)

    assert ("carries a time in the future" in found.keep["a"]) == future
    assert ("keep_last 1" in found.keep["a"]) != future


def test_a_rule_that_is_off_gives_no_reason() -> None:
    """A clock a little ahead does not switch `keep_within` on."""
    ahead_of_us = Candidate(
        backup_id="a", started_at=NOW + timedelta(minutes=1), proof="failed"
    )
    found = _plan(_policy(keep_last=1), ahead_of_us)

    assert found.keep == {}


def test_a_future_set_takes_no_place() -> None:
    """What carries a time in the future does not count as one of the newest."""
    found = _plan(
        _policy(keep_last=1), _set("2027-01-01T00:00"), _set("2026-03-10T09:00")
    )

    assert found.keep["2027-01-01T00:00"] == ["carries a time in the future"]
    assert found.keep["2026-03-10T09:00"] == ["keep_last 1"]


def test_days_are_those_of_utc() -> None:
    """A set taken late in New York belongs to the next day."""
    new_york = timezone(timedelta(hours=-5))
    late = datetime(2026, 3, 8, 22, tzinfo=new_york)
    found = _plan(
        _policy(keep_daily=1),
        Candidate(backup_id="late", started_at=late, proof="unproven"),
    )

    assert found.keep == {"late": ["keep_daily 2026-03-09"]}


def test_equal_times_are_ordered_by_id() -> None:
    """Two sets of the same second are told apart the same way every time."""
    same = [
        Candidate(backup_id=name, started_at=NOW, proof="unproven") for name in "ab"
    ]

    assert plan(same, _policy(keep_last=1), now=NOW).delete == ("a",)


@pytest.mark.parametrize(
    "rule", ["keep_last", "keep_within", "keep_daily", "keep_weekly", "keep_monthly"]
)
def test_a_policy_with_one_rule_is_not_empty(rule: str) -> None:
    """One rule that keeps something is enough; `min_keep` alone is none."""
    value = timedelta(seconds=1) if rule == "keep_within" else 1

    assert not _policy(**{rule: value}).is_empty
    assert _policy(min_keep=3).is_empty
