"""A fleet of real workers in trouble: each due time gets its one set all the same.

The whole campaign, with faults at random, is a command: `python -m tests.fleet`.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest

from opskit.fleet import queue
from opskit.postgres.connect import connect, query
from opskit.postgres.database import run_script
from opskit.store import open_store
from tests.fleet.account import Account, Set, read, settle
from tests.fleet.campaign import Campaign, Size, campaign
from tests.fleet.faults import ahead, plan
from tests.fleet.network import is_possible
from tests.fleet.workers import Worker
from tests.proxy import Fault, Request
from tests.s3_servers import BUCKET
from tests.support import execute, value
from tests.unit import stock
from tests.watching import until

SIZE = Size(
    databases=15,
    workers=3,
    placed=int(is_possible()),
    minutes=0,
    majors=(16,),
    groups=5,
    dead_after=16,
    patience=600,
)
SECONDS_MAX = 240.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """A fleet whose workers do not run; the second has its store behind a proxy."""
    with campaign(SIZE, tmp_path_factory.mktemp("fleet") / "fleet") as fleet:
        fleet.make()
        # The queue knows what a rule finds when a worker has asked it.
        found = fleet.world.workers[2].command("fleet-worker", "--until-idle")
        assert found.returncode == 0, found.stderr
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
    """It begins after a while, and its set is not made again later."""
    third = fleet.world.workers[2]
    configuration = third.folder / "opskit.toml"
    text, arguments = configuration.read_text(), third.arguments
    configuration.write_text(text.replace('patience = "600s"', 'patience = "1s"'))
    third.arguments = ["--label", "far"]
    fleet.world.queue.stop()
    third.start()
    due = until(lambda: sets_of(fleet, "group4_0"), SECONDS_MAX)[0].due
    fleet.world.queue.start()
    configuration.write_text(text)
    third.arguments = arguments

    next_due = fleet.ask("group4_0")

    assert due < next_due - timedelta(days=1)
    until(lambda: jobs(fleet, "group4_0") == ["succeeded"], SECONDS_MAX)
    assert [e.due for e in sets_of(fleet, "group4_0")] == [due, next_due]


def test_a_worker_that_is_split_from_the_queue_makes_no_second_set(
    fleet: Campaign,
) -> None:
    """It reaches its database and its store, and another has taken over its job."""
    first, _second, third = fleet.world.workers
    stock.program("ip")
    if first.place is None:
        pytest.skip("this user may not make namespaces of the network")
    due = fleet.ask("group0_2")
    first.start()
    until(first.jobs, SECONDS_MAX)

    first.place.split()
    try:
        third.start()
        until_made(fleet, "group0_2", due)
        until(lambda: first.jobs() == [], SECONDS_MAX)
        third.lose()
    finally:
        first.place.mend()

    next_due = fleet.ask("group1_2")
    until_made(fleet, "group1_2", next_due)
    assert len(sets_of(fleet, "group0_2")) == 1


def test_a_store_that_is_slow_for_some(fleet: Campaign) -> None:
    """Each worker makes its set in its own time."""
    _first, second, third = fleet.world.workers
    fleet.world.proxy.fail(".*", Fault(delay_seconds=0.2), times=None)
    due = fleet.ask("group2_2", "group3_2")

    second.start()
    third.start()

    until_made(fleet, "group2_2", due)
    until_made(fleet, "group3_2", due)


def test_a_worker_whose_clock_is_off_by_an_hour_takes_no_job(fleet: Campaign) -> None:
    """It says so; another one does what has waited."""
    first, _second, third = fleet.world.workers
    stock.program("faketime")
    due = fleet.ask("group3_0")

    third.start(**ahead())
    until(lambda: says_it_is_ahead(fleet, third), SECONDS_MAX)
    assert jobs(fleet, "group3_0") == ["todo"]
    first.start()

    until_made(fleet, "group3_0", due)


def says_it_is_ahead(fleet: Campaign, worker: Worker) -> bool:
    """Return whether a worker has said for a while that its clock is wrong."""
    assert worker.process is not None
    statement = (
        "SELECT EXISTS (SELECT FROM opskit_fleet.workers WHERE state = 'clock-off'"
        f" AND abs(clock_offset - 3600) < 60 AND pid = {worker.process.pid}"
        " AND seen_at > started_at + interval '3 seconds')"
    )
    return bool(value(fleet.world.queue.url("fleet"), statement))


@pytest.fixture
def other(fleet: Campaign, tmp_path: Path) -> Iterator[Worker]:
    """A worker of another fleet, which has the same databases and the same store."""
    with ExitStack() as stack:
        worker = Worker(name="other", folder=tmp_path, stack=stack)
        text = (fleet.world.workers[0].folder / "opskit.toml").read_text()
        url = fleet.world.queue.url
        (tmp_path / "opskit.toml").write_text(text.replace(url("fleet"), url("other")))
        fleet.world.queue.create(["other"])
        yield worker
        execute(url(), "DROP DATABASE other WITH (FORCE)")


def test_two_fleets_do_not_share_a_prefix(fleet: Campaign, other: Worker) -> None:
    """Neither its schema is made as if all were well, nor does a worker begin."""
    before = read(fleet.store, whole=False)

    refused = [other.command("fleet-init"), other.command("fleet-worker")]

    for each in refused:
        assert each.returncode == 2, each.stderr
        assert "store bucket belongs to another fleet" in each.stderr
        assert "hint: Let the `url` of the store name a folder or prefix" in each.stderr
    assert read(fleet.store, whole=False) == before


def test_a_queue_of_an_older_version_is_brought_up_to_date(
    fleet: Campaign, other: Worker
) -> None:
    """A worker refuses it; after `fleet-init` the fleet works."""
    url = fleet.world.queue.url("other")
    make_older(url)
    configuration = other.folder / "opskit.toml"
    text = configuration.read_text()
    configuration.write_text(text.replace('/fleet"\nendpoint', '/other"\nendpoint'))

    refused = other.command("fleet-worker", "--until-idle")
    made = other.command("fleet-init", "--json")
    asked = other.command("fleet-run", "--database", "group0_0", "--json")
    worked = other.command("fleet-worker", "--until-idle")

    assert refused.returncode == 2, refused.stderr
    assert "the queue's schema is of an older version" in refused.stderr
    assert "opskit fleet-init`" in refused.stderr
    assert (made.returncode, json.loads(made.stdout)["new"]) == (0, False)
    assert (asked.returncode, worked.returncode) == (0, 0), worked.stderr
    settings = fleet.bucket.settings(BUCKET, "other")
    (found,) = read(open_store("bucket", settings))
    assert (found.source, found.damage) == ("group0_0", "")


CHEAP = (
    *("killed-worker", "lost-machine", "killed-job", "stopped-machine"),
    *("queue-restarted", "slow-store", "replaced"),
)
CHOSEN = ("group0_0", "group1_1", "group2_0", "group3_2")


def test_faults_at_random_and_an_account_that_can_fail(fleet: Campaign) -> None:
    """Each source has its one set, drilled; what is planted then is named."""
    planned = plan(fleet.world, seed=16, seconds=15, kinds=CHEAP, gap=3, brief=0.1)
    due = fleet.ask(*CHOSEN)
    for each in fleet.world.workers:
        each.start()

    fleet.strike(planned, 15)
    fleet.ask(*CHOSEN, drill=True)

    until(lambda: account(fleet).faults == (), 2 * SECONDS_MAX)
    # A drill that was taken for dead may run again: nothing may write beside this test.
    until(lambda: not {"todo", "doing"} & states(fleet), SECONDS_MAX)
    for each in fleet.world.workers:
        each.lose()
    assert set(fleet.seen) >= {each.kind for each in planned}
    place = {
        name: f"{name}/{due:%Y-%m-%d}/{found.backup_id}/"
        for name in CHOSEN
        for found in sets_of(fleet, name)
        if found.due == due
    }
    lost, undrilled, doubled, _whole = CHOSEN
    fleet.store.delete(f"{place[lost]}manifest.json")
    for name in (lost, undrilled):
        # Of whichever set: the one that was drilled may be of another time.
        for evidence in [*fleet.store.list(f"{name}/")]:
            if "-drill-passed-" in evidence.key:
                fleet.store.delete(evidence.key)
    fleet.store.put(f"{place[doubled][:-1]}0/manifest.json", [b"{}"])
    assert set(account(fleet).faults) == {
        f"missing: {lost} of {due:%H:%M}",
        f"not drilled: {lost}",
        f"not drilled: {undrilled}",
        f"2 times: {doubled} of {due:%H:%M}",
    }


def states(fleet: Campaign) -> set[str]:
    """Return the states of all jobs of the chosen sources."""
    return {state for each in CHOSEN for state in jobs(fleet, each)}


def account(fleet: Campaign) -> Account:
    """Return what came of the chosen sources."""
    sets = [e for e in read(fleet.store, whole=False) if e.source in CHOSEN]
    return settle({each: fleet.asked[each] for each in CHOSEN}, sets)


def make_older(url: str) -> None:
    """Make the schema as it was before the newest versions of procrastinate."""
    with connect(url, purpose="test") as connection:
        connection.execute(b"CREATE SCHEMA opskit_fleet")
        connection.execute(b"SET search_path = opskit_fleet")
        older = [each for each in queue.migrations() if each.stem < "03.02"]
        own = resources.files("opskit.fleet") / "schema.sql"
        for text in [each.read_text() for each in older] + [own.read_text()]:
            run_script(connection, text)
        query(
            connection,
            "INSERT INTO fleet (version, migration) VALUES (%s, %s) RETURNING true",
            queue.VERSION,
            older[-1].stem,
        )
