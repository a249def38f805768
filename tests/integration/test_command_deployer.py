"""Any tool as a deployer: success is a known status, and what the service itself names."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opskit.config import Settings
from opskit.config.release import CommandSettings, LocalSettings
from opskit.config.smoke import SmokeSettings
from opskit.errors import DeployFailed, ReleaseRefused
from opskit.operations.outcome import Outcome
from opskit.operations.release import ReleaseRequest, release, rollback
from opskit.operations.run import Run
from opskit.operations.steps import Released
from opskit.probes.runner import Clock
from opskit.release import commands as commands_of_tool
from opskit.release.commands import Command, call
from opskit.release.local import Local
from opskit.release.programs import Program
from tests.listening import answer, listening

# What a tool does: it is one program, and keeps its state in files.
TOOL = """
import os, pathlib, sys
folder, what, kind = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
version = os.environ.get("OPSKIT_VERSION", "")
asked = folder / "asked"
if what == "deploy":
    if kind == "exits":
        sys.exit("no such version")
    (folder / "current").write_text(version)
    if kind != "old code":
        (folder / "serves").write_text(version + " 1" * (kind == "half"))
    if kind != "silent":
        print("beginning", version)
        print("deployment-" + version)
elif what == "current":
    print((folder / "current").read_text())
else:
    asked.write_text(asked.read_text() + "x" if asked.exists() else "x")
    number, name = len(asked.read_text()), os.environ["OPSKIT_DEPLOYMENT"]
    if kind == "breaks" and number < 3:
        sys.exit("cannot be reached")
    print(name, "is")
    print("FAILED" if kind == "bad" else "BUILDING" if kind == "slow" and number == 1 else "SUCCESS")
"""


def commands(folder: Path, kind: str = "", **more: object) -> dict[str, Any]:
    (folder / "tool.py").write_text(TOOL)
    return {
        name: [sys.executable, str(folder / "tool.py"), str(folder), name, kind]
        for name in ("deploy", "status", "current")
    } | more


class Time:
    """A clock that waiting turns on at once."""

    seconds = 0.0

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


def deploy(folder: Path, kind: str, passed: Time) -> str:
    """Deploy the version 2 with a tool of some kind."""
    settings = CommandSettings.model_validate(commands(folder, kind))
    clock = Clock(now=lambda: passed.seconds, wait=passed.wait)
    return Command(settings, folder, clock).deploy("2")


@pytest.mark.parametrize("kind", ["slow", "breaks"])
def test_a_good_status_is_a_success(tmp_path: Path, kind: str) -> None:
    """Also if the status could not be asked for a while."""
    assert deploy(tmp_path, kind, Time()) == "deployment-2"
    assert len((tmp_path / "asked").read_text()) == (3 if kind == "breaks" else 2)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("exits", "ended with 1: no such version"),
        ("silent", "printed no id"),
        ("bad", "deployment-2 of 2 has the status FAILED"),
    ],
)
def test_a_failure_ends_it(tmp_path: Path, kind: str, words: str) -> None:
    """At once."""
    passed = Time()

    with pytest.raises(DeployFailed, match=words):
        deploy(tmp_path, kind, passed)

    assert passed.seconds < 10


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (["echo", "PAUSED"], "has the status PAUSED"),
        (["echo", "BUILDING"], "has the status BUILDING"),
        (["true"], "has the status none"),
        (["false"], "has the status none: false ended with 1"),
        (["no-such-program"], "has the status none: no-such-program did not work"),
    ],
)
def test_what_is_not_known_to_be_good_is_no_success(
    tmp_path: Path, status: list[str], words: str
) -> None:
    """When the deadline has passed."""
    passed = Time()
    settings = CommandSettings.model_validate(
        commands(tmp_path, deadline="20s", deploy=["echo", "7"], status=status)
    )
    deployer = Command(
        settings, tmp_path, Clock(now=lambda: passed.seconds, wait=passed.wait)
    )

    with pytest.raises(DeployFailed, match=f"deployment 7 of 2 {words}"):
        deployer.deploy("2")

    assert 19 < passed.seconds < 22


def test_a_status_that_hangs_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question does not use up the time of the deployment."""
    monkeypatch.setattr(commands_of_tool, "_ASK_SECONDS", 1.0, raising=False)
    hangs_once = "test -e asked || { touch asked; sleep 600; }; echo SUCCESS"
    settings = CommandSettings.model_validate(
        {"deploy": ["echo", "7"], "status": ["sh", "-c", hangs_once], "deadline": "60s"}
    )

    assert Command(settings, tmp_path).deploy("2") == "7"


def by_program(command: list[str], folder: Path) -> object:
    program = Program(name="it", folder=folder, url_variable="URL", hint="")
    return program.call(command, environment=os.environ, seconds=60)


