"""The service under clients who send too much, too slowly, too often, at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import urllib3

from tests.service import Service, Services, launch

AT_ONCE = 5


@pytest.fixture(scope="module")
def service(services: Services) -> Iterator[Service]:
    """A service with tight limits."""
    with services.running(
        concurrent_requests_max=str(AT_ONCE),
        request_seconds="3",
        body_seconds="1",
        body_bytes_max="1000",
    ) as running:
        yield running


@contextmanager
def locked_task(service: Service) -> Iterator[str]:
    """Yield the path of a task that cannot be changed until the block ends."""
    made = service.ask("POST", "/api/tasks", "writer", document={"title": "locked"})
    number = made.json()["id"]
    with service.connected() as connection:
        connection.execute("SELECT FROM tasks WHERE id = %s FOR UPDATE", [number])
        yield f"/api/tasks/{number}"


def change(service: Service, path: str) -> urllib3.BaseHTTPResponse:
    """Ask for a change of a task."""
    return service.ask("PATCH", path, "writer", document={"status": "done"})


def head(service: Service, *more: str) -> bytes:
    """Return the head of a request that makes a task."""
    lines = ["POST /api/tasks HTTP/1.1", "Host: test", "Connection: close"]
    lines += ["Content-Type: application/json", f"X-API-Key: {service.keys['writer']}"]
    return "\r\n".join([*lines, *more, "", ""]).encode()


def test_a_long_body_is_refused_before_it_is_sent(service: Service) -> None:
    """The length that is announced is enough."""
    answer = service.raw(head(service, "Content-Length: 1000000000"))

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in answer


def test_a_long_body_of_unknown_length_is_refused_when_it_becomes_too_long(
    service: Service,
) -> None:
    """What comes in chunks is counted."""
    chunk = b"100\r\n" + b" " * 256 + b"\r\n"

    answer = service.raw(head(service, "Transfer-Encoding: chunked"), chunk * 5)

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_trickles_in_is_refused(service: Service) -> None:
    """It has a second here, then the answer is 408 and the connection ends."""
    answer = service.raw(head(service, "Content-Length: 100"), b"{")

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"x-request-id" in answer


def test_a_client_who_does_not_finish_the_head_is_cut_off(services: Services) -> None:
    """Neither on a new connection nor after an answer; here after a second."""
    short = "import service.connections as c; c._HEAD_SECONDS = 1; "
    short += "from service.__main__ import main; main()"
    program = ("-c", short)
    begun = b"GET /health/live HTTP/1.1\r\nHost: test\r\n"
    with services.running(launch=partial(launch, program=program)) as service:
        address = ("127.0.0.1", service.port)
        with socket.create_connection(address, 60) as connection:
            connection.sendall(begun)
            assert connection.recv(1) == b""
        with socket.create_connection(address, 60) as connection:
            connection.sendall(begun + b"\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            connection.sendall(begun)
            assert b"HTTP/1.1" not in b"".join(iter(lambda: connection.recv(9999), b""))


def test_a_request_that_takes_too_long_is_answered(service: Service) -> None:
    """It waits for a lock: 504 in the form of every error, and it changes nothing."""
    with locked_task(service) as path:
        answer = change(service, path)

    assert answer.status == 504
    assert answer.json()["error"]["code"] == "timeout"
    assert service.ask("GET", path, "writer").json()["status"] == "open"


def test_too_many_requests_at_once_are_refused_at_once(service: Service) -> None:
    """Those above the limit get 503 with Retry-After, health is still told."""
    with locked_task(service) as path, ThreadPoolExecutor(AT_ONCE * 2) as pool:
        began = time.monotonic()
        asked = [pool.submit(change, service, path) for _ in range(AT_ONCE * 2)]
        refused: list[urllib3.BaseHTTPResponse] = []
        while len(refused) < AT_ONCE and time.monotonic() < began + 60:
            done = [each.result() for each in asked if each.done()]
            refused = [each for each in done if each.status == 503]
            time.sleep(0.02)
        health = service.ask("GET", "/health/live")
        answers = [each.result() for each in asked]

    assert sorted(each.status for each in answers) == [503] * 5 + [504] * 5
    assert {each.headers.get("Retry-After") for each in refused} == {"1"}
    assert refused[0].json()["error"]["code"] == "unavailable"
    assert health.status == 200
    assert change(service, path).status == 200


def test_slow_clients_keep_nobody_away(services: Services) -> None:
    """Many whose bodies are awaited do not count as requests that are worked on."""
    with ExitStack() as stack:
        service = stack.enter_context(
            services.running(
                concurrent_requests_max="2", body_seconds="600", request_seconds="900"
            )
        )
        for _ in range(10):
            address = ("127.0.0.1", service.port)
            slow = stack.enter_context(socket.create_connection(address, 60))
            slow.sendall(head(service, "Content-Length: 100") + b"{")
        # They do count for the moment in which their keys are checked.
        deadline = time.monotonic() + 60
        while service.ask("GET", "/api/tasks", "reader").status != 200:
            assert time.monotonic() < deadline


def test_requests_beyond_the_rate_are_refused_until_the_window_is_over(
    services: Services,
) -> None:
    """The counts add up, other keys are not affected, and it is said when to return."""
    with services.running(rate_limit="5/5 seconds") as service:
        answers = [service.ask("GET", "/api/tasks", "writer") for _ in range(7)]
        other = service.ask("GET", "/api/tasks", "other")
        refused = [each for each in answers if each.status == 429]
        time.sleep(int(refused[-1].headers["Retry-After"]))
        again = service.ask("GET", "/api/tasks", "writer")

    left = [int(each.headers["X-RateLimit-Remaining"]) for each in answers]
    resets = {each.headers["X-RateLimit-Reset"] for each in answers}
    assert left == [4, 3, 2, 1, 0, 0, 0]
    assert [each.status for each in answers] == [200] * 5 + [429] * 2
    assert {each.headers["X-RateLimit-Limit"] for each in answers} == {"5"}
    assert len(resets) <= 2, "rounded, the end of the window may vary by a second"
    assert refused[0].json()["error"]["code"] == "too_many_requests"
    assert (other.status, again.status) == (200, 200)


def test_a_key_may_have_a_limit_of_its_own(service: Service) -> None:
    """`create-key --rate-limit` gave it to this one; others have the setting's."""
    own, usual = (service.ask("GET", "/api/tasks", key) for key in ("burst", "reader"))

    assert own.headers["X-RateLimit-Limit"] == "20"
    assert usual.headers["X-RateLimit-Limit"] == "600"


