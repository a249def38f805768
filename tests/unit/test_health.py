"""What a state says of health: each thing that may be wrong, and how bad that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from opskit.catalog.documents import EvidenceName
from opskit.catalog.sets import Unreadable
from opskit.checks import Check, Health, worst
from opskit.config import Settings
from opskit.watch.health import checks, freshness
from opskit.watch.state import Room, SourceState, State
from tests.unit import states
from tests.unit.states import NOW

HEALTHY, DEGRADED, UNHEALTHY = Health
Change = Callable[[State], State]


def found(state: State, settings: Settings | None = None) -> dict[str, Check]:
    """Return the checks of a state by their names, which are all different."""
    made = checks(state, settings or Settings())
    by_name = {each.name: each for each in made}
    assert len(by_name) == len(made)
    return by_name


def of_shop(**changes: Any) -> Change:
    """Return what changes the first source of a state."""

    def change(state: State) -> State:
        shop, *others = state.sources
        return replace(state, sources=(replace(shop, **changes), *others))

    return change


def of_store(**changes: Any) -> Change:
    """Return what changes the second store of a state."""

    def change(state: State) -> State:
        local, offsite = state.stores
        return replace(state, stores=(local, replace(offsite, **changes)))

    return change


def recorded(operation: str, outcome: str = "ok", **details: Any) -> Change:
    """Return what adds a record to the ledger."""

    def change(state: State) -> State:
        last = states.Records().add(NOW, operation, outcome, **details)
        return replace(state, entries=(*state.entries, last))

    return change


def last_success(**ages: timedelta) -> Change:
    """Return what sets how old the newest set is in each store."""
    return of_shop(last_success={name: NOW - age for name, age in ages.items()})


def drills(*ages_passed: tuple[timedelta, bool]) -> Change:
    """Return what replaces the drills, the newest first."""
    drill = states.well().sources[0].drills[0]
    made = tuple(
        replace(drill, finished_at=NOW - age, passed=passed)
        for age, passed in ages_passed
    )
    return of_shop(drills=made)


def failed_proof(state: State) -> State:
    """Return a state whose newest set failed a verification."""
    newest, *others = state.sources[0].sets
    evidence = EvidenceName(
        time="20261130T100000Z", kind="verify", passed=False, run_id="0"
    )
    copies = tuple(replace(each, evidence=(evidence,)) for each in newest.copies)
    return of_shop(sets=(replace(newest, copies=copies), *others))(state)


DAY, HOUR = timedelta(days=1), timedelta(hours=1)
BAD: dict[str, tuple[Change, str, Health]] = {
    "a database away": (
        of_shop(error="refused", hint="Start it."),
        "database shop: connection",
        UNHEALTHY,
    ),
    "a slow database": (
        of_shop(latency_seconds=9.0),
        "database shop: connection",
        DEGRADED,
    ),
    "a clock ahead": (
        of_shop(clock_offset_seconds=360.0),
        "database shop: clock",
        DEGRADED,
    ),
    "a clock of yesterday": (
        of_shop(clock_offset_seconds=-86_400.0),
        "database shop: clock",
        DEGRADED,
    ),
    "a stale set": (
        last_success(local=HOUR, offsite=27 * HOUR),
        "database shop: newest set in offsite",
        UNHEALTHY,
    ),
    "no set in one store": (
        last_success(local=HOUR),
        "database shop: newest set in offsite",
        UNHEALTHY,
    ),
    "a stale drill": (
        drills((9 * DAY, True)),
        "database shop: newest drill that passed",
        DEGRADED,
    ),
    "no drill": (drills(), "database shop: newest drill that passed", DEGRADED),
    "a drill that failed": (
        drills((HOUR, False), (DAY, True)),
        "database shop: newest drill that passed",
        UNHEALTHY,
    ),
    "a bad set": (failed_proof, "database shop: proof", UNHEALTHY),
    "a sudden change": (
        of_shop(unconfirmed_changes=("table public.orders is gone",)),
        "database shop: sudden change",
        DEGRADED,
    ),
    "a store away": (
        of_store(error="refused", hint="Start it."),
        "store offsite",
        UNHEALTHY,
    ),
    "a slow store": (of_store(latency_seconds=5.1), "store offsite", DEGRADED),
    "a store's clock": (
        of_store(clock_offset_seconds=1000.0),
        "store offsite: clock",
        UNHEALTHY,
    ),
    "a store without room": (
        of_store(disk=Room(name="/b", free_bytes=10**6, total_bytes=10**9)),
        "store offsite: room",
        UNHEALTHY,
    ),
    "a manifest": (
        of_store(unreadable=(Unreadable(store="offsite", key="k", reason="no"),)),
        "store offsite: manifests",
        DEGRADED,
    ),
    "a run that failed": (
        recorded("backup", "failed", source="shop", error="pg_dump ended"),
        "last backup shop",
        DEGRADED,
    ),
    "a missed run": (
        recorded("backup", "missed", source="shop"),
        "missed runs",
        DEGRADED,
    ),
    "a backup that missed a store": (
        recorded("backup", source="shop", failed_stores=["offsite"], code=10),
        "last backup shop",
        DEGRADED,
    ),
    "a verification": (recorded("verify", "failed", code=20), "last verify", DEGRADED),
    "a broken ledger": (
        lambda state: replace(state, ledger_faults=("record 3 was changed",)),
        "ledger",
        UNHEALTHY,
    ),
    "a message": (
        lambda state: replace(
            state,
            notified={
                "mail": states.Records().add(NOW, "notify", "failed", error="no answer")
            },
        ),
        "notification mail",
        DEGRADED,
    ),
    "a disk": (
        lambda state: replace(
            state,
            disks=(Room(name="/", free_bytes=10**9, total_bytes=10**12),),
        ),
        "disk /",
        DEGRADED,
    ),
    "a full disk": (
        lambda state: replace(
            state, disks=(Room(name="/", free_bytes=0, total_bytes=10**9),)
        ),
        "disk /",
        UNHEALTHY,
    ),
    "memory": (
        lambda state: replace(
            state, memory=Room(name="memory", free_bytes=10**6, total_bytes=10**9)
        ),
        "memory",
        DEGRADED,
    ),
}


def test_ninety_good_days_are_healthy() -> None:
    """Every check passes, and none gives advice."""
    by_name = found(states.well())

    assert worst(by_name.values()) is HEALTHY
    assert [each.hint for each in by_name.values() if each.hint] == []


@pytest.mark.parametrize(("change", "name", "health"), BAD.values(), ids=BAD)
def test_each_thing_that_is_wrong_is_named_with_what_to_do(
    change: Change, name: str, health: Health
) -> None:
    """It is as bad as it should be, and it alone makes the whole so."""
    by_name = found(change(states.well()))

    assert by_name[name].status is health
    assert by_name[name].observed
    assert by_name[name].hint
    assert worst(each for each in by_name.values() if each.name != name) is HEALTHY
    assert worst(by_name.values()) is health


def test_limits_are_those_of_the_settings() -> None:
    """Just inside is healthy."""
    state = last_success(local=26 * HOUR, offsite=25 * HOUR)(states.well())
    state = drills((8 * DAY, True), (9 * DAY, False))(state)

    assert worst(found(state).values()) is HEALTHY


def test_a_restore_that_takes_longer_than_the_objective_is_degraded() -> None:
    """As the newest drill measured it; without an objective there is no check."""
    state = states.well()
    (check,) = (
        each
        for each in found(
            state, Settings.model_validate({"drill": {"rto": "5s"}})
        ).values()
        if each.name == "database shop: time of a restore"
    )

    assert check.status is DEGRADED
    assert not [name for name in found(state) if "time of a restore" in name]


def took(*seconds: float | None) -> SourceState:
    """Return a source whose backups took so long."""
    runs = [
        replace(
            states.Records().add(NOW, "backup", source="shop"),
            seconds=each,
        )
        for each in seconds
    ]
    return replace(states.well().sources[0], runs=tuple(runs))


@pytest.mark.parametrize(
    ("seconds", "health"),
    [
        ((100, 110, 90, 100, 105, 9), DEGRADED),
        ((100, 110, 90, 100, 105, 11), HEALTHY),
        ((100, 110, 90, 100, 9), None),
        ((1, 1, 1, 1, 1, 0.01), None),
        ((None, None, None, None, None, 5), None),
        ((5, 100, 100, 100, 100, 100), HEALTHY),
    ],
)
def test_a_backup_far_faster_than_usual_is_suspicious(
    seconds: tuple[float | None, ...], health: Health | None
) -> None:
    """It is compared with at least five that were not short anyway."""
    state = states.state_of([took(*seconds)], entries=())
    check = found(state).get("database shop: duration")

    assert (check and check.status) is health


def test_a_scheduler_that_does_not_run_any_more_is_degraded() -> None:
    """Until another host has run what is due; without a scheduler nothing is due."""
    settings = Settings.model_validate(
        {"scheduler": dict.fromkeys(("drill", "prune", "report"), "")}
    )
    lines = {"verify": "* * * * * UTC"}
    state = recorded("scheduler", lines=lines)(states.well())
    state = replace(state, time=NOW + timedelta(minutes=10))
    by_name = found(state, settings)
    elsewhere = states.Records().add(state.time, "verify")

    assert "timetable: verify" not in found(states.well(), settings)
    assert by_name["timetable: verify"].status is DEGRADED
    assert by_name["timetable: verify"].observed == "due at 2026-11-30 10:13 UTC"
    assert worst(by_name.values()) is DEGRADED
    again = found(replace(state, others=(elsewhere,)), settings)
    assert again["timetable: verify"].status is HEALTHY


def test_records_of_sources_that_are_not_configured_any_more_do_not_count() -> None:
    """Their last run may have failed for ever."""
    state = recorded("backup", "failed", source="gone")(states.well())

    assert worst(found(state).values()) is HEALTHY


def test_a_missed_run_is_shown_for_days_although_the_next_one_succeeds() -> None:
    """Otherwise nobody would see it who does not look at once."""
    missed = recorded("backup", "missed", source="shop")(states.well())
    again = recorded("backup", source="shop")(missed)

    assert found(again)["last backup shop"].status is HEALTHY
    assert found(again)["missed runs"].status is DEGRADED
    assert "backup shop, 2026-11-30" in found(again)["missed runs"].observed
    later = found(replace(again, time=NOW + 4 * DAY))
    assert later["missed runs"].status is HEALTHY


def test_a_run_that_failed_is_not_forgotten_for_one_that_was_missed() -> None:
    """Both are said."""
    failed = recorded("verify", "failed", code=20)(states.well())
    by_name = found(recorded("verify", "missed")(failed))

    assert by_name["last verify"].status is DEGRADED
    assert by_name["missed runs"].status is DEGRADED


@pytest.mark.parametrize(
    ("age", "health"),
    [(timedelta(minutes=5), HEALTHY), (timedelta(minutes=6), UNHEALTHY)],
)
def test_what_was_gathered_long_ago_says_nothing(
    age: timedelta, health: Health
) -> None:
    """A store that hangs must not leave health as it was before."""
    assert freshness(states.well(), NOW + age).status is health
    assert freshness(None, NOW).status is UNHEALTHY


def test_a_state_of_a_time_to_come_says_nothing() -> None:
    """It was gathered before the clock was set right; an hour is let pass."""
    assert freshness(states.well(), NOW - HOUR).status is HEALTHY
    assert freshness(states.well(), NOW - 2 * DAY).status is UNHEALTHY


def test_a_state_without_anything_has_checks_all_the_same() -> None:
    """The ledger at least."""
    empty = states.state_of([], stores=(), entries=(), memory=None, disks=())

    assert [*found(empty)] == ["missed runs", "ledger"]


def test_the_age_of_a_clock_that_went_back_is_not_negative() -> None:
    """A set of the future is not old."""
    state = last_success(local=-HOUR, offsite=-HOUR)(states.well())

    assert found(state)["database shop: newest set in local"].observed == "0.0 s old"
