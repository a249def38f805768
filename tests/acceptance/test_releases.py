"""Releases: a version comes, is probed, and goes again when it newly fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Project
from tests.ports import free_port
from tests.support import execute, value

# A service that answers as its release says; `wrong` answers 500 once it is asked
# for its health, `silent` ends at once.
SERVICE = """
import http.server, json, os, sys
folder = os.path.dirname(os.path.realpath(__file__))
version, kind = open(os.path.join(folder, "VERSION")).read().split()
if kind == "silent":
    sys.exit(1)
class Handler(http.server.BaseHTTPRequestHandler):
    def version_string(self):
        return "service"
    def do_GET(self):
        body = json.dumps({"status": "healthy", "version": version, "uptime_seconds": 1,
                           "services": {"database": {"status": "healthy"}}}).encode()
        self.send_response(405 if self.command != "GET" else 200 if self.path.startswith("/health") else 404)
        self.send_header("Content-Security-Policy", "default-src 'none'; base-uri 'none'; "
                         "form-action 'none'; frame-ancestors 'none'; object-src 'none'")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Type", "application/json")
        if kind != "wrong":
            self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_PUT = do_PATCH = do_OPTIONS = do_GET
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
RESTART = """
import os, signal, subprocess, sys, time, socket
pid, port = "service.pid", sys.argv[1]
if os.path.exists(pid):
    try:
        os.kill(int(open(pid).read()), signal.SIGKILL)
    except ProcessLookupError:
        pass
for _ in range(200):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
            break
        except OSError:
            time.sleep(0.05)
process = subprocess.Popen([sys.executable, "current/serve.py", port], start_new_session=True)
open(pid, "w").write(str(process.pid))
"""


class Service(Project):
    """A project with releases of a small service."""

    port: int

    def add(self, version: str, kind: str = "good") -> None:
        folder = self.folder / "releases" / version
        folder.mkdir(parents=True)
        (folder / "serve.py").write_text(SERVICE)
        (folder / "VERSION").write_text(f"{version} {kind}")

    @property
    def running(self) -> str:
        """The version that answers."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/health", timeout=60
        ) as answer:
            return str(json.load(answer)["version"])

    def await_answer(self) -> None:
        """Wait until a version answers."""
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                assert self.running
                return
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def restart(self) -> None:
        """Have the current version run, as a deployment does."""
        command = [sys.executable, "restart.py", str(self.port)]
        subprocess.run(command, cwd=self.folder, check=True)

    def steps(self, document: dict[str, Any]) -> dict[str, str]:
        return {each["name"]: each["status"] for each in document["steps"]}


@pytest.fixture
def service(drilled_project: Project) -> Iterator[Service]:
    """A service with the version 1 running, whose database has no pending migration."""
    port = free_port()
    made = Service(folder=drilled_project.folder, url=drilled_project.url)
    made.port = port
    (made.folder / "restart.py").write_text(RESTART)
    (made.folder / "migrations").mkdir()
    made.configure(
        f"""
