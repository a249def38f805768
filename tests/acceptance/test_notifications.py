"""Notifications of the command line: messages, receivers that are not reached, secrets."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.acceptance.scheduling import QUIET, Scheduled, hourly
from tests.acceptance.services import Service
from tests.receivers import Receiver, away, receiver

CANARY = "hunter2"
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
WAIT_SECONDS = 120.0


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A folder of state and one store."""
    made = Service(folder=tmp_path / "service")
    made.set_up()
    made.fill(orders='{"open": 3}')
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    return made


def _receivers(service: Service, url: str, *, timeout: str = "15s") -> str:
    """Return a configuration that sends everything to one server, with passwords."""
    host = url.removeprefix("http://")
    kept = service.folder.parent / "hooks"
    hook = json.dumps([["sh", "-c", f"cat >>{kept}; echo >>{kept}"]])
    return f"""
[notify]
urls = ["json://ops:{CANARY}-m@{host}/{CANARY}-m"]
sentry_dsn = "http://{CANARY}-s@{host}/7"
timeout = "{timeout}"
[notify.heartbeats]
state = "http://ops:{CANARY}-h@{host}/{CANARY}-h"
[notify.drill_heartbeats]
state = "http://ops:{CANARY}-d@{host}/drill/{CANARY}-d"
[[notify.webhooks]]
url = "http://ops:{CANARY}-w@{host}/hook/{CANARY}-w"
secret_file = "{service.folder.parent / "secret"}"
[hooks]
before = {hook}
after = {hook}
failed = {hook}
"""


def _hooks(service: Service) -> list[str]:
    """Return the outcomes that the hooks got."""
    lines = (service.folder.parent / "hooks").read_text().splitlines()
    return [json.loads(line)["outcome"] for line in lines]


def _events(one: Receiver) -> list[dict[str, Any]]:
    """Return what the webhook got, all of it verified."""
    return [
        Webhook(SECRET).verify(each.body, each.headers)
        for each in one.requests
        if each.path.startswith("/hook/")
    ]


def _break(service: Service) -> None:
    """Let the next backups fail."""
    shutil.move(service.state, service.folder / "elsewhere")


def _traces(service: Service, shown: str) -> list[str]:
    """Return where a part of an address or of a secret is."""
    found = ["shown"] if CANARY in shown or SECRET in shown else []
    for path in service.folder.rglob("*"):
        if path.is_file() and path.name != "opskit.toml":
            content = path.read_bytes()
            if CANARY.encode() in content or SECRET.encode() in content:
                found.append(str(path))
    return found


def test_a_fault_and_its_end_reach_everybody(service: Service) -> None:
    """By message, heartbeat, webhook, hook and event; a repeat is not reported to people."""
    with receiver() as one:
        service.set_up(_receivers(service, one.url))
        service.json("backup")
        service.json("restore-drill")
        _break(service)
        failed = service.json("backup", code=40)
        service.json("backup", code=40)
        shutil.move(service.folder / "elsewhere", service.state)
        service.json("backup")
        operations = {e["operation"] for e in service.json("ledger")["entries"]}

    beats = [path for path in one.paths() if f"/{CANARY}-h" in path]
    assert [each.removeprefix(f"/{CANARY}-h") for each in beats] == [
        "/start", "", "/start", "/fail", "/start", "/fail", "/start", "",
    ]  # fmt: skip
    drills = [path for path in one.paths() if path.startswith("/drill/")]
    assert drills == [f"/drill/{CANARY}-d/start", f"/drill/{CANARY}-d"]
    messages = [
        json.loads(each.body)
        for each in one.requests
        if each.path.startswith(f"/{CANARY}-m")
    ]
    assert [each["title"] for each in messages] == [
        "opskit: backup of state failed",
        "opskit: backup of state works again",
    ]
    words = failed["error"].removeprefix("state: ")
    assert messages[0]["message"].startswith(f"error: {words}\nhint: ")
    assert failed["run_id"] in messages[0]["message"]
    events = _events(one)
    assert [(each["type"], each["data"]["alert"]) for each in events] == [
        ("backup.ok", None),
        ("restore-drill.ok", None),
        ("backup.failed", "failed"),
        ("backup.failed", None),
        ("backup.ok", "recovered"),
    ]
    assert events[2]["data"]["run_id"] == failed["run_id"]
    assert one.paths().count("/api/7/envelope/") == 2
    assert _hooks(service) == [
        "started", "ok", "started", "ok", "started", "failed", "started", "failed",
        "started", "ok",
    ]  # fmt: skip
    assert operations == {"backup", "restore-drill"}  # everybody was reached


@pytest.mark.parametrize("kind", ["away", "500", "elsewhere", "silent"])
def test_a_receiver_that_is_not_reached_changes_nothing(
    kind: str, service: Service
) -> None:
    """The backup is taken and exits 0; `status` shows who was not reached, no address."""
    statuses = {"500": [500], "elsewhere": [307], "silent": [0]}.get(kind, [200])
    with receiver() as other, receiver(statuses, other.url) as one:
        url = away() if kind == "away" else one.url
        service.set_up(_receivers(service, url, timeout="1s"))
        began = time.monotonic()
        (made,) = service.json("backup")["backups"]
        shown = service.errors
        assert time.monotonic() - began < WAIT_SECONDS
        _break(service)
        service.run("backup", code=40)
        shown += service.errors
        shown += service.run("status", code=4) + service.errors
        shown += service.run("ledger") + service.errors

    assert other.requests == []
    assert made["stores"] == ["local"]
    records = [
        each
        for each in service.json("ledger")["entries"]
        if each["operation"] == "notify"
    ]
    assert {each["details"]["receiver"] for each in records} == {
        "heartbeat state", "message 1 (json)", "webhook 1",
    }  # fmt: skip
    assert {each["outcome"] for each in records} == {"failed"}
    for each in ("heartbeat state", "message 1 (json)", "webhook 1"):
        assert f"notification {each}" in shown
    assert "JSON notification" not in shown  # apprise's own words
    assert _traces(service, shown) == []


