"""Workers of a fleet at work: real jobs, a real queue, and what happens to both."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opskit import config
from opskit.errors import ConfigurationError
from opskit.fleet import engine
from opskit.fleet import queue as fleet_queue
from opskit.fleet import worker as fleet_worker
from opskit.fleet.queue import LOCK_CLASS, Again
from opskit.fleet.worker import Worker
from opskit.operations.run import Run, begin
from opskit.postgres.connect import Connection, query
from tests.acceptance.scheduling import QUIET, Daemon, Scheduled, eventually, hourly
from tests.conftest import MakeDatabase
from tests.fleets import Fleet
from tests.support import execute

_SECONDS_MAX = 300
_NEVER = "0 0 29 2 *"
# Longer than a busy machine keeps a worker from its sign of life.
_DEAD_AFTER = 12


@dataclass
class Machine(Scheduled):
    """A folder with a configuration, in which a worker of a fleet may run."""

    queue: Fleet = None  # type: ignore[assignment]

    def configure(self, more: str = "", *, wait: str = "300s", **fleet: object) -> None:
        """Write the configuration: a folder whose backup waits for a lock."""
        lines = {"url": self.queue.url, "dead_after": f"{_DEAD_AFTER}s"} | fleet
        fleet_lines = "".join(f"{k} = {json.dumps(v)}\n" for k, v in lines.items())
        lock = json.dumps(str(self.folder / "lock"))
        self.set_up(
            f"{QUIET}{more}[fleet]\n{fleet_lines}",
            of_state=f'schedule = "{self.line}"\nlock = {lock}\nlock_wait = "{wait}"',
        )
        self.fill(a="one")

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Hold the lock of the service: a backup waits until the block ends."""
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def load(self) -> Run:
        """Load the configuration, as a process in the folder would."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            return begin(config.load())

    @contextmanager
    def works(
        self, *, ends: bool = True, until_idle: bool = False, **options: Any
    ) -> Iterator[Worker]:
        """Have a worker work in a thread; it must end when it is told to."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            worker = Worker(options.pop("load", self.load), **options)
        thread = threading.Thread(
            target=worker.serve, kwargs={"until_idle": until_idle}
        )
        thread.start()
        try:
            yield worker
            if until_idle:
                thread.join(_SECONDS_MAX)
        finally:
            if not until_idle or thread.is_alive():
                worker.stop()
            if not ends:
                worker.stop()
            thread.join(_SECONDS_MAX)
            assert not thread.is_alive()

    def daemon_of(self, stack: ExitStack, *arguments: str) -> Daemon:
        """Start a worker as a process, which ends with the test at the latest."""
        (self.folder / "tmp").mkdir(exist_ok=True)
        daemon = Daemon(self.folder, "worker", "fleet-worker", *arguments)
        stack.callback(daemon.kill)
        return daemon

    def becomes(self, status: str, attempts: int | None = None) -> None:
        """Wait until the one job that was not given up is in a state."""
        eventually(
            lambda: [
                each
                for each in self.queue.jobs("status::text, attempts")
                if each[0] == status and attempts in (None, each[1])
            ],
            that=f"{status} {attempts}",
        )

    def waits(self) -> int:
        """Return for how many seconds the job was put off."""
        (seconds,) = self.queue.ask(
            "SELECT extract(epoch FROM scheduled_at - at)::int FROM procrastinate_jobs"
            " JOIN procrastinate_events e ON e.job_id = procrastinate_jobs.id"
            " WHERE type = 'deferred_for_retry'"
        )
        return int(seconds)

    def due_now(self) -> None:
        """Have what was put back be due now."""
        self.queue.ask("UPDATE procrastinate_jobs SET scheduled_at = now()")

    @property
    def made(self) -> list[str]:
        """The sets in the store."""
        return sorted(path.parent.name for path in self.manifests)

    @property
    def manifests(self) -> list[Path]:
        """The manifests in the store."""
        return [*(self.folder / "local").glob("state/*/*/manifest.json")]


