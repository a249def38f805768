"""The probes of malformed input: a right answer passes, and each wrong one fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.probes import openapi
from opskit.probes.probe import Inconclusive, WrongAnswer
from opskit.probes.refusals import insist
from opskit.probes.session import Session, Target
from tests.asgi import serving
from tests.unit.probed import asked_at, decidedly

Answer = Callable[[str], Response]
TRACE = 'Traceback (most recent call last):\n  File "/srv/app.py", line 3, in post'


def refusal(status: int, message: str = "no") -> Response:
    """Return a clean refusal."""
    return JSONResponse({"error": {"code": "invalid", "message": message}}, status)


class Refused(Exception):
    """A body is not taken."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise Refused("malformed-json")
    return dict(pairs)


def _constant(_name: str) -> None:
    raise Refused("huge-numbers")


def _title(request: Request, body: bytes) -> str:
    """Return the title in a body.

    Raises:
        Refused: it is not taken; names the probe that shows it.
    """
    if request.headers.get("content-type") != "application/json":
        raise Refused("content-type")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Refused("bad-encoding") from None
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise Refused("deep-nesting") from None
    except ValueError:
        is_long = len(body) > sys.get_int_max_str_digits()
        raise Refused("huge-numbers" if is_long else "malformed-json") from None
    title = document.get("title") if isinstance(document, dict) else None
    if isinstance(title, int | float) and not isinstance(title, bool):
        raise Refused("huge-numbers")
    if not isinstance(title, str):
        raise Refused("wrong-types")
    if "\0" in title or any("\ud800" <= each <= "\udfff" for each in title):
        raise Refused("bad-encoding")
    if len(title) > 100:
        raise Refused("long-text")
    return title


def application(
    *,
    bodies: dict[str, Answer] | None = None,
    urls: Answer = lambda _path: refusal(404),
    socket: Callable[[WebSocket], Any] | None = None,
) -> Starlette:
    """Return a service; `bodies` answers what is refused, by the probe's name."""

    async def post(request: Request) -> Response:
        body = await request.body()
        try:
            _title(request, body)
        except Refused as refused:
            wrong = (bodies or {}).get(str(refused))
            return wrong(body.decode(errors="replace")) if wrong else refusal(422)
        return JSONResponse({}, 201)

    async def version(_request: Request) -> Response:
        return JSONResponse({"version": "1"})

    async def others(request: Request) -> Response:
        return urls(request.url.path)

    routes: list[Any] = [
        Route("/tasks", post, methods=["POST"]),
        Route("/health", version),
        Route("/{rest:path}", others),
    ]
    if socket is not None:
        routes.insert(0, WebSocketRoute("/ws", socket))
    return Starlette(routes=routes)


def ask(app: Starlette, name: str, *, timeout: str = "60s", **wanted: Any) -> Check:
    """Ask a probe of the family."""
    wanted = {"path": "/tasks", "text_max": 100, **wanted}
    with serving(app) as url:
        return asked_at(
            url,
            f"input.{name}",
            input=wanted,
            error_fields=["error.code", "error.message"],
            timeout=timeout,
        )


BODIES = (
    "malformed-json",
    "wrong-types",
    "huge-numbers",
    "deep-nesting",
    "bad-encoding",
    "content-type",
    "long-text",
)


@pytest.mark.parametrize("name", BODIES)
def test_clean_refusals_pass(name: str) -> None:
    check = ask(application(), name)

    assert check.passed, check


@pytest.mark.parametrize(
    "wrong",
    [
        lambda _body: refusal(500),
        lambda _body: refusal(401),
        lambda _body: JSONResponse({}, 201),
        lambda _body: refusal(422, TRACE),
        lambda _body: refusal(400, "psycopg.errors.DataError: invalid"),
        lambda _body: Response("Bad Request", 400),
        lambda _body: JSONResponse({"detail": "no"}, 400),
    ],
    ids=["500", "401", "accepted", "trace", "database", "text", "form"],
)
@pytest.mark.parametrize("name", BODIES)
def test_what_is_not_refused_cleanly_fails(name: str, wrong: Answer) -> None:
    check = ask(application(bodies={name: wrong}), name)

    assert check.passed is False, check


