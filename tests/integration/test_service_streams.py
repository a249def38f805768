"""The service: the event stream and the WebSocket."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from typing import LiteralString

import psycopg
import pytest
import urllib3
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.service import Service, Services

SECONDS = 60


def make(service: Service, title: str, key: str = "writer") -> int:
    """Make a task, and return its id."""
    answer = urllib3.request(
        "POST",
        f"{service.url}/api/tasks",
        headers={"X-API-Key": service.keys[key]},
        json={"title": title},
        retries=False,
        timeout=SECONDS,
    )
    assert answer.status == 201, answer.data
    return int(answer.json()["id"])


@contextmanager
def events(
    service: Service, key: str = "writer", last: int | None = None
) -> Iterator[Iterator[tuple[int, str]]]:
    """Open an event stream: yields the id of each event and the title of its task."""
    headers = {"X-API-Key": service.keys[key]}
    headers |= {} if last is None else {"Last-Event-ID": str(last)}
    connection = HTTPConnection("127.0.0.1", service.port, timeout=SECONDS)
    with closing(connection):
        connection.request("GET", "/api/events", headers=headers)
        answer = connection.getresponse()
        assert answer.getheader("Content-Type", "").startswith("text/event-stream")
        assert (answer.readline(), answer.readline()) == (b": connected\n", b"\n")
        yield pieces(answer)


def pieces(answer: HTTPResponse) -> Iterator[tuple[int, str]]:
    """Read the pieces of a stream until it ends, or is cut."""
    fields: dict[str, str] = {}
    with suppress(IncompleteRead):
        while line := answer.readline().decode():
            name, _, value = line.strip().partition(": ")
            fields[name] = value
            if line == "\n":
                yield int(fields["id"]), json.loads(fields["data"])["title"]


@contextmanager
def talking(service: Service, key: str = "writer") -> Iterator[ClientConnection]:
    """Open a WebSocket."""
    url = f"ws://127.0.0.1:{service.port}/api/ws"
    headers = {"X-API-Key": service.keys[key]}
    with connect(url, additional_headers=headers, open_timeout=SECONDS) as socket:
        yield socket


def execute(service: Service, statement: LiteralString) -> None:
    """Run a statement in the database of a service."""
    with psycopg.connect(service.database_url) as connection:
        connection.execute(statement)


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something."""
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask(socket: ClientConnection, message: str | bytes) -> dict[str, object]:
    """Send a message, and return the answer."""
    socket.send(message)
    answer: dict[str, object] = json.loads(socket.recv(timeout=SECONDS))
    return answer


def test_events_come_to_the_owner_alone(service: Service) -> None:
    """What another account does is not in the stream."""
    with events(service) as stream:
        make(service, "not yours", "other")
        make(service, "yours")

        assert next(stream)[1] == "yours"


def test_a_reader_that_comes_back_missed_nothing(service: Service) -> None:
    """All after the last event that it has, in order, then what is new."""
    with events(service) as stream:
        make(service, "first")
        last, _ = next(stream)
    for number in range(3):
        make(service, f"while away {number}")
    with events(service, last=last) as stream:
        away = [next(stream)[1] for _ in range(3)]
        make(service, "back again")

        assert away == ["while away 0", "while away 1", "while away 2"]
        assert next(stream)[1] == "back again"


def test_events_of_hours_are_sent_page_by_page(service: Service) -> None:
    """A long history arrives whole."""
    with events(service) as stream:
        make(service, "the start")
        last, _ = next(stream)
    statement = (
        "INSERT INTO events (kind, account_id, data, request_id) "
        "SELECT 'task.created', id, jsonb_build_object('title', n::text), '' "
        "FROM accounts, generate_series(1, 450) n WHERE name = 'writer'"
    )
    execute(service, statement)

    with events(service, last=last) as stream:
        assert [next(stream)[1] for _ in range(450)] == [
            str(number) for number in range(1, 451)
        ]


def test_a_reader_that_does_not_read_is_dropped(services: Services) -> None:
    """Its buffer is bounded: it gets a part, then the end, and misses nothing later."""
    with services.running() as service, events(service) as stream:
        make(service, "before")
        last, _ = next(stream)
        statement = (
            "INSERT INTO events (kind, account_id, data, request_id) SELECT 'task.created', "
            "id, jsonb_build_object('title', n::text, 'more', repeat('x', 100000)), '' "
            "FROM accounts, generate_series(1, 400) n WHERE name = 'writer'"
        )
        execute(service, statement)
        make(service, "wakes the service")
        until(lambda: "event stream dropped" in service.log.read_text())

        got = [title for _, title in stream]
        assert got == [str(number + 1) for number in range(len(got))]
        assert len(got) < 400
        with events(service, last=last) as again:
            assert [next(again)[1] for _ in range(400)][-1] == "400"


