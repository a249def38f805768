"""Schedulers that are killed, stopped, hung up and given broken files."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opskit import files, locks
from tests.acceptance.scheduling import QUIET, Scheduled, eventually, hourly
from tests.acceptance.services import KEEP_ONE
from tests.conftest import MakeDatabase

OVERDUE = timedelta(minutes=61)


@pytest.fixture
def service(tmp_path: Path) -> Scheduled:
    """A folder of state with an hourly backup, which waits for the service's lock."""
    made = Scheduled(tmp_path)
    made.line = hourly()
    configure(made)
    made.fill(a="one")
    return made


def configure(service: Scheduled, more: str = "", *, wait: str = "300s") -> None:
    lock = json.dumps(str(service.folder / "lock"))
    service.set_up(
        QUIET + more,
        of_state=f'schedule = "{service.line}"\nlock = {lock}\nlock_wait = "{wait}"',
    )


@contextmanager
def busy(service: Scheduled) -> Iterator[None]:
    """Hold the lock of the service: a backup waits until the block ends."""
    with (service.folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def end(job: int) -> None:
    """Kill a job and all that it has started, if it still runs."""
    with suppress(ProcessLookupError):
        os.killpg(job, signal.SIGKILL)


def test_a_backup_outlives_its_scheduler_and_is_not_taken_twice(
    service: Scheduled,
) -> None:
    """The next scheduler waits for it, and finds it in the ledger."""
    service.since(OVERDUE, backup__state=service.line)
    with ExitStack() as stack:
        with busy(service):
            first = service.daemon(stack)
            service.job("backup-state")
            first.kill()
            second = service.daemon(stack, "second")
            second.says("runs already")
            assert service.records("backup") == []

        service.wait_for("backup", "ok")
        assert second.end() == 0

    assert len(service.records("backup")) == 1
    assert len(service.json("backups")["backups"]) == 1


def test_a_backup_that_was_killed_with_its_scheduler_is_taken_again(
    service: Scheduled,
) -> None:
    """As systemd does it, which kills all processes of a service that failed."""
    service.since(OVERDUE, backup__state=service.line)
    with ExitStack() as stack:
        with busy(service):
            first = service.daemon(stack)
            job = service.job("backup-state")
            first.kill()
            end(job)

        second = service.daemon(stack, "second")
        service.wait_for("backup", "ok")
        assert second.end() == 0

    assert len(service.records("backup")) == 1
    assert len(service.json("backups")["backups"]) == 1


def test_a_prune_that_was_killed_is_finished(service: Scheduled) -> None:
    """What it had not deleted yet, the next scheduler's prune deletes."""
    configure(service, KEEP_ONE)
    begin = datetime.now(UTC) - timedelta(days=40)
    service.back_up_at(begin + timedelta(hours=each) for each in range(40))
    toml = service.folder / "opskit.toml"
    toml.write_text(toml.read_text().replace('prune = ""', f'prune = "{service.line}"'))
    newest = datetime.now(UTC).isoformat()
    service.since(OVERDUE, prune=service.line, backup__state=service.line)
    service.ledger.append(
        now=datetime.now(UTC), run_id="done", operation="backup", outcome="ok",
        details={"source": "state"}, started_at=datetime.fromisoformat(newest),
    )  # fmt: skip

    def left() -> int:
        return len([*service.folder.glob("local/state/*/*/manifest.json")])

    oldest = min(service.folder.glob("local/state/*/*")).name
    with ExitStack() as stack:
        # However far it gets before it is killed, a set that is read stays, and it
        # cannot record its end.
        with (
            locks.in_use(service.ledger.path.parent / "locks", f"set-{oldest}.reading"),
            files.locked(service.ledger.path.with_suffix(".lock"), what="the ledger"),
        ):
            first = service.daemon(stack)
            job = service.job("prune")
            first.kill()
            eventually(lambda: left() < 40, that="a set is deleted")
            end(job)
            assert left() > 1

        second = service.daemon(stack, "second")
        eventually(
            lambda: [
                each
                for each in service.records("prune", "ok")
                if "source" not in each["details"]
            ],
            that="prune has ended",
        )
        assert second.end() == 0

    assert left() == 1
    assert "prune, due at " in second.output


def test_a_drill_that_was_killed_is_run_again(service: Scheduled) -> None:
    """Its folder is swept, and the set is drilled."""
    (service.state / "large").write_bytes(os.urandom(64 * 1024**2))
    service.back_up()
    toml = service.folder / "opskit.toml"
    toml.write_text(toml.read_text().replace('drill = ""', f'drill = "{service.line}"'))
    service.since(
        OVERDUE, restore_drill__state=service.line, backup__state=service.line
    )
    service.ledger.append(
        now=datetime.now(UTC), run_id="done", operation="backup", outcome="ok",
        details={"source": "state"}, started_at=datetime.now(UTC),
    )  # fmt: skip
    folder = service.folder / "tmp"
    with ExitStack() as stack:
        first = service.daemon(stack)
        job = service.job("restore-drill-state")
        first.kill()
        eventually(
            lambda: [*folder.glob("opskit-*")] or service.records("restore-drill"),
            that="the drill has begun",
        )
        end(job)

        second = service.daemon(stack, "second")
        service.wait_for("restore-drill", "ok")
        assert second.end() == 0

    assert len(service.records("restore-drill")) == 1
    assert [*folder.glob("opskit-*")] == []


@pytest.mark.parametrize("number", [None, signal.SIGSTOP])
def test_a_job_that_never_ends_is_ended(
    number: signal.Signals | None, service: Scheduled
) -> None:
    """It is told to end, then killed; that is a failure, and it is not tried again."""
    configure(service, 'job_timeout = "15s"\nstop_timeout = "1s"\n')
    service.since(OVERDUE, backup__state=service.line)
    with ExitStack() as stack, busy(service):
        daemon = service.daemon(stack)
        job = service.job("backup-state")
        if number:
            os.kill(job, number)

        service.wait_for("backup", "failed")
        assert daemon.end() == 0

    (failed,) = service.records("backup")
    assert "it took longer than scheduler.job_timeout" in failed["details"]["error"]
    assert daemon.output.count("begins") == 1
    assert not Path(f"/proc/{job}").exists()


def test_the_end_of_a_scheduler_ends_its_jobs(service: Scheduled) -> None:
    """SIGTERM ends both; what was interrupted runs with the next scheduler."""
    configure(service, 'stop_timeout = "30s"\n')
    service.since(OVERDUE, backup__state=service.line)
    with ExitStack() as stack:
        with busy(service):
            first = service.daemon(stack)
            job = service.job("backup-state")
            # It handles signals only once it has begun.
            eventually(
                lambda: (service.folder / ".opskit/locks/source-state.lock").exists(),
                that="the backup has begun",
            )
            assert first.end() == 0
            assert not Path(f"/proc/{job}").exists()

        second = service.daemon(stack, "second")
        service.wait_for("backup", "ok")
        assert second.end() == 0


def test_a_broken_configuration_is_refused_and_a_good_one_read(
    service: Scheduled,
) -> None:
    """SIGHUP: the old settings stay in use until the new ones can be."""
    toml = service.folder / "opskit.toml"
    good = toml.read_text()
    with ExitStack() as stack:
        daemon = service.daemon(stack)
        daemon.says("leading")
        toml.write_text(good.replace(service.line, "0 0 31 2 *"))
        daemon.send(signal.SIGHUP)
        daemon.says("the configuration was not read again")

        # The old one runs what comes due.
        service.since(OVERDUE, backup__state=service.line)
        service.wait_for("backup", "ok")

        toml.write_text(good.replace('verify = ""', 'verify = "0 3 * * 0"'))
        daemon.send(signal.SIGHUP)
        daemon.says("the configuration was read again")
        assert daemon.end() == 0

    learnt = service.records("scheduler")[-1]["details"]["lines"]
    assert learnt == {"backup state": f"{service.line} UTC", "verify": "0 3 * * 0 UTC"}


def test_a_backup_by_hand_is_waited_for(service: Scheduled) -> None:
    """A job that finds the lock held is tried again, and counts as no failed run."""
    service.since(OVERDUE, backup__state=service.line)
    with busy(service):
        by_hand = service.start("backup")
        eventually(
            lambda: (service.folder / ".opskit/locks/source-state.owner.json").exists(),
            that="it has the lock",
        )
        service.run("scheduler", "--once", code=11)
        assert "is locked by backup state" in service.errors
    by_hand.communicate(timeout=90)

    assert by_hand.returncode == 0
    assert "begins" not in service.run("scheduler", "--once")
    assert len(service.records("backup", "ok")) == 1


def test_half_a_line_in_the_ledger_stops_nothing(service: Scheduled) -> None:
    """A run that was killed while it wrote hides no record but its own."""
    service.since(OVERDUE, backup__state=service.line)
    with service.ledger.path.open("ab") as file:
        file.write(b'{"details": {"source": "state"}, "operation": "back')

    assert "begins" in service.run("scheduler", "--once")
    assert "begins" not in service.run("scheduler", "--once")

    assert len(service.records("backup", "ok")) == 1


@pytest.mark.parametrize("keeper", ["database", "store"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_second_scheduler_takes_over(
    keeper: str,
    number: signal.Signals,
    service: Scheduled,
    make_database: MakeDatabase,
) -> None:
    """A leader that was stopped starts nothing when it wakes."""
    # A leader that pauses for less than half of it goes on leading.
    more = 'takeover = "40s"\n'
    if keeper == "database":
        more += f"[databases.shop]\nurl = {json.dumps(make_database())}\n"
    configure(service, more)
    with ExitStack() as stack:
        first = service.daemon(stack, "first")
        first.says("leading")
        second = service.daemon(stack, "second")
        second.says("standing by: ")
        assert "scheduler" in second.output

        first.send(number)
        second.says("leading")
        with busy(service):
            service.since(OVERDUE, backup__state=service.line)
            second.says("backup state, due at ")
            if number == signal.SIGSTOP:
                first.send(signal.SIGCONT)
                first.says("no longer leads")
                first.says("standing by: ")
        service.wait_for("backup", "ok")
        service.since(OVERDUE, backup__state=service.line)
        assert second.end() == 0

    assert "begins" not in first.output
    assert "a job is tried again" not in first.output
    assert second.output.count("begins") == 1


def test_a_database_that_is_away_keeps_no_other_source_from_its_backup(
    service: Scheduled,
) -> None:
    """The scheduler leads on its own host, and the failure is reported."""
    configure(
        service,
        f'[databases.shop]\nurl = "postgresql://127.0.0.1:1/shop"\n'
        f'schedule = "{service.line}"\n',
    )
    service.since(OVERDUE, backup__state=service.line, backup__shop=service.line)

    service.run("scheduler", "--once", code=30)

    sources = {
        each["details"]["source"]: each["outcome"] for each in service.records("backup")
    }
    assert sources == {"state": "ok", "shop": "failed"}


def test_a_daemon_leads_alone_while_nobody_can_be_asked(service: Scheduled) -> None:
    """It waits for as long as a takeover may take, in case another one leads."""
    configure(
        service,
        'takeover = "2s"\n[databases.shop]\nurl = "postgresql://127.0.0.1:1/shop"\n',
    )
    service.since(OVERDUE, backup__state=service.line)
    with ExitStack() as stack:
        daemon = service.daemon(stack)
        daemon.says("this scheduler leads alone on its host")
        service.wait_for("backup", "ok")
        assert daemon.end() == 0

    assert "standing by" in daemon.output.partition("leading")[0]


def test_a_page_that_cannot_be_shown_keeps_nothing_from_its_backup(
    service: Scheduled,
) -> None:
    """The port is in use, then the key cannot be used; the page comes when both can."""
    key = service.folder / "key"
    key.write_text("0123456789abcdef0123456789abcdef")
    key.chmod(0o600)
    with ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            text = (service.folder / "opskit.toml").read_text()
            page = f'listen = "127.0.0.1:{port}"\napi_key_file = "{key}"'
            (service.folder / "opskit.toml").write_text(
                text.replace('listen = ""', page)
            )
            daemon = service.daemon(stack)
            daemon.says("there is no page yet")
            daemon.says("leading")

            key.chmod(0o644)
            service.since(OVERDUE, backup__state=service.line)
            service.wait_for("backup", "ok")
            assert "status page" not in daemon.output
        key.chmod(0o600)
        daemon.says(f"status page: http://127.0.0.1:{port}/")
        assert daemon.end() == 0


def test_a_page_for_everybody_without_a_key_is_refused(service: Scheduled) -> None:
    """That is a mistake in the configuration: nothing is run."""
    text = (service.folder / "opskit.toml").read_text()
    (service.folder / "opskit.toml").write_text(
        text.replace('listen = ""', 'listen = "0.0.0.0:0"')
    )

    service.run("scheduler", code=2)

    assert "api_key_file" in service.errors