@pytest.mark.parametrize("name", ["malformed-json", "bad-encoding", "long-text"])
def test_a_refusal_that_repeats_the_body_fails(name: str) -> None:
    app = application(bodies={name: lambda body: refusal(422, body)})

    check = ask(app, name)

    assert check.passed is False
    assert "422 that repeats the body" in check.observed


@pytest.mark.parametrize(
    "shown",
    [
        TRACE,
        "at com.shop.Tasks.create(Tasks.java:31)",
        "at Object.<anonymous> (/srv/app/index.js:3:7)",
        "at Shop.Tasks.Create(String title) in C:\\shop\\Tasks.cs:line 12",
        "app/models/task.rb:12:in `create'",
        "Uncaught Error in /srv/task.php on line 7",
        "goroutine 12 [running]:",
        "thread 'main' panicked at src/main.rs:4",
        "org.springframework.dao.DataIntegrityViolationException",
        "sqlalchemy.exc.DataError",
        'syntax error at or near "x"',
        "INSERT INTO tasks VALUES",
        "You're seeing this error because you have <code>DEBUG = True</code>",
    ],
)
def test_traces_of_many_frameworks_are_known(shown: str) -> None:
    app = application(bodies={"wrong-types": lambda _body: Response(shown, 400)})

    check = ask(app, "wrong-types")

    assert check.passed is False
    assert "shows a trace or words of a database" in check.observed


def test_invalid_urls_that_are_refused_pass() -> None:
    check = ask(application(), "invalid-urls", invalid=["/tasks/abc", "/tasks?a=%00"])

    assert check.passed, check


@pytest.mark.parametrize(
    "urls",
    [
        lambda _path: JSONResponse({}),
        lambda _path: refusal(500),
        lambda _path: refusal(404, TRACE),
    ],
    ids=["200", "500", "trace"],
)
def test_invalid_urls_that_are_not_refused_fail(urls: Answer) -> None:
    check = ask(application(urls=urls), "invalid-urls", invalid=["/items/abc"])

    assert check.passed is False


def test_strange_urls_pass_without_any_configuration() -> None:
    assert ask(application(), "strange-urls", path="").passed


@pytest.mark.parametrize(
    "urls", [lambda _path: refusal(500), lambda _path: refusal(404, TRACE)]
)
def test_strange_urls_that_are_failures_fail(urls: Answer) -> None:
    assert ask(application(urls=urls), "strange-urls").passed is False


async def _talk(channel: WebSocket, answer: Callable[[Any], Any]) -> None:
    await channel.accept()
    while True:
        message = await channel.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            document = json.loads(message.get("text") or "")
            is_ping = document["type"] == "ping"
        except (ValueError, RecursionError, TypeError, LookupError):
            is_ping = False
        await channel.send_json({"type": "event"})
        if is_ping:
            await channel.send_json({"type": "pong"})
        elif (said := answer(message)) is None:
            continue
        elif isinstance(said, int):
            await channel.close(said)
            return
        else:
            await channel.send_json(said)


def talking(answer: Callable[[Any], Any]) -> Callable[[WebSocket], Any]:
    """Return a WebSocket that answers what it does not understand in that way."""

    async def talk(channel: WebSocket) -> None:
        await _talk(channel, answer)

    return talk


@pytest.mark.parametrize("answer", [{"type": "error"}, 1003, 1008])
def test_messages_that_mean_nothing_get_an_error_or_a_close(answer: object) -> None:
    app = application(socket=talking(lambda _message: answer))

    check = ask(app, "websocket-messages", websocket={"path": "/ws"})

    assert check.passed, check


def _raises(_message: object) -> None:
    raise RuntimeError("planted")


@pytest.mark.parametrize(
    "answer",
    [
        lambda _message: None,
        lambda _message: {"code": "malformed"},
        lambda _message: 1000,
        lambda _message: 1011,
        _raises,
    ],
    ids=["silence", "no type", "closed as if all were well", "own failure", "crash"],
)
def test_messages_that_are_not_answered_rightly_fail(
    answer: Callable[[Any], Any],
) -> None:
    check = decidedly(
        lambda: ask(
            application(socket=talking(answer)),
            "websocket-messages",
            timeout="5s",
            websocket={"path": "/ws"},
        )
    )

    assert check.passed is False, check