def test_more_streams_than_allowed_are_refused(services: Services) -> None:
    """With 503, for WebSockets too; those that are open go on."""
    with services.running(streams_max="1") as service, events(service) as stream:
        headers = {"X-API-Key": service.keys["writer"]}
        url = f"{service.url}/api/events"
        refused = urllib3.request("GET", url, headers=headers, retries=False)
        with pytest.raises(InvalidStatus) as error, talking(service):
            pass
        make(service, "still here")

        assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
        assert error.value.response.status_code == 503
        assert next(stream)[1] == "still here"


def test_streams_end_when_the_service_ends(services: Services) -> None:
    """A shutdown does not wait until readers go."""
    with (
        services.running(stop_seconds="1000") as service,
        events(service) as stream,
        talking(service) as socket,
    ):
        service.stop()  # would not return in time

        assert list(stream) == []
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=SECONDS)


def test_a_service_whose_subscription_was_cut_misses_no_event(
    services: Services,
) -> None:
    """It is not ready until it listens again, and sends what happened meanwhile."""
    with services.running() as service, events(service) as stream:
        with service.connected() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'service events'"
            )
            connection.execute(
                "INSERT INTO events (kind, account_id, data, request_id) SELECT "
                "'task.created', id, '{\"title\": \"meanwhile\"}', '' FROM accounts "
                "WHERE name = 'writer'"
            )
        until(lambda: "a subscription failed" in service.log.read_text())
        until(service.is_ready)
        make(service, "afterwards")

        assert [next(stream)[1], next(stream)[1]] == ["meanwhile", "afterwards"]


def test_a_service_without_its_subscription_lives_but_is_not_ready(
    services: Services,
) -> None:
    """Until it is established."""
    away = {"SERVICE_DATABASE_DIRECT_URL": "postgresql://127.0.0.1:1/none"}
    with services.running() as service:
        service.stop()
        broken = replace(service, environment={**service.environment, **away})
        try:
            broken.start(until_ready=False)
            until(lambda: "a subscription failed" in broken.log.read_text())
            live = urllib3.request("GET", f"{broken.url}/health/live", retries=False)

            assert live.status == 200
            assert not broken.is_ready()
        finally:
            broken.stop()


def test_a_websocket_answers_and_brings_events(service: Service) -> None:
    """A ping gets a pong; a subscriber its own events."""
    with talking(service) as socket:
        assert ask(socket, '{"type": "ping"}') == {"type": "pong"}
        subscribed = ask(socket, '{"type": "subscribe", "topic": "tasks"}')
        make(service, "not yours", "other")
        number = make(service, "yours")
        event = json.loads(socket.recv(timeout=SECONDS))

    assert subscribed == {"type": "subscribed", "topic": "tasks"}
    assert event["kind"] == "task.created"
    assert event["data"]["id"] == number


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        "null",
        b'{"type": "ping"}',
        '{"type": ["ping"]}',
        '{"type": "shutdown"}',
        '{"type": "subscribe", "topic": "accounts"}',
        "[" * 60_000,
        "1" * 60_000,
    ],
    ids=lambda message: str(message)[:20],
)
def test_a_message_that_means_nothing_gets_an_error(
    service: Service, message: str | bytes
) -> None:
    """And the connection lives on."""
    with talking(service) as socket:
        assert ask(socket, message)["type"] == "error"
        assert ask(socket, '{"type": "ping"}') == {"type": "pong"}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that is reserved
        (b"\x81\x01a", 1002),  # not masked
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),  # not UTF-8
        (b"\x81\xff\0\0\0\x7f\0\0\0\0\0\0\0\0", 1009),  # as long as a disk
    ],
)
def test_a_broken_frame_ends_its_connection_only(
    service: Service, frame: bytes, code: int
) -> None:
    """It is closed with the code of the protocol; others live on."""
    with talking(service) as other, talking(service) as socket:
        socket.socket.sendall(frame)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=SECONDS)

        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
        assert ask(other, '{"type": "ping"}') == {"type": "pong"}
