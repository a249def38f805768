"""The receivers that docs/webhooks.md shows: run as they are, and sent real messages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import urllib3

from opskit.watch.receivers import signed
from tests.unit import stock

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
BODY = b'{"type": "backup.failed", "timestamp": "x", "data": {"source": "shop"}}'
WAIT_SECONDS = 60.0
_LISTEN = "0A"  # a state in /proc/net/tcp


def _example(language: str) -> str:
    """Return the one example of a language."""
    pattern = rf"^```{language}\n(.*?)^```$"
    (found,) = re.findall(pattern, DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def _port(process: subprocess.Popen[str]) -> int:
    """Wait until a process listens, and return the port that it got."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := _listening(process.pid)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[0]


def _listening(pid: int) -> list[int]:
    own = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in between
            own.add(str(each.readlink()))
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [
        int(fields[1].partition(":")[2], 16)
        for fields in map(str.split, lines)
        if fields[3] == _LISTEN and f"socket:[{fields[9]}]" in own
    ]


class Program:
    """A receiver that runs."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self._url = f"http://127.0.0.1:{port}/hooks"
        self._process = process

    def send(self, headers: Mapping[str, str], body: bytes = BODY) -> int:
        """Send a message; return the status of the answer."""
        answer = urllib3.request(
            "POST", self._url, body=body, headers=headers, timeout=WAIT_SECONDS
        )
        return answer.status

    def end(self) -> list[str]:
        """End it; return the lines that it has printed."""
        self._process.terminate()
        output, _ = self._process.communicate(timeout=WAIT_SECONDS)
        return output.splitlines()


@pytest.fixture(params=["python", "js"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    """Each of the examples, as a process."""
    source = tmp_path / f"receiver.{request.param}"
    source.write_text(_example(request.param))
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    interpreter = sys.executable if request.param == "python" else stock.program("node")
    process = subprocess.Popen(
        [interpreter, source],
        env=os.environ | {"PORT": "0", "WEBHOOK_SECRET_FILE": str(secret)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Program(_port(process), process)
    finally:
        process.kill()
        process.communicate()


def _headers(
    secret: str = SECRET, *, message_id: str = "m1", age: int = 0
) -> dict[str, str]:
    now = int(time.time())
    return signed(BODY, secret, message_id=message_id, seconds=now - age)


def test_a_receiver_takes_a_message_once(program: Program) -> None:
    """The one that is sent again is answered, and nothing is done."""
    assert program.send(_headers()) == 204
    assert program.send(_headers()) == 204
    assert program.send(_headers(message_id="m2")) == 204

    assert program.end() == ["backup.failed shop"] * 2


def test_a_receiver_refuses_what_is_not_genuine(program: Program) -> None:
    """A changed body or id, another secret, an old message, no signature at all."""
    other = "whsec_HwAAAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    bare = {"webhook-id": "m1", "webhook-timestamp": str(int(time.time()))}

    assert program.send(_headers(), BODY.replace(b"shop", b"crm")) == 401
    assert program.send(_headers() | {"webhook-id": "m9"}) == 401
    assert program.send(_headers(other)) == 401
    assert program.send(_headers(age=600)) == 401
    assert program.send(_headers(age=-600)) == 401
    assert program.send(_headers() | {"webhook-timestamp": "soon"}) == 401
    assert program.send(bare) == 401
    assert program.send({}) == 401
    assert program.end() == []
