"""The queue of a fleet in a real database: its schema, fences and sweeps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import procrastinate.utils
import pytest
from procrastinate.jobs import Job as QueuedJob
from procrastinate.jobs import Status
from procrastinate.manager import JobManager

from opskit.errors import ConfigurationError, UsageError
from opskit.fleet import queue
from opskit.fleet.queue import Again
from opskit.fleet.setup import claim
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.programs import Installation, find_server
from opskit.store import LocalStore
from tests.conftest import MakeDatabase
from tests.fleets import Fleet, at_once
from tests.integration.test_connecting import pooled
from tests.ports import free_port
from tests.support import execute

_MINUTE = timedelta(minutes=1)


@pytest.fixture
def empty(make_database: MakeDatabase) -> Fleet:
    """A database for a queue, without a schema."""
    return Fleet(make_database(script="SELECT 1"))


@pytest.fixture
def fleet(empty: Fleet) -> Fleet:
    """A fleet without workers."""
    empty.init()
    return empty


# The schema.


def test_a_fleet_is_made_once(empty: Fleet) -> None:
    """Also if several machines do so at once; then they agree on its name."""
    with (
        pytest.raises(ConfigurationError, match="has no schema") as missing,
        empty.session() as connection,
    ):
        queue.require_schema(connection)

    def make() -> tuple[str, bool]:
        with empty.session() as connection:
            return queue.init(connection)

    made = at_once([make] * 3)

    assert "fleet-init" in missing.value.hint
    assert len({name for name, _is_new in made}) == 1
    assert sorted(is_new for _name, is_new in made) == [False, False, True]
    with empty.session() as connection:
        assert queue.require_schema(connection) == made[0][0]


def _old(fleet: Fleet, migration: str) -> None:
    """Make the schema as an earlier procrastinate had it."""
    own = (resources.files("opskit.fleet") / "schema.sql").read_bytes()
    with fleet.session() as connection:
        connection.execute("CREATE SCHEMA opskit_fleet")
        for path in queue.migrations():
            if path.stem <= migration:
                connection.execute(path.read_bytes())
        connection.execute(own)
        connection.execute(
            "INSERT INTO fleet (version, migration) VALUES (1, %s)", (migration,)
        )


def test_an_older_schema_is_brought_up_to_date_with_its_jobs(empty: Fleet) -> None:
    """The result is the same as if it had been made today."""
    _old(empty, "03.01.00_50_post_add_heartbeat")
    number = empty.job()
    with (
        pytest.raises(ConfigurationError, match="of an older version") as refused,
        empty.session() as connection,
    ):
        queue.require_schema(connection)

    empty.init()

    assert "fleet-init" in refused.value.hint
    functions = (
        "SELECT DISTINCT proname FROM pg_proc"
        " WHERE pronamespace = 'opskit_fleet'::regnamespace ORDER BY 1"
    )
    today = Path(os.path.dirname(procrastinate.__file__)) / "sql" / "schema.sql"
    assert set(empty.ask(functions)) - {"holds_turn"} == {
        line.split()[2].partition("(")[0]
        for line in today.read_text().splitlines()
        if line.startswith("CREATE FUNCTION")
    }
    with empty.session() as connection:
        queue.require_schema(connection)
    worker = empty.engine()
    assert empty.ask("SELECT id FROM procrastinate_fetch_job_v2(NULL, %s)", worker) == [
        number
    ]


def test_what_old_workers_could_not_stand_waits_for_their_end(empty: Fleet) -> None:
    """A migration that removes what they call would end their work."""
    before, after = "03.04.00_01_pre", "03.04.00_50_post"
    _old(empty, "03.03.00_01_pre_priority_lock_fetch_job")
    empty.ask(
        "INSERT INTO workers (id, name, host, pid, version, labels, capacity, state)"
        " VALUES (gen_random_uuid(), '', '', 1, '', '{default}', 1, 'working')"
    )

    empty.init()
    (meanwhile,) = empty.ask("SELECT migration FROM fleet")
    with empty.session() as connection:
        queue.require_schema(connection)
    empty.ask("UPDATE workers SET seen_at = now() - interval '1 hour'")
    empty.init()
    (finally_,) = empty.ask("SELECT migration FROM fleet")

    assert meanwhile.startswith(before)
    assert finally_.startswith(after)


@pytest.mark.parametrize(("ahead", "is_accepted"), [(1, True), (2, False)])
def test_a_schema_may_be_newer_by_one_version(
    fleet: Fleet, ahead: int, is_accepted: bool
) -> None:
    """The new workers come one by one, beside those that are there."""
    fleet.ask("UPDATE fleet SET version = version + %s", ahead)
    fleet.ask("UPDATE fleet SET migration = '99.00.00_01_pre_of_tomorrow'")

    with fleet.session() as connection:
        if is_accepted:
            queue.require_schema(connection)
        else:
            with pytest.raises(ConfigurationError, match="this opskit knows 1"):
                queue.require_schema(connection)
    fleet.init()
    assert fleet.ask("SELECT version FROM fleet") == [1 + ahead]


@pytest.mark.parametrize(
    "ignored", ["extra_float_digits", "options,extra_float_digits"]
)
def test_a_pooler_is_refused(installations: list[Installation], ignored: str) -> None:
    """It would share the session that holds a lock among others."""
    port = free_port()
    with (
        throwaway.throwaway(
            find_server(installations, major=16),
            port=port,
            settings={"listen_addresses": "127.0.0.1"},
        ) as running,
        pooled(
            port,
            f"pool_mode = transaction\nignore_startup_parameters = {ignored}",
        ) as through,
    ):
        hba = running.folder / "data" / "pg_hba.conf"
        hba.write_text("host all all 127.0.0.1/32 trust\nlocal all all trust\n")
        execute(running.url(), "SELECT pg_reload_conf()")
        with pytest.raises(ConfigurationError, match="pooler") as refused:
            Fleet(through).init()

    assert "the server itself" in refused.value.hint


# Two fleets.


def test_a_store_belongs_to_one_fleet(store_dir: Path) -> None:
    """Two would back up its sources twice, and remove each other's sets."""
    store = LocalStore("local", store_dir)
    claim(store, "one")
    claim(store, "one")

    with pytest.raises(ConfigurationError, match=r"another fleet \(one\)") as refused:
        claim(store, "two")
    claim(store, "two", take_over=True)
    with pytest.raises(ConfigurationError, match=r"another fleet \(two\)"):
        claim(store, "one")

    assert "--take-over" in refused.value.hint