def test_a_client_who_leaves_is_no_error(services: Services) -> None:
    """A connection that ends within a body is told in the log, without a traceback."""
    with services.running() as service:
        with socket.create_connection(("127.0.0.1", service.port), 60) as leaving:
            sent = head(service, "Content-Length: 100")
            leaving.sendall(sent.replace(b"/api/tasks", b"/webhooks/incoming") + b"{")
        deadline = time.monotonic() + 60
        while "the client has gone" not in service.log.read_text():
            assert time.monotonic() < deadline

        assert [e for e in service.logged if e["level"] == "error"] == []


def test_guesses_of_keys_are_counted_by_address(services: Services) -> None:
    """Who has no account has a limit too."""
    with services.running(rate_limit="3/minute") as service:
        wrong = {"X-API-Key": "wrong"}
        statuses = [
            service.ask("GET", "/api/tasks", headers=wrong).status for _ in range(5)
        ]

    assert statuses == [401, 401, 401, 429, 429]


def test_two_processes_count_together(services: Services) -> None:
    """Redis holds the counts for both."""
    with services.running(rate_limit="4/minute") as one, one.second() as two:
        statuses = [
            each.ask("GET", "/api/tasks", "writer").status
            for each in (one, two, one, two, one, two)
        ]

    assert statuses == [200] * 4 + [429] * 2