@pytest.fixture
def machine(tmp_path: Path, make_database: MakeDatabase) -> Machine:
    """A machine of a fleet that was just made, with one backup that is due."""
    made = Machine(tmp_path, "", queue=Fleet(make_database(script="SELECT 1")))
    made.line = hourly()
    made.queue.init()
    made.configure()
    return made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how many seconds a worker of this process has put jobs back."""
    noted: list[float] = []

    class Noted(Again):
        """It is put back, and that is noted."""

        def __init__(self, seconds: float) -> None:
            noted.append(seconds)
            super().__init__(seconds)

    monkeypatch.setattr(engine, "Again", Noted)
    return noted


def _beats(queue: Fleet) -> datetime:
    (seen,) = queue.ask("SELECT max(last_heartbeat) FROM procrastinate_workers")
    assert isinstance(seen, datetime)
    return seen


# By itself.


def test_a_burst_does_what_is_due_and_ends(machine: Machine) -> None:
    """From the empty database to the set, with the commands of a user."""
    machine.queue.ask("DROP SCHEMA opskit_fleet CASCADE")
    assert machine.json("fleet-init")["new"] is True
    assert machine.json("fleet-init")["new"] is False

    machine.run("fleet-worker", "--until-idle")

    assert machine.queue.jobs("status::text") == ["succeeded"]
    (made,) = machine.manifests
    (due,) = machine.queue.jobs("args->>'due'")
    at = datetime.fromisoformat(due)
    assert made.parent.name.startswith(f"state-{at:%Y%m%dT%H%M%SZ}-")
    ((failures, seconds, succeeded_at),) = machine.queue.ask(
        "SELECT failures, seconds, succeeded_at FROM turns"
    )
    assert failures == 0
    assert seconds > 0
    assert succeeded_at is not None
    assert machine.queue.ask("SELECT id FROM workers") == []
    assert machine.queue.ask("SELECT id FROM procrastinate_workers") == []

    assert machine.json("fleet-run", "--database", "nobody", code=2)
    assert machine.json("fleet-run")["jobs"] == ["backup state"]
    with machine.works(until_idle=True):
        pass
    assert len(machine.made) == 2


def test_several_workers_make_each_set_once(machine: Machine, tmp_path: Path) -> None:
    """All look at the same queue, and each job is one worker's."""
    names = [f"s{number}" for number in range(5)]
    sources = "".join(
        f'[files.{each}]\npath = "{machine.state}"\nschedule = "{machine.line}"\n'
        for each in names
    )
    machine.configure(sources, dead_after="30s")
    other = Machine(tmp_path / "other", "", queue=machine.queue)
    other.folder.mkdir()
    text = (machine.folder / "opskit.toml").read_text()
    (other.folder / "opskit.toml").write_text(text)

    with machine.works(until_idle=True), other.works(until_idle=True):
        pass

    assert set(machine.queue.jobs("status::text, attempts")) == {("succeeded", 1)}
    found = (machine.folder / "local").glob("*/*/*/manifest.json")
    assert sorted(each.parts[-4] for each in found) == [*names, "state"]


# What does not go well.


def test_a_source_that_fails_is_tried_again_and_fails_in_the_end(
    machine: Machine, pauses: list[float]
) -> None:
    """Each time after a longer while; its record says why."""
    machine.configure(retries=1)
    (machine.state / "a").unlink()
    machine.state.rmdir()

    with machine.works():
        machine.becomes("todo", 1)
        waits = machine.waits()
        machine.due_now()
        machine.becomes("failed")

    assert pauses == [60]
    assert 30 <= waits <= 60  # since the queue learnt of it
    assert machine.queue.ask("SELECT failures FROM turns") == [2]
    assert len(machine.records("backup", "failed")) == 2