def test_of_two_fleets_at_once_one_gets_a_store(store_dir: Path) -> None:
    """There is no moment in which both have it."""

    def get(name: str) -> bool:
        try:
            claim(LocalStore("local", store_dir), name)
        except ConfigurationError:
            return False
        return True

    got = at_once([partial(get, name) for name in "abcd"])

    assert sum(got) == 1


# Sweeping.


def test_the_jobs_of_dead_workers_are_put_back(fleet: Fleet) -> None:
    """Those of the living, and what is over, stay as they are."""
    living, dead = fleet.engine(), fleet.engine(seen="2 min")
    taken_over = [
        fleet.job(status="doing", worker_id=dead, lock="a", attempts=2),
        fleet.job(status="doing", worker_id=None, lock="b"),
    ]
    left = [
        fleet.job(status="doing", worker_id=living, lock="c"),
        fleet.job(status="failed", worker_id=dead, lock="d"),
    ]

    with fleet.session() as connection:
        assert queue.sweep(connection, _MINUTE) == 2

    assert dict(fleet.jobs("id, status::text")) == {
        **dict.fromkeys(taken_over, "todo"),
        left[0]: "doing",
        left[1]: "failed",
    }
    assert fleet.ask(
        "SELECT attempts FROM procrastinate_jobs WHERE id = %s", taken_over[0]
    ) == [3]


def test_several_sweep_at_once(fleet: Fleet) -> None:
    """Each job is put back once: what another has put back may run again by then."""
    dead = fleet.engine(seen="2 min")
    for number in range(20):
        fleet.job(status="doing", worker_id=dead, lock=f"{number}")

    def sweep() -> int:
        with fleet.session() as connection:
            return queue.sweep(connection, _MINUTE)

    assert sum(at_once([sweep] * 4)) == 20
    assert set(fleet.jobs("attempts")) == {1}


# Fences.


def _managed(fleet: Fleet, ask: Callable[[JobManager], Awaitable[Any]]) -> Any:
    """Have the jobs asked something as a worker does."""

    async def nothing(*_arguments: object) -> None:
        """Do nothing: no job runs here."""

    async def answer() -> Any:
        application = queue.application(fleet.fleet, nothing, connections=2)
        async with application.open_async():
            return await ask(application.job_manager)

    return asyncio.run(answer())


