"""No secret of `smoke` comes out anywhere, whatever the service does with it."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.listening import ROOT, Ended, answer, listening, run

_NAMES = "reader writer other admin burst jwt-secret hook-secret webhook-secret"
# The beginning tells whether a piece of one came out.
KEYS = {
    name: f"canary{name.replace('-', '')}0123456789abcdefghij"
    for name in _NAMES.split()
}
_CREDENTIAL = re.compile(
    r"(?im)^(?:x-api-key|authorization): *(?:bearer )?(\S+)\r$|[?&]token=([^ &]+)"
)
_TOKEN = re.compile(r"eyJ[\w-]{20}")
# What a probe may quote of an answer.
_HEADERS = (
    "Server",
    "X-Request-ID",
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "Referrer-Policy",
    "Strict-Transport-Security",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Methods",
    "Set-Cookie",
    "Retry-After",
    "Allow",
    "Location",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
)


class _Echo:
    """Answers all but the version with every credential that it was ever sent.

    Without a status its answers are no HTTP.
    """

    def __init__(self, status: int, glue: str) -> None:
        self.status, self.glue = status, glue
        self.seen: dict[str, None] = {}
        self._guard = threading.Lock()

    def __call__(
        self, connection: socket.socket, head: bytes, _ended: threading.Event
    ) -> None:
        """Answer one request."""
        text = head.decode("latin-1")
        with self._guard:
            for found in _CREDENTIAL.findall(text):
                self.seen[unquote("".join(found))] = None
            echoed = self.glue + self.glue.join([*self.seen][:40]) + self.glue
        if text.startswith("GET /health "):
            connection.sendall(answer(b'{"version": "1"}'))
        elif not self.status:
            connection.sendall(f"HTTP/1.1 {echoed}\r\n{echoed}\r\n\r\n".encode())
            connection.shutdown(socket.SHUT_RDWR)
        else:
            body = dict.fromkeys(("id", "items", "total", "error", echoed), echoed)
            headers = "".join(f"{name}: {echoed}\r\n" for name in _HEADERS)
            content = json.dumps(body).encode()
            connection.sendall(answer(content, status=self.status, headers=headers))


def _configuration(folder: Path, address: str) -> str:
    """Return that of the example, with keys of this test."""
    for name, key in KEYS.items():
        (folder / name).write_text(key)
        (folder / name).chmod(0o600)
    (folder / "service.jsonl").touch()
    text = (ROOT / "examples" / "service" / "opskit.toml").read_text()
    for before, after in {
        "/etc/service/keys": str(folder),
        "http://127.0.0.1:8000": f"http://{address}",
        "127.0.0.1:8322": "127.0.0.1:0",
        "/var/log/service": str(folder),
        "/var/lib/service": str(folder),
        'identity = "X-Request-ID"': 'deadline = "1s"\ntimeout = "10s"',
        'profile = "strict"': 'profile = "standard"\nconnections = 2',
    }.items():
        assert before in text
        text = text.replace(before, after)
    return text


def _written(folder: Path, ended: Ended) -> dict[str, str]:
    """Return all that a run said and wrote."""
    said = {"output": ended.output, "errors": ended.errors}
    return said | {
        each.name: each.read_text()
        for each in folder.rglob("*")
        if each.is_file() and each.name not in (*KEYS, "opskit.toml")
    }


@pytest.mark.parametrize(
    ("status", "glue", "form"),
    [(200, " ", "--json"), (500, "_", "--verbose"), (0, "_", "--json")],
)
def test_no_output_holds_a_secret(
    tmp_path: Path, status: int, glue: str, form: str
) -> None:
    """The service echoes keys and tokens in headers, bodies and error pages."""
    echo = _Echo(status, glue)
    files = "--junit", "junit.xml", "--markdown", "report.md"
    with listening(echo) as address:
        ended = run(tmp_path, _configuration(tmp_path, address), form, *files)

    assert ended.code == 61, ended.errors
    # The service was sent keys, wrong keys that are like them, and tokens.
    assert {KEYS["reader"], KEYS["writer"], KEYS["admin"]} <= {*echo.seen}
    assert any(_TOKEN.match(each) for each in echo.seen)
    written = _written(tmp_path, ended)
    assert {"output", "errors", "junit.xml", "report.md", "ledger.jsonl"} <= {*written}
    for name, text in written.items():
        assert not re.search("canary.{0,40}", text), name
        assert not _TOKEN.search(text), name


def test_no_explanation_holds_a_secret(tmp_path: Path) -> None:
    """What every probe does is said without the keys that it uses."""
    configuration = _configuration(tmp_path, "127.0.0.1:9")
    ended = run(tmp_path, configuration, "--explain", "all", "--verbose")

    assert ended.code == 0, ended.errors
    assert "authentication.wrong-key" in ended.output
    for name, text in _written(tmp_path, ended).items():
        assert "canary" not in text, name