def test_an_address_of_no_service_is_a_wrong_configuration(service: Service) -> None:
    """Exit code 2 before anything is done, and no part of it is shown."""
    service.set_up(f'[notify]\nurls = ["nosuch://ops:{CANARY}@h/{CANARY}"]')

    document = service.json("backup", code=2)

    assert "message 1 (nosuch) in notify.urls matches no service" in document["error"]
    assert service.files() == []
    assert _traces(service, str(document) + service.errors) == []


def test_doctor_sends_a_test_message(service: Service) -> None:
    """Only with --notify, and to no heartbeat."""
    with receiver() as one:
        service.set_up(_receivers(service, one.url))
        service.run("doctor")
        assert one.requests == []
        document = service.json("doctor", "--notify")

    status = {each["name"]: each["status"] for each in document["checks"]}
    assert status["notification message 1 (json)"] == "healthy"
    assert status["notification webhook 1"] == "healthy"
    assert [each["type"] for each in _events(one)] == ["test"]
    assert len(one.requests) == 2


def test_an_interrupted_backup_is_reported_to_programs_and_heartbeats_alone(
    service: Service,
) -> None:
    """A person who stops a run knows; a service that waits for its end does not."""
    (service.state / "bulk").write_bytes(bytes(range(256)) * 400_000)
    with receiver() as one:
        service.set_up(_receivers(service, one.url))
        path = service.folder / "opskit.toml"
        slow = "[stores.local]\nbandwidth_limit = 2000\n"
        path.write_text(path.read_text().replace("[stores.local]\n", slow))
        process = service.start("backup")
        _until_begun(one, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_SECONDS)

    assert process.returncode == 130
    assert [each["type"] for each in _events(one)] == ["backup.interrupted"]
    assert f"/{CANARY}-m" not in one.paths()
    assert f"/{CANARY}-h/fail" in one.paths()
    assert _hooks(service) == ["started", "interrupted"]


def test_a_set_that_holds_far_less_is_reported(service: Service) -> None:
    """The backup succeeds; somebody should look at it."""
    for number in range(300):
        (service.state / f"{number}").write_text("x")
    with receiver() as one:
        service.set_up(f'[notify]\nurls = ["{one.url.replace("http", "json")}"]')
        service.json("backup")
        for number in range(300):
            (service.state / f"{number}").unlink()
        (made,) = service.json("backup")["backups"]

    (got,) = (json.loads(each.body) for each in one.requests)
    assert got["title"] == "opskit: backup of state looks wrong"
    assert got["message"].startswith("\n".join(made["sudden_changes"]))
    assert made["backup_id"] in got["message"]


def test_a_missed_run_is_reported_by_the_scheduler(tmp_path: Path) -> None:
    """Only the scheduler knows of a run that did not start; the next one succeeds."""
    service = Scheduled(tmp_path)
    service.fill(a="one")
    line = hourly()
    with receiver() as one:
        address = one.url.replace("http", "json")
        notify = (
            f'[notify]\nurls = ["{address}"]\nheartbeats.state = "{one.url}/beat"\n'
        )
        service.set_up(QUIET + notify, of_state=f'schedule = "{line}"')
        service.since(timedelta(hours=3), backup__state=line)
        service.run("scheduler", "--once")

    messages = [json.loads(each.body) for each in one.requests if each.body]
    assert [each["title"] for each in messages] == [
        "opskit: backup of state did not run",
        "opskit: backup of state works again",
    ]
    assert "2 runs were missed" in messages[0]["message"]
    beats = [each for each in one.paths() if "beat" in each]
    assert beats == ["/beat/fail", "/beat/start", "/beat"]


def test_hooks_of_scheduled_jobs_can_call_opskit(tmp_path: Path) -> None:
    """They read the configuration of the job, also from a process of their own."""
    service = Scheduled(tmp_path)
    service.fill(a="one")
    line, kept = hourly(), tmp_path / "kept"
    opskit = f"{sys.executable} -P -m opskit"
    program = (
        "import subprocess, sys; sys.stdin.read(); "
        f"sys.exit(subprocess.call('{opskit} backups --json >{kept}', shell=True))"
    )
    hook = json.dumps([[sys.executable, "-c", program]])
    service.set_up(f"{QUIET}[hooks]\nafter = {hook}\n", of_state=f'schedule = "{line}"')
    service.since(timedelta(hours=1), backup__state=line)
    service.run("scheduler", "--once")

    assert "a hook failed" not in service.errors
    (listed,) = json.loads(kept.read_text())["backups"]
    assert listed["source"] == "state"


def _until_begun(one: Receiver, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not one.requests:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