def test_a_job_whose_source_is_locked_waits(
    machine: Machine, pauses: list[float]
) -> None:
    """Somebody else is at it: that is no failure."""
    machine.configure(wait="0s")
    with machine.works():
        with machine.busy():
            machine.becomes("todo", 1)
        assert machine.queue.ask("SELECT failures FROM turns") == [0]
        machine.due_now()
        machine.becomes("succeeded")

    (waits,) = pauses
    assert 20 <= waits <= 40
    assert len(machine.made) == 1


def test_a_job_of_a_source_that_a_worker_does_not_know_is_left_to_others(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configurations differ while they are rolled out; after a while it has failed.

    How often it has waited for something else before does not count.
    """
    machine.queue.job(
        args='{"operation": "backup", "source": "new", "due": "2026-03-01T02:00:00Z"}',
        lock="new",
    )
    with machine.works():
        machine.becomes("todo", 1)
        machine.queue.ask(
            "UPDATE procrastinate_jobs SET scheduled_at = now(), attempts = 40"
            " WHERE lock = 'new'"
        )
        machine.becomes("todo", 41)
        monkeypatch.setattr(engine, "_UNKNOWN_SECONDS", 0.0)
        machine.due_now()
        machine.becomes("failed")
        eventually(lambda: machine.records("fleet-worker"), that="a report")


def test_a_job_that_only_others_can_do_waits_for_them(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that says how to reach its database cannot be read here."""
    machine.configure(
        f'[discover.here]\nfile = "{machine.folder}/missing"\nschedule = "{_NEVER}"\n'
    )
    machine.queue.ask(
        "INSERT INTO sources (name, rule, label) VALUES ('new', 'here', 'default')"
    )
    machine.queue.job(
        args='{"operation": "backup", "source": "new", "due": "2026-03-01T02:00:00Z"}',
        lock="new",
    )
    with machine.works() as worker:
        machine.becomes("todo", 1)
        eventually(lambda: worker._search.is_over, that="the queue was asked")
        monkeypatch.setattr(engine, "_UNKNOWN_SECONDS", 0.0)
        machine.due_now()
        machine.becomes("todo", 2)


def test_a_full_store_is_not_asked_for_each_job(machine: Machine) -> None:
    """However many wait: asking costs two connections, and all would get none."""
    path = json.dumps(str(machine.folder / "folder"))
    (machine.folder / "folder").mkdir()
    sections = (
        f'[files.folder{each}]\npath = {path}\nschedule = "{machine.line}"\n'
        for each in range(8)
    )
    machine.configure("".join(sections), per_store=1)
    with machine.queue.session() as connection:
        query(
            connection,
            "SELECT pg_advisory_lock(%s, hashtext('store local 1'))",
            LOCK_CLASS,
        )
        with machine.works(capacity=1):
            eventually(lambda: sum(machine.queue.jobs("attempts")) > 3, that="waiting")
            began, before = time.monotonic(), sum(machine.queue.jobs("attempts"))
            time.sleep(6)
            eventually(
                lambda: sum(machine.queue.jobs("attempts")) > before, that="it asks"
            )
            asked = sum(machine.queue.jobs("attempts")) - before
            seconds = time.monotonic() - began
            query(connection, "SELECT pg_advisory_unlock_all()")
            eventually(
                lambda: "succeeded" in machine.queue.jobs("status::text"),
                that="one is done",
            )

    assert asked < 2.5 * seconds


# Ending.


def test_a_worker_that_drains_keeps_its_job(machine: Machine, tmp_path: Path) -> None:
    """It is not taken for dead meanwhile, though it takes nothing new."""
    machine.configure()
    other = Machine(tmp_path / "other", "", queue=machine.queue)
    other.folder.mkdir()
    other.line = "0 0 1 1 *"
    other.configure()
    with ExitStack() as stack:
        with machine.busy():
            daemon = machine.daemon_of(stack)
            machine.job("backup-state")
            daemon.send(signal.SIGTERM)
            daemon.says("draining")
            began = _beats(machine.queue)
            machine.queue.job(
                args='{"operation": "x", "source": "", "due": "2026-03-01T02:00:00Z"}',
                lock="x", queue_name="new",
            )  # fmt: skip
            with other.works(labels=("elsewhere",)):
                long = timedelta(seconds=1.5 * _DEAD_AFTER)
                eventually(lambda: _beats(machine.queue) > began + long, that="beats")
            machine.becomes("doing", 0)
            assert daemon.process.poll() is None
        assert daemon.process.wait(_SECONDS_MAX) == 0

    machine.becomes("succeeded", 1)
    assert len(machine.made) == 1
    assert machine.queue.ask("SELECT id FROM workers") == []


def test_a_second_signal_ends_the_jobs_which_are_still_due(machine: Machine) -> None:
    """Another worker does them at once."""
    with ExitStack() as stack, machine.busy():
        daemon = machine.daemon_of(stack)
        machine.job("backup-state")
        daemon.send(signal.SIGTERM)
        daemon.says("draining")
        daemon.send(signal.SIGTERM)
        assert daemon.process.wait(_SECONDS_MAX) == 0

    machine.becomes("todo", 1)
    assert machine.made == []
    with machine.works(until_idle=True):
        pass
    assert len(machine.made) == 1


def test_a_state_folder_is_that_of_one_worker(machine: Machine) -> None:
    """Two would have one name and one ledger; a label that no source has is named."""
    machine.configure()
    with ExitStack() as stack:
        first = machine.daemon_of(stack, "--label", "default", "--label", "nowhere")
        first.says("no source has the label nowhere")
        second = machine.daemon_of(stack)
        assert second.process.wait(_SECONDS_MAX) == 11
        second.says("another worker has the state folder")
        first.send(signal.SIGTERM)
        assert first.process.wait(_SECONDS_MAX) == 0


# The queue and its rows.


def test_a_worker_that_was_taken_for_dead_works_on(machine: Machine) -> None:
    """Its row in procrastinate's table is gone: it gets a new one."""
    with machine.works():
        machine.becomes("succeeded")
        (before,) = machine.queue.ask("SELECT id FROM procrastinate_workers")
        machine.queue.ask("DELETE FROM procrastinate_workers")
        eventually(
            lambda: machine.queue.ask("SELECT id FROM procrastinate_workers"),
            that="a new row",
        )
        machine.json("fleet-run")
        eventually(lambda: len(machine.made) == 2, that="a second set")

    assert before


def _end_sessions(queue: Fleet) -> None:
    queue.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


@contextmanager
def _away(queue: Fleet, make_database: MakeDatabase) -> Iterator[None]:
    """Let nobody connect to the queue's database, and end all sessions there."""
    elsewhere = make_database(script="SELECT 1")
    name = queue.ask("SELECT current_database()")[0]
    _end = f"""
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = '{name}'"""
    execute(elsewhere, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    try:
        execute(elsewhere, _end)
        yield
    finally:
        execute(elsewhere, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def test_a_queue_that_was_restarted_changes_nothing(machine: Machine) -> None:
    """All sessions are lost; the job that ran meanwhile ends as it would have."""
    with machine.works():
        with machine.busy():
            machine.job("backup-state")
            _end_sessions(machine.queue)
            began = _beats(machine.queue)
            eventually(lambda: _beats(machine.queue) > began, that="a heartbeat")
        machine.becomes("succeeded", 1)
        machine.json("fleet-run")
        eventually(lambda: len(machine.made) == 2, that="a second set")

    assert machine.records("fleet-worker") == []


def test_a_job_goes_on_while_the_queue_is_away_for_long(
    machine: Machine, tmp_path: Path, make_database: MakeDatabase
) -> None:
    """When it is back, nobody takes over the job of a worker that lives."""
    other = Machine(tmp_path / "other", "", queue=machine.queue)
    other.folder.mkdir()
    other.configure(patience="1h")
    machine.configure(patience="1h")
    with machine.works() as worker, other.works(labels=("elsewhere",)):
        with machine.busy():
            machine.job("backup-state")
            with _away(machine.queue, make_database):
                threading.Event().wait(_DEAD_AFTER + 1)
            eventually(lambda: worker.state == "working", that="it is back")
            (seen,) = machine.queue.ask("SELECT max(seen_at) FROM workers")
            late = seen + timedelta(seconds=1.5 * _DEAD_AFTER)
            eventually(
                lambda: (
                    machine.queue.ask("SELECT min(seen_at) > %s FROM workers", late)
                    == [True]
                ),
                that="both are back for long",
            )
            assert machine.queue.jobs("status::text, attempts") == [("doing", 0)]
        machine.becomes("succeeded", 1)


def test_the_end_of_a_job_is_noted_once_the_queue_is_back(
    machine: Machine, make_database: MakeDatabase
) -> None:
    """What is next, and what fails, is decided by it."""
    machine.configure(patience="1h")
    with ExitStack() as away, machine.works() as worker:
        with machine.busy():
            machine.job("backup-state")
            away.enter_context(_away(machine.queue, make_database))
        eventually(lambda: not worker._engine.running, that="its end")
        away.close()
        machine.becomes("succeeded", 1)

    assert machine.queue.ask("SELECT succeeded_at IS NOT NULL FROM turns") == [True]


def test_a_worker_that_just_came_takes_over_nothing_yet(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the queue was away for all, the others get the time to come back."""
    real = fleet_queue.sweep
    waits: list[float] = []

    def sweep(connection: Connection, dead_after: timedelta) -> int:
        # By its own clock: it may pause at any time before it says when it came.
        waits.append(time.monotonic() - worker._connected_at)
        return real(connection, dead_after)

    monkeypatch.setattr(fleet_worker, "sweep", sweep)
    dead = machine.queue.engine(seen="1 hour")
    machine.queue.job(status="doing", worker_id=dead, lock="x", queue_name="elsewhere")
    with machine.works() as worker:
        eventually(
            lambda: machine.queue.ask(
                "SELECT at FROM procrastinate_events e JOIN procrastinate_jobs j"
                " ON j.id = e.job_id WHERE lock = 'x' AND type = 'deferred_for_retry'"
            ),
            that="it is taken over",
        )

    assert waits
    assert min(waits) >= _DEAD_AFTER


def test_without_the_queue_what_is_overdue_is_backed_up_once(
    machine: Machine, make_database: MakeDatabase
) -> None:
    """It is reported, and when the queue is back the set is there already."""
    machine.configure(patience="1s")
    with ExitStack() as stack:
        away = stack.enter_context(ExitStack())
        away.enter_context(_away(machine.queue, make_database))
        worker = stack.enter_context(machine.works())
        eventually(lambda: machine.made, that="a set")
        eventually(lambda: not worker._alone.running, that="its end")
        eventually(lambda: machine.records("fleet-worker"), that="a report")
        (alone,) = machine.made
        away.close()
        machine.becomes("succeeded")
        eventually(lambda: machine.records("fleet-worker", "ok"), that="its end")

    (report,) = machine.records("fleet-worker", "failed")
    assert "overdue sources that are backed up without it: 1" in str(report)
    assert machine.made == [alone]
    assert len(machine.manifests) == 1


def test_a_worker_ends_while_the_queue_is_away(
    machine: Machine, make_database: MakeDatabase
) -> None:
    """Its jobs may end; the queue learns of it from the next worker."""
    machine.configure(patience="1h")
    with ExitStack() as stack, machine.works() as worker:
        machine.becomes("succeeded")
        stack.enter_context(_away(machine.queue, make_database))
        eventually(lambda: worker._connection is None, that="it is away")
        # It has ended by here.


def test_without_the_queue_a_worker_says_why_it_does_nothing(
    machine: Machine, make_database: MakeDatabase
) -> None:
    """No store answers either."""
    machine.configure(patience="1s")
    (machine.folder / "local").rmdir()
    with _away(machine.queue, make_database), machine.works():
        eventually(lambda: machine.records("fleet-worker"), that="a report")

    (report,) = machine.records("fleet-worker", "failed")
    assert "away" in str(report)
    assert machine.made == []


def test_a_worker_whose_clock_is_off_takes_no_jobs(machine: Machine) -> None:
    """Until its clock is right."""
    ahead = timedelta(hours=1)

    class Wrong(Run):
        """A run whose clock is wrong for a while."""

        def now(self) -> datetime:
            """Return the time by that clock."""
            return super().now() + ahead

    with machine.works(load=lambda: Wrong(machine.load().settings)) as worker:
        eventually(
            lambda: (
                machine.queue.ask("SELECT state, reason FROM workers")
                == [("clock-off", "its clock is off by +3600 seconds")]
            ),
            that="it says so",
        )
        assert machine.queue.ask("SELECT id FROM procrastinate_workers") == []
        assert worker.state == "clock-off"
        ahead = timedelta(0)
        machine.becomes("succeeded")


def test_a_worker_takes_jobs_again_after_its_clock_was_off(machine: Machine) -> None:
    """Also while it does one that began before."""
    (machine.folder / "other").mkdir()
    machine.configure(
        f'[files.other]\npath = "{machine.folder}/other"\nschedule = "{_NEVER}"\n'
    )
    ahead = timedelta(0)

    class Wrong(Run):
        """A run whose clock is wrong for a while."""

        def now(self) -> datetime:
            """Return the time by that clock."""
            return super().now() + ahead

    load = lambda: Wrong(machine.load().settings)  # noqa: E731
    with machine.works(load=load) as worker, machine.busy():
        machine.job("backup-state")
        ahead = timedelta(hours=1)
        eventually(lambda: worker.state == "clock-off", that="it is seen")
        ahead = timedelta(0)
        eventually(lambda: worker.state == "working", that="it is right again")
        machine.json("fleet-run", "--database", "other")
        machine.becomes("succeeded")
        assert machine.queue.jobs("status::text") == ["doing", "succeeded"]


def test_a_worker_that_was_killed_and_is_back_is_not_dead(machine: Machine) -> None:
    """Another that was killed is."""
    own = machine.load().ledger.id
    machine.run("fleet-init")
    machine.queue.ask(
        """
        INSERT INTO workers (id, name, host, pid, version, labels, capacity, state,
                             seen_at)
        SELECT gen_random_uuid(), name, 'host', 1, '0.2.0', '{default}', 1, 'working',
               now() - interval '1 hour'
        FROM unnest(%s::text[]) name RETURNING name""",
        [own, "another"],
    )
    machine.run("fleet-worker", "--until-idle")

    assert machine.queue.ask("SELECT name FROM workers") == ["another"]


def test_a_burst_whose_clock_is_off_fails(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for the end of jobs that it never takes."""

    class Wrong(Run):
        """A run whose clock is wrong."""

        def now(self) -> datetime:
            """Return the time by that clock."""
            return super().now() - timedelta(hours=1)

    monkeypatch.chdir(machine.folder)
    worker = Worker(lambda: Wrong(machine.load().settings))
    began = time.monotonic()
    with pytest.raises(ConfigurationError) as refused:
        worker.serve(until_idle=True)
    took = time.monotonic() - began

    told = re.search(r"clock is off by (-\d+) seconds", refused.value.message)
    assert told
    # A pause while the server is asked comes on top.
    assert abs(int(told[1]) + 3600) <= took + 1


def test_a_worker_of_another_fleet_is_refused(
    machine: Machine, make_database: MakeDatabase
) -> None:
    """Its store belongs to the first one, until it is taken over."""
    machine.run("fleet-init")
    machine.queue = Fleet(make_database(script="SELECT 1"))
    machine.configure()

    assert "another fleet" in machine.json("fleet-init", code=2)["error"]
    machine.run("fleet-worker", "--until-idle", code=2)
    assert "--take-over" in machine.errors
    assert machine.made == []
    machine.run("fleet-init", "--take-over")
    machine.run("fleet-worker", "--until-idle")
    assert len(machine.made) == 1