def test_forbidden_frames_are_answered_with_a_close() -> None:
    app = application(socket=talking(lambda _message: {"type": "error"}))

    check = ask(app, "websocket-frames", websocket={"path": "/ws"})

    assert check.passed, check


def test_a_socket_that_answers_no_ping_afterwards_fails() -> None:
    async def silent(channel: WebSocket) -> None:
        await channel.accept()
        await channel.receive()
        await channel.receive()

    check = decidedly(
        lambda: ask(
            application(socket=silent),
            "websocket-frames",
            timeout="5s",
            websocket={"path": "/ws"},
        )
    )

    assert check.passed is False
    assert check.observed == "a ping afterwards: no answer"


def test_a_socket_that_closes_in_place_of_an_answer_fails() -> None:
    async def closing(channel: WebSocket) -> None:
        await channel.accept()
        await channel.close(1013)

    check = ask(
        application(socket=closing), "websocket-frames", websocket={"path": "/ws"}
    )

    assert check.passed is False
    assert check.observed.endswith("a ping afterwards: closed with code 1013")


@pytest.mark.parametrize("breaks", [4, 5])
def test_a_request_without_an_answer_is_sent_five_times(breaks: int) -> None:
    """Fewer would blame the service for connections that break on their way."""
    app = application()
    attempts: list[int] = []

    def attempt() -> str:
        attempts.append(1)
        if len(attempts) <= breaks:
            raise Inconclusive("it broke") from ConnectionError()
        return "an answer"

    settings = SmokeSettings()
    with serving(app) as url, Session(Target(url=url, timeout_seconds=60)) as session:
        if breaks == 4:
            assert insist(session, settings, attempt) == "an answer"
        else:
            with pytest.raises(WrongAnswer):
                insist(session, settings, attempt)

    assert len(attempts) == 5


@pytest.mark.parametrize(("status", "passed"), [(400, True), (500, None)])
def test_a_url_may_be_refused_in_front_of_the_service(
    status: int, passed: bool | None
) -> None:
    """Nginx passes no path on that holds a NUL; an error of its own says nothing."""
    app = application(urls=lambda _path: Response("<html>", status))

    with serving(app) as url:
        check = asked_at(
            url,
            "input.strange-urls",
            identity="X-Request-ID",
            error_fields=["error.code"],
        )

    assert check.passed is passed, check


def test_a_socket_that_is_refused_fails() -> None:
    async def refused(channel: WebSocket) -> None:
        await channel.close()

    app = application(socket=refused)

    check = ask(app, "websocket-frames", websocket={"path": "/ws"})

    assert check.passed is False
    assert check.observed == "403"


def described() -> Starlette:
    """Return a service with a description, and a fault behind a large number."""

    async def item(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            METHODS.append(request.method)
        if len(request.query_params.get("size", "")) > 3:
            return refusal(500)
        return JSONResponse({})

    parameter = {"name": "size", "in": "query", "schema": {"type": "integer"}}
    answers = {"200": {"description": "right"}, "422": {"description": "wrong"}}
    operation = {"parameters": [parameter], "responses": answers}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "items", "version": "1"},
        "paths": {"/items": {"get": operation, "delete": operation}},
    }

    async def description(_request: Request) -> Response:
        return JSONResponse(document)

    async def version(_request: Request) -> Response:
        return JSONResponse({"version": "1"})

    every = ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"]
    return Starlette(
        routes=[
            Route("/openapi.json", description),
            Route("/health", version),
            Route("/items", item, methods=every),
        ]
    )


METHODS: list[str] = []


def test_a_fault_behind_a_described_parameter_is_noticed() -> None:
    """Requests are made up, with GET alone: nothing is destroyed."""
    asked = {"path": "/openapi.json", "time": "10m"}
    check = ask(described(), "openapi", openapi=asked)

    assert check.passed is False, check
    assert "failure" in check.observed
    assert METHODS == []


def test_a_description_that_is_missing_fails() -> None:
    check = ask(application(), "openapi", openapi={"path": "/openapi.json"})

    assert check.passed is False
    assert check.observed == "404"


def test_without_schemathesis_nothing_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openapi, "find_spec", lambda _name: None)

    check = ask(application(), "openapi", openapi={"path": "/openapi.json"})

    assert check.passed is None
    assert check.detail == "schemathesis is not installed"
