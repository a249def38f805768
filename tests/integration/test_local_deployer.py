"""The local deployer with real processes: what runs afterwards, and what is stopped."""

from __future__ import annotations

import json
import os
import socket
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from opskit.config.release import LocalSettings
from opskit.config.smoke import SmokeSettings
from opskit.errors import DeployFailed
from opskit.release import processes
from opskit.release.local import Local

# What a version of the service does before it answers.
KINDS = {
    "good": "",
    "dies": "print('no such table'); sys.exit(3)",
    "hangs": "time.sleep(600)",
    "stubborn": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "lies": "version = 'another'",
    "forks": "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])",
}
SERVICE = """
import http.server, json, os, signal, subprocess, sys, time
version = os.environ["OPSKIT_VERSION"]
{before}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"version": version, "environment": sorted(os.environ)}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""
SECONDS = 60


@dataclass
class Service:
    """A folder of releases, and what runs of them."""

    folder: Path
    port: int

    def deployer(self, **changes: object) -> Local:
        """Return the deployer of one run; each run has its own."""
        settings: dict[str, object] = {
            "folder": self.folder,
            "start": [sys.executable, "serve.py"],
            "stop_timeout": "30s",
        }
        smoke = SmokeSettings.model_validate(
            {
                "url": f"http://127.0.0.1:{self.port}",
                "connections": 2,
                "timeout": "2s",
            }
        )
        return Local(LocalSettings.model_validate(settings | changes), smoke, Path("/"))

    def add(self, version: str, kind: str = "good") -> None:
        folder = self.folder / "releases" / version
        folder.mkdir(parents=True, exist_ok=True)
        text = SERVICE.format(before=KINDS[kind], port=self.port)
        (folder / "serve.py").write_text(textwrap.dedent(text))

    def answer(self) -> dict[str, object]:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/health", timeout=10
        ) as answer:
            return dict(json.load(answer))

    @property
    def running(self) -> dict[str, int]:
        """The processes that run, by their versions."""
        found = {
            each.name: processes.read(each)
            for each in (self.folder / "processes").iterdir()
        }
        return {n: each.number for n, each in found.items() if each and each.is_alive}

    @property
    def log(self) -> str:
        return (self.folder / "service.log").read_text()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with the version 1 running."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Service(tmp_path, port)
    made.add("1")
    try:
        made.deployer().deploy("1")
        yield made
    finally:
        for record in (tmp_path / "processes").iterdir():
            record.write_text(
                record.read_text().replace("elsewhere", os.uname().nodename)
            )
            if process := processes.read(record):
                process.stop(0)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def test_a_version_takes_the_place_of_another(service: Service) -> None:
    """Nothing of the one before runs on, its session is its own, its log is kept."""
    service.add("2")
    before = service.running["1"]

    deployment = service.deployer().deploy("2")

    assert service.answer()["version"] == "2"
    assert list(service.running) == ["2"]
    number = service.running["2"]
    assert deployment == f"2@{number}"
    assert os.getsid(number) == number != os.getsid(0)
    assert not Path(f"/proc/{before}").exists()
    assert service.deployer().current() == "2"
    assert '"GET /health' in service.log


@pytest.mark.parametrize(
    ("kind", "words"),
    [("dies", "has ended: no such table"), ("hangs", "did not name"), ("lies", "did not name")],
)  # fmt: skip
def test_what_does_not_name_its_version_has_failed(
    service: Service, kind: str, words: str
) -> None:
    """And does not run on; the version before is still the current one."""
    service.add("2", kind)

    with pytest.raises(DeployFailed) as caught:
        service.deployer(deadline="1s" if kind != "dies" else "1m").deploy("2")

    assert words in str(caught.value)
    assert "service.log" in caught.value.hint
    assert service.running == {}
    assert service.deployer().current() == "1"
    service.deployer().deploy("1")
    assert service.answer()["version"] == "1"
