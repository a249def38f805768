"""The service under clients who send too much, too slowly, too often, at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest
import urllib3

from tests.service import Service, Services, launch, launch_unhurried

AT_ONCE = 5
SECONDS_MAX = 60


@pytest.fixture(scope="module")
def service(services: Services) -> Iterator[Service]:
    """A service with tight limits."""
    with services.running(body_bytes_max="1000") as running:
        yield running


@pytest.fixture(scope="module")
def crowded(services: Services) -> Iterator[Service]:
    """A service that works on few requests at once, for as long as they take."""
    with services.running(
        launch=launch_unhurried,
        concurrent_requests_max=str(AT_ONCE),
        request_seconds="600",
    ) as running:
        yield running


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


def waiting(service: Service) -> int:
    """Return how many connections to its database wait for a lock."""
    with service.connected() as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchone()
    assert found
    return int(found[0])


def head(service: Service, *more: str, asked: str = "POST /api/tasks") -> bytes:
    """Return the head of a request, here of one that makes a task."""
    lines = [f"{asked} HTTP/1.1", "Host: test", "Connection: close"]
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
    with service.second(body_seconds="1") as hasty:
        answer = hasty.raw(head(service, "Content-Length: 100"), b"{")

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
            assert until_cut_off(connection, begun) == b""
        with answered(address, begun + b"\r\n") as connection:
            assert b"HTTP/1.1" not in until_cut_off(connection, begun)


def answered(address: tuple[str, int], request: bytes) -> socket.socket:
    """Return a connection after an answer; one that was too slow is cut off before."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        connection = socket.create_connection(address, 60)
        with suppress(ConnectionError):
            connection.sendall(request)
            if answer := connection.recv(65536):
                assert answer.startswith(b"HTTP/1.1 200 ")
                return connection
        connection.close()
        assert time.monotonic() < deadline


def until_cut_off(connection: socket.socket, sent: bytes) -> bytes:
    """Send bytes, which may come too late, and return all until the connection ends."""
    got = b""
    with suppress(ConnectionError):
        connection.sendall(sent)
        while more := connection.recv(65536):
            got += more
    return got


def test_a_request_that_takes_too_long_is_answered(service: Service) -> None:
    """It waits for a lock: 504 in the form of every error, and it changes nothing."""
    body = b'{"status": "done"}'
    with (
        service.second(body_seconds="1", request_seconds="2") as hasty,
        locked_task(service) as path,
    ):
        length = f"Content-Length: {len(body)}"
        # In one piece: no part of it can come too late.
        answer = hasty.raw(head(service, length, asked=f"PATCH {path}") + body)

    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b'"code":"timeout"' in answer
    assert service.ask("GET", path, "writer").json()["status"] == "open"


def test_too_many_requests_at_once_are_refused_at_once(crowded: Service) -> None:
    """Those above the limit get 503 with Retry-After, health is still told."""
    with ThreadPoolExecutor(AT_ONCE * 2) as pool:
        with locked_task(crowded) as path:
            asked = [pool.submit(change, crowded, path) for _ in range(AT_ONCE * 2)]
            wait_until(lambda: sum(each.done() for each in asked) == AT_ONCE)
            refused = [each.result() for each in asked if each.done()]
            health = crowded.ask("GET", "/health/live")
            wait_until(lambda: waiting(crowded) == AT_ONCE)
        answers = [each.result() for each in asked]

    assert {each.status for each in refused} == {503}
    assert sorted(each.status for each in answers) == [200] * 5 + [503] * 5
    assert {each.headers.get("Retry-After") for each in refused} == {"1"}
    assert refused[0].json()["error"]["code"] == "unavailable"
    assert health.status == 200
    assert change(crowded, path).status == 200


def test_a_request_whose_body_came_when_the_service_was_full_is_refused(
    crowded: Service,
) -> None:
    """Others took its place meanwhile: the limit holds for it, too."""
    body = b'{"title": "late"}'
    more = f"Content-Length: {len(body)}", "Expect: 100-continue"
    address = "127.0.0.1", crowded.port
    with ThreadPoolExecutor(AT_ONCE) as pool, ExitStack() as stack:
        late = stack.enter_context(socket.create_connection(address, 60))
        late.sendall(head(crowded, *more))
        assert late.recv(65536).startswith(b"HTTP/1.1 100 ")  # its body is awaited
        path = stack.enter_context(locked_task(crowded))
        asked = [pool.submit(change, crowded, path) for _ in range(AT_ONCE)]
        wait_until(lambda: waiting(crowded) == AT_ONCE)
        late.sendall(body)
        answer = b"".join(iter(lambda: late.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer.lower()
    assert [each.result().status for each in asked] == [200] * AT_ONCE


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
        wait_until(lambda: service.ask("GET", "/api/tasks", "reader").status == 200)


def test_requests_beyond_the_rate_are_refused(services: Services) -> None:
    """The counts add up, other keys are not affected, and it is said when to return."""
    with services.running(rate_limit="5/hour") as service:
        began = time.time()
        answers = [service.ask("GET", "/api/tasks", "writer") for _ in range(7)]
        ended = time.time()
        other = service.ask("GET", "/api/tasks", "other")

    refused = [each for each in answers if each.status == 429]
    left = [int(each.headers["X-RateLimit-Remaining"]) for each in answers]
    resets = [int(each.headers["X-RateLimit-Reset"]) for each in answers]
    assert left == [4, 3, 2, 1, 0, 0, 0]
    assert [each.status for each in answers] == [200] * 5 + [429] * 2
    assert {each.headers["X-RateLimit-Limit"] for each in answers} == {"5"}
    # It is rounded, and counts from an answer that may have come a little late.
    assert all(began + 3599 < each < ended + 3602 for each in resets)
    assert {0 < int(each.headers["Retry-After"]) <= 3602 for each in refused} == {True}
    assert refused[0].json()["error"]["code"] == "too_many_requests"
    assert other.status == 200


def test_a_window_is_over_when_the_refusal_said(services: Services) -> None:
    """Whoever asks again after that many seconds is answered."""
    with services.running(rate_limit="1/3 seconds") as service:
        answers: list[urllib3.BaseHTTPResponse] = []

        def is_refused() -> bool:
            answers.append(service.ask("GET", "/api/tasks", "writer"))
            return answers[-1].status == 429

        wait_until(is_refused)
        seconds = int(answers[-1].headers["Retry-After"])
        time.sleep(seconds)
        again = service.ask("GET", "/api/tasks", "writer")

    assert 1 <= seconds <= 4
    assert again.status == 200


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
        wait_until(lambda: "the client has gone" in service.log.read_text())

        assert [e for e in service.logged if e["level"] == "error"] == []


def test_guesses_of_keys_are_counted_by_address(services: Services) -> None:
    """Who has no account has a limit too."""
    with services.running(rate_limit="3/hour") as service:
        wrong = {"X-API-Key": "wrong"}
        statuses = [
            service.ask("GET", "/api/tasks", headers=wrong).status for _ in range(5)
        ]

    assert statuses == [401, 401, 401, 429, 429]


def test_two_processes_count_together(services: Services) -> None:
    """Redis holds the counts for both."""
    with services.running(rate_limit="4/hour") as one, one.second() as two:
        statuses = [
            each.ask("GET", "/api/tasks", "writer").status
            for each in (one, two, one, two, one, two)
        ]

    assert statuses == [200] * 4 + [429] * 2