@pytest.mark.parametrize("means", ["finish", "retry"])
@pytest.mark.parametrize(
    "meanwhile",
    [
        "SET attempts = attempts + 1",
        "SET worker_id = NULL",
        "SET status = 'todo'",
        "SET status = 'succeeded'",
    ],
)
def test_a_worker_that_wakes_up_late_changes_nothing(
    fleet: Fleet, means: str, meanwhile: str
) -> None:
    """The job is its successor's by then, or over."""
    worker = fleet.engine()
    number = fleet.job()
    state = "SELECT status::text, attempts, worker_id FROM procrastinate_jobs"
    after: list[Any] = []

    async def be_late(manager: JobManager) -> None:
        job = await manager.fetch_job(None, worker)
        assert job is not None
        assert job.id == number
        fleet.ask(f"UPDATE procrastinate_jobs {meanwhile}")
        after.extend(fleet.ask(state))
        if means == "finish":
            await manager.finish_job(job, Status.SUCCEEDED, False)
        else:
            await manager.retry_job(job)

    _managed(fleet, be_late)

    assert fleet.ask(state) == after


def test_a_worker_ends_its_own_job(fleet: Fleet) -> None:
    """That is what the fence lets through."""
    worker = fleet.engine()
    fleet.job(lock="a")
    fleet.job(lock="b")

    async def work(manager: JobManager) -> None:
        first = await manager.fetch_job(None, worker)
        second = await manager.fetch_job(None, worker)
        assert first is not None
        assert second is not None
        await manager.finish_job(first, Status.FAILED, False)
        await manager.retry_job(second)

    _managed(fleet, work)

    assert fleet.jobs("status::text, attempts") == [("failed", 1), ("todo", 1)]


def test_a_job_whose_answer_was_lost_is_not_lost(fleet: Fleet) -> None:
    """The queue gave it to a worker that never heard of it, and that lives."""
    worker, other = fleet.engine(), fleet.engine()
    known = fleet.job(lock="a")
    foreign = fleet.job(status="doing", worker_id=other, lock="b")

    async def work(manager: JobManager) -> int | None:
        mine = await manager.fetch_job(None, worker)
        assert mine is not None
        assert mine.id == known
        lost = fleet.job(status="doing", worker_id=worker, lock="c")
        assert await manager.fetch_job(None, worker) is None
        again = await manager.fetch_job(None, worker)
        assert again is not None
        assert (again.id, again.attempts) == (lost, 1)
        return again.id

    lost = _managed(fleet, work)

    assert dict(fleet.jobs("id, attempts")) == {known: 0, foreign: 0, lost: 1}


def test_a_job_waits_by_the_clock_of_the_queue(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose clock is an hour ahead does not put it off for an hour."""
    worker = fleet.engine()
    fleet.job()

    class Ahead(datetime):
        """A clock that is an hour ahead."""

        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            """Return the wrong time."""
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr(procrastinate.utils, "utcnow", lambda: Ahead.now(UTC))
    monkeypatch.setattr(queue, "datetime", Ahead)

    async def put_back(manager: JobManager) -> None:
        job = await manager.fetch_job(None, worker)
        assert job is not None
        decision = queue._PutBack().get_retry_decision(exception=Again(90), job=job)
        assert decision is not None
        await manager.retry_job(job, decision.retry_at)

    _managed(fleet, put_back)

    (waits,) = fleet.jobs("extract(epoch FROM scheduled_at - now())::int")
    assert 0 < waits <= 90


@pytest.mark.parametrize(
    ("error", "is_put_back"),
    [
        (RuntimeError("can't start new thread"), True),
        (MemoryError(), True),
        (OSError("no open files"), True),
        (UsageError("no configuration has it"), False),
    ],
)
def test_a_job_that_a_machine_lacks_something_for_is_put_back(
    error: Exception, is_put_back: bool
) -> None:
    """Another may have it."""
    job = QueuedJob(
        id=1, queue="default", lock="shop", queueing_lock=None, task_name="opskit"
    )

    decision = queue._PutBack().get_retry_decision(exception=error, job=job)

    assert (decision is not None) == is_put_back


def test_the_token_of_a_turn_is_that_of_the_current_attempt(fleet: Fleet) -> None:
    """An attempt before it, another worker and a job that is over hold nothing."""
    worker = fleet.engine()
    number = fleet.job(status="doing", worker_id=worker, attempts=2)
    holds = "SELECT holds_turn(%s, %s, %s)"

    assert fleet.ask(holds, number, 2, worker) == [True]
    assert fleet.ask(holds, number, 1, worker) == [False]
    assert fleet.ask(holds, number, 2, worker + 1) == [False]
    fleet.ask("UPDATE procrastinate_jobs SET status = 'succeeded'")
    assert fleet.ask(holds, number, 2, worker) == [False]
