"""The hourly smoke job: what is recorded, who is notified, what `status` shows."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from tests.acceptance.scheduling import QUIET, Scheduled, hourly
from tests.listening import answer, listening
from tests.receivers import Receiver, receiver

OVERDUE = timedelta(minutes=61)


@dataclass
class Live:
    """A service that names its version, or breaks its answer off, or gives none."""

    version: str = '{"version": "1"}'
    silent: bool = False
    asked: threading.Event = field(default_factory=threading.Event)

    def __call__(
        self, connection: socket.socket, _head: bytes, ended: threading.Event
    ) -> None:
        """Answer one request."""
        self.asked.set()
        if self.silent:
            ended.wait(600)
        connection.sendall(answer(self.version.encode()))


@pytest.fixture
def service(tmp_path: Path) -> Scheduled:
    """A folder for a configuration, where smoke alone is due."""
    made = Scheduled(tmp_path / "service")
    made.line = hourly()
    made.store.mkdir(parents=True)
    return made


def configure(service: Scheduled, address: str, notified: str) -> None:
    """Have the service at an address asked every hour, and a receiver notified."""
    secret = service.folder / "secret"
    secret.write_text("a-secret-of-more-than-thirty-two-bytes")
    secret.chmod(0o600)
    (service.folder / "opskit.toml").write_text(
        f'[stores.local]\nurl = "{service.store.as_uri()}"\n'
        f'{QUIET}smoke = "{service.line}"\n'
        f'[smoke]\nurl = "http://{address}"\nprofile = "minimal"\n'
        f'deadline = "1s"\nconnections = 2\n'
        f'[[notify.webhooks]]\nurl = "{notified}"\nsecret_file = "{secret}"\n'
    )
    service.since(OVERDUE, smoke=service.line)


def events(one: Receiver) -> list[tuple[str, str | None]]:
    """Return what was said of each run, and what of it is news to people."""
    got = [json.loads(each.body) for each in one.requests]
    return [(each["type"], each["data"]["alert"]) for each in got]


def test_people_learn_of_a_new_failure_and_of_the_recovery(
    service: Scheduled,
) -> None:
    """The job fails, a run by hand fails again, another service passes, then it does."""
    live, other = Live("{}"), Live()
    with receiver() as one, listening(live) as address, listening(other) as elsewhere:
        configure(service, address, one.url)
        output = service.run("scheduler", "--once", code=61)
        errors = service.errors
        service.run("smoke", code=61)
        service.run("smoke", "--url", f"http://{elsewhere}")
        checks = {e["name"]: e for e in service.json("status", code=3)["checks"]}
        live.version = other.version
        service.run("smoke")

    reason = (
        "the result is inconclusive: the version was not confirmed: "
        "GET /health: 200 without version in JSON"
    )
    assert "smoke, due at " in output
    assert f"error: smoke: {reason}\nhint: This is no reason to roll back" in errors
    by_job, by_hand, of_other, passed = service.records("smoke")
    assert by_job["details"]["inconclusive"] == ["version"]
    assert by_job["details"]["error"] == by_hand["details"]["error"] == reason
    assert of_other["details"]["source"] == f"http://{elsewhere}"
    assert "source" not in passed["details"]

    last = checks["last smoke"]
    assert last["status"] == "degraded"
    assert last["observed"].startswith("failed, ")
    assert last["observed"].endswith(f": {reason}")
    assert events(one) == [
        ("smoke.failed", "failed"),
        ("smoke.failed", None),
        ("smoke.ok", None),
        ("smoke.ok", "recovered"),
    ]


def test_a_job_that_was_killed_has_failed_and_leaves_nothing_behind(
    service: Scheduled,
) -> None:
    """It counts as smoke that did not pass; the next run is as any other."""
    live = Live(silent=True)
    with receiver() as one, listening(live) as address, ExitStack() as stack:
        configure(service, address, one.url)
        daemon = service.daemon(stack)
        job = service.job("smoke")
        assert live.asked.wait(60)
        os.kill(job, signal.SIGKILL)
        service.wait_for("smoke", "failed")
        assert daemon.end() == 0
        live.silent = False
        service.run("smoke")

    assert events(one) == [("smoke.failed", "failed"), ("smoke.ok", "recovered")]
    (killed, passed) = service.records("smoke")
    assert killed["details"]["code"] == 61
    assert killed["details"]["error"] == "smoke: it was ended by signal 9"
    assert passed["outcome"] == "ok"
    assert daemon.output.count("begins") == 1
    assert service.json("ledger", "--verify")["status"] == "ok"
