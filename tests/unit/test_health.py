"""What a state says of health: each thing that may be wrong, and how bad that is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from opskit.catalog.documents import EvidenceName
from opskit.catalog.sets import Unreadable
from opskit.checks import Check, Health, worst
from opskit.config import Settings
from opskit.watch.fleet import Failing, FleetState, GoneSource
from opskit.watch.health import checks, freshness, grouped
from opskit.watch.state import Room, SourceState, State, losses
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


def fleet_is(**changes: Any) -> Change:
    """Return what makes a state that of a fleet."""
    fleet = states.fleet(0, **changes).fleet
    return lambda state: replace(state, fleet=fleet)


def worker_is(**changes: Any) -> Change:
    """Return what adds a worker to a fleet."""
    fleet = states.fleet(0).fleet
    assert fleet is not None
    return fleet_is(workers=(*fleet.workers, replace(fleet.workers[0], **changes)))


GONE = GoneSource(name="old", rule="customers", since=NOW)
BAD_FLEETS: dict[str, tuple[Change, str, Health]] = {
    "a queue away": (
        fleet_is(error="refused", hint="Start it."),
        "fleet: queue",
        UNHEALTHY,
    ),
    "jobs and no worker": (fleet_is(workers=()), "fleet: workers", UNHEALTHY),
    "jobs that nobody queues": (
        fleet_is(workers=(), todo={}, due=2),
        "fleet: workers",
        UNHEALTHY,
    ),
    "a label that nobody has": (
        fleet_is(todo={"us-east": 1, "default": 0}),
        "fleet: labels without a worker",
        UNHEALTHY,
    ),
    "a dead worker": (worker_is(state="dead"), "fleet: state of workers", DEGRADED),
    "a worker's clock": (
        worker_is(state="clock-off", reason="an hour"),
        "fleet: state of workers",
        DEGRADED,
    ),
    "a job that fails": (
        fleet_is(failing=(Failing(name="backup a", failures=2),)),
        "fleet: failing jobs",
        DEGRADED,
    ),
    "a short night": (
        fleet_is(late=("backup a",)),
        "fleet: end of the work",
        DEGRADED,
    ),
    "a source that is gone": (fleet_is(gone=(GONE,)), "fleet: gone sources", DEGRADED),
    "a rule": (
        fleet_is(rules={"erp": "refused", "shops": ""}),
        "fleet: rules",
        DEGRADED,
    ),
}


def test_ninety_good_days_are_healthy() -> None:
    """Every check passes, and none gives advice."""
    by_name = found(states.well())

    assert worst(by_name.values()) is HEALTHY
    assert [each.hint for each in by_name.values() if each.hint] == []


@pytest.mark.parametrize(
    ("change", "name", "health"), (BAD | BAD_FLEETS).values(), ids=BAD | BAD_FLEETS
)
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


@pytest.mark.parametrize(
    "change",
    [
        fleet_is(),
        fleet_is(workers=(), todo={}),  # between two nights
        worker_is(state="draining"),
    ],
)
def test_a_fleet_may_rest(change: Change) -> None:
    """Nobody has to be at work where nothing waits, or to connect to the sources."""
    checked = found(change(states.well()))

    assert worst(checked.values()) is HEALTHY
    assert not [name for name in checked if "connection" in name]


def test_the_workers_of_a_queue_that_is_away_are_unknown() -> None:
    """What is gone is known all the same."""
    state = fleet_is(error="refused", workers=(), gone=(GONE,))(states.well())

    fleet = {name for name, each in found(state).items() if name.startswith("fleet")}
    assert fleet == {"fleet: queue", "fleet: gone sources", "fleet: rules"}


def test_nothing_is_said_of_what_a_queue_never_told() -> None:
    """That nothing is gone is known only once the queue has answered."""
    state = replace(states.well(), fleet=FleetState(error="refused", hint="Start it."))

    assert [name for name in found(state) if name.startswith("fleet")] == [
        "fleet: queue"
    ]


def test_in_a_fleet_the_workers_do_what_is_missing() -> None:
    """The host that shows the health may reach no database."""
    change = fleet_is()
    for make in (last_success(local=3 * DAY, offsite=HOUR), drills()):
        hints = [each.hint for each in found(change(make(states.well()))).values()]

        (hint,) = filter(None, hints)
        assert "`inv fleet-run" in hint


def test_programs_can_read_how_a_fleet_is() -> None:
    """Times are text, as in every document."""
    fleet = states.sick_fleet(1).fleet
    assert fleet is not None

    document = json.loads(json.dumps(fleet.as_json()))

    assert document["ends_at"] == (NOW + 2 * HOUR).isoformat()
    assert document["gone"][0]["since"] == NOW.isoformat()
    assert document["serving"] == {"default": 1, "us-east": 0}
    assert FleetState().as_json()["ends_at"] is None


def test_a_fault_that_many_sources_have_is_one() -> None:
    """As bad as each of them; what three sources have is told of each."""
    few = [
        Check(name=f"database s{n}: proof", passed=False, observed=f"set {n}", hint="h")
        for n in range(3)
    ]
    many = [Check(name=f"last backup s{n}", passed=False) for n in range(9)]
    others = [Check(name="last verify", passed=False), Check(name="disk", passed=False)]
    slow = [
        Check(name=f"files f{n}: connection", passed=False, advisory=True)
        for n in range(4)
    ]

    one, same, *rest = (
        each for each in grouped([*few, *many, *others, *slow]) if each not in few
    )

    assert (one.name, one.observed) == (
        "9 sources: last backup",
        "s0, s1, s2, s3, s4 and 4 more",
    )
    assert same.name == "last verify"
    assert [each.name for each in rest] == ["disk", "4 sources: connection"]
    assert [each.status for each in rest] == [UNHEALTHY, DEGRADED]
    assert grouped(few) == few


def test_the_worst_loss_comes_first() -> None:
    """No set, then none that was drilled, then the oldest that was."""
    oldest = states.well().sources[0]
    sets = oldest.sets
    proven = next(each for each in sets if each.best_proof == "drilled")
    unproven = tuple(each for each in sets if each.best_proof != "drilled")
    sources = [
        replace(oldest, name="drilled later"),
        replace(oldest, name="drilled", sets=sets[sets.index(proven) + 1 :]),
        replace(oldest, name="not drilled", sets=unproven),
        replace(oldest, name="none", sets=()),
        replace(oldest, name="ahead", sets=(replace(proven, snapshot_at=NOW + DAY),)),
    ]

    lost = losses(sources, now=NOW)

    names = ["none", "not drilled", "drilled", "drilled later", "ahead"]
    assert [each.source.name for each in lost] == names
    assert lost[3].proven == proven
    assert lost[3].seconds == (NOW - proven.snapshot_at).total_seconds()
    assert [lost[index].seconds for index in (0, 1, 4)] == [None, None, 0]


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