def by_process(command: list[str], folder: Path) -> object:
    (folder / "releases" / "1").mkdir(parents=True)
    settings = LocalSettings(folder=folder, start=command)
    smoke = SmokeSettings(url="http://127.0.0.1:1")
    return Local(settings, smoke, folder).deploy("1")


@pytest.mark.parametrize(
    "run", [lambda command, folder: call(command, {}, folder), by_program, by_process]
)
def test_no_half_of_a_secret_is_shown(
    tmp_path: Path, run: Callable[[list[str], Path], object]
) -> None:
    """Long words are cut, after what is secret in them was masked."""
    script = tmp_path / "fails.sh"
    script.write_text(f"echo 'token=one-two-three\n{'x' * 593}' >&2; exit 1")

    with pytest.raises((DeployFailed, ReleaseRefused)) as caught:
        run(["sh", str(script)], tmp_path)

    assert "***" in caught.value.said
    assert "three" not in caught.value.said


@pytest.mark.parametrize("hangs", ["deploy", "status"])
def test_a_command_that_hangs_is_ended_at_the_deadline(
    tmp_path: Path, hangs: str
) -> None:
    """With all that it started."""
    hanging = ["sh", "-c", "sleep 600 & echo $! >hanging; wait"]
    settings = CommandSettings.model_validate(
        commands(tmp_path, deadline="15s", deploy=["echo", "7"]) | {hangs: hanging}
    )

    with pytest.raises(DeployFailed, match="sh did not end within"):
        Command(settings, tmp_path).deploy("2")

    number = int((tmp_path / "hanging").read_text())
    deadline = time.monotonic() + 60
    while has_not_ended(number):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_not_ended(number: int) -> bool:
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@dataclass
class Service:
    """A service that names the version in a file, and a tool that says so."""

    folder: Path
    url: str

    def run(self, kind: str) -> Run:
        return Run(
            Settings.model_validate(
                {
                    "state_dir": self.folder / "state",
                    # Only the version counts here.
                    "smoke": {
                        "url": self.url,
                        "deadline": "1s",
                        "connections": 2,
                        "profile": "minimal",
                    },
                    "release": {
                        "deployer": "command",
                        "command": commands(self.folder, kind),
                    },
                }
            )
        )

    def release(self, kind: str = "good") -> Outcome[Released]:
        return release(self.run(kind), ReleaseRequest(version="2"))

    @property
    def serves(self) -> str:
        return (self.folder / "serves").read_text()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that serves the version 1."""

    def respond(
        connection: socket.socket, _head: bytes, _ended: threading.Event
    ) -> None:
        versions = (tmp_path / "serves").read_text().split()
        named = {"version": versions[next(answers) % len(versions)]}
        with suppress(OSError):
            connection.sendall(answer(json.dumps(named).encode()))

    answers = itertools.count()
    for name in ("serves", "current"):
        (tmp_path / name).write_text("1")
    with listening(respond) as address:
        yield Service(tmp_path, f"http://{address}")


def test_a_version_that_the_service_names_is_released(service: Service) -> None:
    """And taken back by a command."""
    assert service.release().exit_code == 0
    assert service.serves == "2"

    assert rollback(service.run("good")).exit_code == 0
    assert service.serves == "1"


def test_a_tool_that_says_success_and_runs_the_old_code(service: Service) -> None:
    """The service itself says that it is the old one: the release is taken back."""
    outcome = service.release("old code")

    assert outcome.exit_code == 60
    assert "2 was deployed, and the service names 1" in outcome.errors[0].message
    assert (service.folder / "current").read_text() == "1"


def test_a_version_that_only_some_answers_name_is_not_taken_back(
    service: Service,
) -> None:
    """It may still be on its way to the others: a person decides."""
    outcome = service.release("half")

    assert outcome.exit_code == 61
    assert (service.folder / "current").read_text() == "2"


def test_a_way_back_after_which_the_bad_version_runs_on_has_failed(
    service: Service,
) -> None:
    """A person has to look at it."""
    service.release()

    outcome = rollback(service.run("old code"))

    assert outcome.exit_code == 69
    assert "1 was deployed, and the service names 2" in outcome.errors[0].message


def test_a_deployment_that_failed_is_taken_back(service: Service) -> None:
    """By the same tool, which now says that it cannot: a person is called."""
    outcome = service.release("bad")

    assert outcome.exit_code == 69
    assert "has the status FAILED; and the rollback failed" in outcome.errors[0].message


def test_a_version_that_runs_is_not_released_again(service: Service) -> None:
    """Nothing is called but `current`."""
    (service.folder / "current").write_text("2")

    assert service.release().exit_code == 62
    assert not (service.folder / "asked").exists()
