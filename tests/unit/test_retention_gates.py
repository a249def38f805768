"""Retention: what keeps sets whatever the rules say, by example."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from opskit.catalog.documents import Proof
from opskit.catalog.retention import Candidate, RetentionPlan, plan
from opskit.config import RetentionSettings

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def _policy(**rules: Any) -> RetentionSettings:
    """Return a policy that keeps the newest set, and what is given."""
    fields: dict[str, Any] = {
        "keep_last": 1,
        "keep_within": timedelta(0),
        "keep_daily": 0,
        "keep_weekly": 0,
        "keep_monthly": 0,
        "min_keep": 0,
    }
    return RetentionSettings.model_construct(**(fields | rules))


def _set(time: str, proof: Proof = "unproven") -> Candidate:
    started_at = datetime.fromisoformat(time).replace(tzinfo=UTC)
    return Candidate(backup_id=time, started_at=started_at, proof=proof)


def _plan(policy: RetentionSettings, *sets: Candidate) -> RetentionPlan:
    return plan(sets, policy, now=NOW)


def test_a_set_is_told_to_be_locked_beside_its_other_reasons() -> None:
    """The date is that of UTC; a lock that has just ended is none."""
    new_york = timezone(timedelta(hours=-5))
    until = datetime(2026, 4, 1, 22, tzinfo=new_york)
    locked = replace(_set("2026-03-09T09:00"), locked_until=until)
    ended = replace(_set("2026-03-08T09:00"), locked_until=NOW)
    found = _plan(_policy(), _set("2026-03-10T09:00"), locked, ended)

    assert found.keep["2026-03-09T09:00"] == ["object lock until 2026-04-02"]
    assert found.delete == ("2026-03-08T09:00",)


def test_without_a_newer_drilled_set_nothing_goes() -> None:
    """With `require_drill` sets go that are older than one that has passed."""
    sets = [
        _set("2026-03-10T09:00"),
        _set("2026-03-09T09:00", "verified"),
        _set("2026-03-08T09:00", "drilled"),
        _set("2026-03-07T09:00", "failed"),
        _set("2026-03-06T09:00", "drilled"),
    ]
    found = _plan(_policy(require_drill=True), *sets)
    none = _plan(_policy(require_drill=True), *sets[:2])

    assert found.keep["2026-03-09T09:00"] == ["no newer set has passed a drill"]
    assert found.keep["2026-03-08T09:00"] == [
        "newest that passed a drill",
        "no newer set has passed a drill",
    ]
    assert found.delete == ("2026-03-07T09:00", "2026-03-06T09:00")
    assert none.delete == ()


def test_a_sudden_change_is_told_with_the_way_on() -> None:
    """The refusal names the newest such set, its first changes, and the command."""
    changes = tuple(f"table public.t{n} is gone (it held 9 rows)" for n in range(5))
    changed = replace(_set("2026-03-09T09:00"), unconfirmed_changes=changes)
    found = _plan(
        _policy(),
        _set("2026-03-10T09:00"),
        changed,
        _set("2026-03-01T09:00"),
    )

    assert found.refused == (
        "2026-03-09T09:00 changed suddenly: table public.t0 is gone (it held 9 rows); "
        "table public.t1 is gone (it held 9 rows); table public.t2 is gone (it held 9 "
        "rows); and 2 more; if that is right, run "
        "`inv prune --confirm 2026-03-09T09:00`"
    )
    assert found.keep == {
        "2026-03-10T09:00": ["keep_last 1"],
        "2026-03-09T09:00": ["held: 2026-03-09T09:00 changed suddenly"],
        "2026-03-01T09:00": ["held: 2026-03-09T09:00 changed suddenly"],
    }


def test_of_two_sets_of_one_second_the_ids_tell_which_is_newer() -> None:
    """The order of sets is the same everywhere, also where drills are demanded."""
    older = Candidate(backup_id="a", started_at=NOW, proof="unproven")
    drilled = Candidate(backup_id="b", started_at=NOW, proof="drilled")

    assert _plan(_policy(require_drill=True), older, drilled).delete == ("a",)
