"""A fleet of real workers in trouble: each due time gets its one set all the same.

The whole campaign, with faults at random, is a command: `python -m tests.fleet`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from tests.fleet.account import Set, read
from tests.fleet.campaign import Campaign, Size, campaign
from tests.fleet.network import is_possible
from tests.proxy import Fault, Request
from tests.support import value
from tests.watching import until

SIZE = Size(
    databases=8,
    workers=3,
    placed=int(is_possible()),
    minutes=0,
    majors=(16,),
    groups=4,
    dead_after=5,
    patience=600,
)
SECONDS_MAX = 120.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """A fleet whose workers do not run; the second has its store behind a proxy."""
    with campaign(SIZE, tmp_path_factory.mktemp("fleet") / "fleet") as fleet:
        fleet.make()
        yield fleet


@pytest.fixture
def fleet(made: Campaign) -> Iterator[Campaign]:
    """The fleet, of which nothing runs any more after the test."""
    yield made
    made.world.proxy.heal()
    for each in made.world.workers:
        each.lose()


def sets_of(fleet: Campaign, source: str) -> list[Set]:
    """Return the sets of a source."""
    return [each for each in read(fleet.store, whole=False) if each.source == source]


def until_made(fleet: Campaign, source: str, due: datetime) -> None:
    """Wait until the only set of a source is that of a due time, and no job is left."""
    until(lambda: sets_of(fleet, source), SECONDS_MAX)
    until(lambda: jobs(fleet, source) == ["succeeded"], SECONDS_MAX)
    assert [(e.due, e.damage) for e in sets_of(fleet, source)] == [(due, "")]


def jobs(fleet: Campaign, source: str) -> list[str]:
    """Return the states of a source's jobs."""
    statement = (
        "SELECT coalesce(array_agg(status::text), '{}') "
        f"FROM opskit_fleet.procrastinate_jobs WHERE lock = '{source}'"
    )
    found = value(fleet.world.queue.url("fleet"), statement)
    assert isinstance(found, list)
    return found


def held_up(fleet: Campaign, source: str, fault: Fault) -> datetime:
    """Have the proxied worker begin a backup, whose first object meets a fault."""

    def is_of_set(request: Request) -> bool:
        # The place of a set begins with its year; claims on the source lie elsewhere.
        return "Put" in request.operation and f"/fleet/{source}/2" in request.path

    fleet.world.proxy.fail(is_of_set, fault)
    due = fleet.ask(source)
    fleet.world.workers[1].start()
    until(lambda: any(map(is_of_set, fleet.world.proxy.requests)), SECONDS_MAX)
    return due


def test_the_job_of_a_lost_machine_is_done_by_another(fleet: Campaign) -> None:
    """It died in the middle of a backup, with its claim and all that it started."""
    first, second, _third = fleet.world.workers
    due = held_up(fleet, "group0_0", Fault(hold=True))

    second.lose()
    first.start()

    until_made(fleet, "group0_0", due)


def test_a_worker_that_was_killed_alone_leaves_a_job_that_goes_on(
    fleet: Campaign,
) -> None:
    """Whether it or its successor makes the set, there is one."""
    first, second, _third = fleet.world.workers
    due = held_up(fleet, "group0_1", Fault(delay_seconds=2))

    second.kill()
    assert second.jobs() != []
    first.start()

    until_made(fleet, "group0_1", due)
    until(lambda: second.processes() == [], SECONDS_MAX)
    assert len(sets_of(fleet, "group0_1")) == 1


def test_a_machine_that_was_stopped_and_wakes_up_makes_no_second_set(
    fleet: Campaign,
) -> None:
    """Meanwhile another has done its job; it goes on with others."""
    first, second, _third = fleet.world.workers
    due = held_up(fleet, "group1_0", Fault(delay_seconds=1))

    second.signal_all(signal.SIGSTOP)
    first.start()
    until_made(fleet, "group1_0", due)
    first.lose()
    second.signal_all(signal.SIGCONT)

    next_due = fleet.ask("group1_1")
    until_made(fleet, "group1_1", next_due)
    until(lambda: second.jobs() == [], SECONDS_MAX)
    assert len(sets_of(fleet, "group1_0")) == 1


def test_a_queue_that_restarts_in_the_middle_of_a_job(fleet: Campaign) -> None:
    """The job ends well, and the worker takes the next one."""
    due = held_up(fleet, "group2_0", Fault(delay_seconds=2))

    fleet.world.queue.stop()
    fleet.world.queue.start()

    until_made(fleet, "group2_0", due)
    next_due = fleet.ask("group2_1")
    until_made(fleet, "group2_1", next_due)


def test_without_the_queue_a_worker_does_what_is_overdue(fleet: Campaign) -> None:
    """It begins after a while, says so, and its set is not made again later."""
    third = fleet.world.workers[2]
    configuration = third.folder / "opskit.toml"
    text = configuration.read_text()
    configuration.write_text(text.replace('patience = "600s"', 'patience = "1s"'))
    fleet.world.queue.stop()
    third.start()
    due = until(lambda: sets_of(fleet, "group3_0"), SECONDS_MAX)[0].due
    fleet.world.queue.start()
    configuration.write_text(text)

    next_due = fleet.ask("group3_0")

    assert due < next_due - timedelta(days=1)
    until(lambda: jobs(fleet, "group3_0") == ["succeeded"], SECONDS_MAX)
    assert [e.due for e in sets_of(fleet, "group3_0")] == [due, next_due]
