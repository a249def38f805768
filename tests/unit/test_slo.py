"""What is said where Prometheus gives no figures: never an error, never a long wait."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from opskit.config.watch import LatencySettings, SloSettings
from opskit.watch import slo
from opskit.watch.slo import checks

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
START = NOW - timedelta(days=7)


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """Give the address of a server that gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def prometheus(url: str) -> tuple[bool | None, str]:
    """Ask for the figures of a week where that gives none, and return why."""
    (found,) = checks(SloSettings(prometheus_url=url), start=START, end=NOW)
    assert found.name == "Prometheus"
    return found.passed, found.observed


def document(**values: str) -> bytes:
    """Return an answer of Prometheus."""
    result = [
        {"metric": {"figure": name}, "value": [1.0, value]}
        for name, value in values.items()
    ]
    return json.dumps({"status": "success", "data": {"result": result}}).encode()


def test_without_an_address_nothing_is_asked() -> None:
    """A report says nothing of a service where no Prometheus is configured."""
    assert checks(SloSettings(availability=99), start=START, end=NOW) == []


def test_a_closed_port_is_said() -> None:
    """The reason is the operating system's, without the address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        found = prometheus(f"http://127.0.0.1:{listening.getsockname()[1]}")

    assert found == (
        None,
        "Prometheus gives no figures: it cannot be reached: Connection refused",
    )


def test_one_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It accepts the connection and falls silent."""
    monkeypatch.setattr(slo, "_ANSWER_SECONDS", 0.5)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _passed, words = prometheus(f"http://127.0.0.1:{listening.getsockname()[1]}")

    assert "no answer within" in words
    assert time.monotonic() - began < 30


def test_one_that_answers_a_byte_at_a_time_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each byte comes in time, the whole answer never."""
    monkeypatch.setattr(slo, "_ANSWER_SECONDS", 1.0)
    began, done = time.monotonic(), threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _address = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not done.wait(0.1) and time.monotonic() - began < 60:
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        dripping = threading.Thread(target=drip, args=(listening,))
        dripping.start()
        _passed, words = prometheus(f"http://127.0.0.1:{listening.getsockname()[1]}")
        seconds = time.monotonic() - began
        done.set()
        dripping.join()

    assert "no answer within" in words
    assert seconds < 30


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (422, b'{"status":"error"}', "it answered 422"),
        (503, b"", "it answered 503"),
        (307, b"", "redirects are not followed"),
        (200, b"<html>", "not that of a Prometheus"),
        (200, b"[]", "not that of a Prometheus"),
        (200, b'{"data":{"result":[{"metric":{}}]}}', "not that of a Prometheus"),
        (200, b" " * 100_000 + document(since="1"), "not that of a Prometheus"),
        (200, document(), "no requests"),
        (200, document(since="NaN", p95="1"), "no requests"),
        (200, document(since="1e300"), "no requests"),
    ],
)
def test_an_answer_without_figures_is_said(
    status: int, body: bytes, words: str
) -> None:
    """No exception comes of it, whatever the answer is."""
    with answering(status, body, Location="http://127.0.0.1:1/") as url:
        passed, observed = prometheus(url)

    assert passed is None
    assert words in observed


def test_the_query_is_about_the_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """The windows end with the period and are as long as it."""
    asked: list[bytes] = []

    def request(*_arguments: object, body: bytes, **_options: object) -> bytes:
        asked.append(body)
        return document()

    monkeypatch.setattr(slo, "request", request)

    prometheus("http://127.0.0.1:1/prometheus/")

    (body,) = asked
    assert f"time={NOW.timestamp()}".encode() in body
    assert b"%5B604800s%5D" in body


def test_a_report_compares_figures_with_objectives() -> None:
    """A row for each objective; what was not measured is neither met nor missed."""
    answer = document(
        since=str(START.timestamp()),
        p95="0.3",
        p99="NaN",
        refused="1",
        **{"availability": "99.8", "error budget left": "-100", "error rate": "0.2"},
    )
    with answering(200, answer) as url:
        settings = SloSettings(
            prometheus_url=url,
            availability=99.9,
            error_rate=0.01,
            latency=LatencySettings(p95="300ms", p99="1s"),
        )
        found = checks(settings, start=START, end=NOW)

    assert [
        (each.name, each.passed, each.expected, each.observed) for each in found
    ] == [
        ("availability", False, "at least 99.9 %", "99.8 %"),
        ("error budget left", False, "at least 0 %", "-100 %"),
        ("error rate", True, "at most 1 %", "0.2 %"),
        ("refused", True, "at most 5 %", "1 %"),
        ("p95", True, "at most 0.3 s", "0.3 s"),
        ("p99", None, "at most 1 s", ""),
    ]


def test_a_report_says_since_when_there_are_figures() -> None:
    """Prometheus may forget sooner than a month ends."""
    answer = document(since=str(NOW.timestamp() - 3 * 86_400), refused="10")
    with answering(200, answer) as url:
        (found,) = checks(SloSettings(prometheus_url=url), start=START, end=NOW)

    assert not found.passed
    assert found.observed == "10 % (since 2026-11-27 12:00 UTC)"