[smoke]
url = "http://127.0.0.1:{port}"
deadline = "20s"
connections = 2
timeout = "2s"
[smoke.resilience]
[release]
deployer = "local"
[release.local]
restart = [{json.dumps(sys.executable)}, "restart.py", "{port}"]
[release.migrations]
tool = "sql"
database = "shop"
lock_timeout = "60s"
lock_attempts = 2
[release.budgets]
reads_blocked = "60s"
writes_blocked = "60s"
"""
    )
    made.add("1")
    (made.folder / "current").symlink_to("releases/1")
    try:
        made.restart()
        made.await_answer()
        yield made
    finally:
        with suppress(OSError, ValueError):
            os.kill(int((made.folder / "service.pid").read_text()), signal.SIGKILL)


def migration(service: Service, name: str, up: str, down: str = "") -> None:
    folder = service.folder / "migrations"
    (folder / f"{name}.sql").write_text(up)
    if down:
        (folder / f"{name}.down.sql").write_text(down)


ADDITIVE = ("0001_note", "ALTER TABLE public.orders ADD note text;")


def test_a_good_release_and_its_way_back(service: Service) -> None:
    """Every step is told; the version before comes back by a command."""
    migration(service, *ADDITIVE)
    service.add("2")

    document = service.json("release", "--version", "2")

    assert (document["status"], service.running) == ("released", "2")
    assert list(service.steps(document)) == [
        "preflight", "restore point", "rehearse", "baseline smoke", "migrate", "deploy", "smoke", "contract",
    ]  # fmt: skip
    assert document["restore_point"].startswith("shop-")
    assert document["revisions"] == [{"id": "0001_note", "class": "additive"}]
    assert "released" in Path(document["report"]).read_text()

    back = service.json("rollback")
    assert (back["status"], service.running) == ("rolled-back", "1")
    assert back["verdict"].startswith("image-safe")
    listed = [(e["version"], e["status"]) for e in service.json("releases")["releases"]]
    assert listed == [("1", "rolled-back"), ("2", "released")]


@pytest.mark.parametrize("kind", ["wrong", "silent"])
def test_a_bad_release_is_rolled_back(service: Service, kind: str) -> None:
    """The version before runs again, and the exit code says so."""
    migration(service, *ADDITIVE)
    service.add("2", kind)

    if kind == "silent":
        document = service.json("release", "--version", "2", code=61)
        assert "rollback" in document["hint"]
        service.json("rollback")
    else:
        document = service.json("release", "--version", "2", code=60)
        assert document["status"] == "rolled-back"
        assert service.steps(document)["smoke of the version before"] != "failed"

    assert service.running == "1"
    assert value(service.url, "SELECT count(*) FROM opskit.migrations") == 1


def test_what_a_rehearsal_refuses_changes_nothing(service: Service) -> None:
    """The old version runs on, on the old schema."""
    migration(service, "0001_drop", "ALTER TABLE public.lines DROP n;")
    service.add("2")

    document = service.json("release", "--version", "2", code=62)

    assert document["status"] == "refused"
    assert service.running == "1"
    assert value(service.url, "SELECT to_regclass('opskit.migrations')") is None


def test_a_migration_that_fails_leaves_the_old_version(service: Service) -> None:
    """Production has a row that last night's set has not."""
    migration(
        service, "0001_check", "ALTER TABLE public.orders ADD CHECK (id < 1000000);"
    )
    execute(service.url, "INSERT INTO public.orders (id, customer) VALUES (2000000, 1)")
    service.add("2")

    document = service.json("release", "--version", "2", code=60)

    assert service.steps(document)["migrate"] == "failed"
    assert service.running == "1"


def test_a_version_that_is_not_there_is_refused(service: Service) -> None:
    """Nothing was migrated: the old version runs on."""
    document = service.json("release", "--version", "9", code=62)

    assert "no release 9" in document["error"]
    assert service.running == "1"


def test_one_that_runs_already_is_refused(service: Service) -> None:
    """Releasing it again would say nothing."""
    assert (
        "deployed already"
        in service.json("release", "--version", "1", code=62)["error"]
    )


def test_a_dry_run_prints_the_plan(service: Service) -> None:
    """Nothing is done, and nothing is on record."""
    service.add("2")
    before = service.json("releases")["releases"]

    document = service.json("release", "--version", "2", "--dry-run")

    assert set(service.steps(document).values()) == {"planned"}
    assert service.json("releases")["releases"] == before
    assert service.running == "1"


def test_without_a_new_enough_drilled_set_nothing_is_released(service: Service) -> None:
    """A release has to be able to return."""
    service.add("2")
    text = (service.folder / "opskit.toml").read_text()
    (service.folder / "opskit.toml").write_text(
        text.replace("[release]\n", '[release]\nrestore_point_age = "0s"\n')
    )

    document = service.json("release", "--version", "2", code=62)

    assert "to return to" in document["error"]


@pytest.mark.parametrize("step", ["migrate", "deploy", "smoke"])
def test_a_release_that_was_killed_is_taken_up_again(
    service: Service, step: str
) -> None:
    """What was done is not done twice; the end is the same."""
    migration(service, *ADDITIVE)
    service.add("2")
    ledger = service.folder / ".opskit" / "ledger.jsonl"
    process = service.start("release", "--version", "2")
    deadline = time.monotonic() + 300
    mark = f'"state": "begun", "step": "{step}", "version": "2"'
    while mark not in ledger.read_text() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()

    document = service.json("release", "--resume")

    assert document["status"] == "released"
    assert service.steps(document)["rehearse"] == "done before"
    assert service.running == "2"
    assert value(service.url, "SELECT count(*) FROM opskit.migrations") == 1
