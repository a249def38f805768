"""The web server, asked by real clients, some of them slow, rude or many."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from limits import RateLimitItemPerHour

from opskit import log
from opskit.checks import Health
from opskit.config import Settings
from opskit.errors import ConfigurationError
from opskit.operations.run import Run
from opskit.watch import metrics, web
from opskit.watch.gathering import Watch
from opskit.watch.state import Room, State, StoreState
from tests.unit import states

KEY = "a-key-that-nobody-guesses"
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": web._HEADERS["Content-Security-Policy"],
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_SECONDS = 60


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document."""
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document


class Site:
    """A running server and what asks it."""

    def __init__(self, serving: web.Serving) -> None:
        self.address = serving.address
        self._server = serving._server

    @property
    def connections(self) -> set[Any]:
        """The connections that are open."""
        return self._server.server_state.connections

    @property
    def is_timed(self) -> bool:
        """Whether there is a connection whose time runs."""
        return any(each._limit is not None for each in list(self.connections))

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask over a connection of its own; `_` in a header's name means `-`."""
        client = http.client.HTTPConnection(*self.address, timeout=_SECONDS)
        with contextlib.closing(client):
            fields = {name.replace("_", "-"): each for name, each in headers.items()}
            client.request(method, path, headers=fields)
            got = client.getresponse()
            answered = {name.lower(): each for name, each in got.getheaders()}
            return Answer(got.status, answered, got.read())

    def send(self, *pieces: bytes) -> bytes:
        """Send bytes as they are, and return all that comes before the end."""
        with self.connected() as client:
            for piece in pieces:
                client.sendall(piece)
            return b"".join(iter(lambda: client.recv(65536), b""))

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """Yield a bare connection."""
        with socket.create_connection(self.address, timeout=_SECONDS) as client:
            yield client


class Stopped(Run):
    """A run at the time of the states."""

    def now(self) -> Any:
        """Return the time of the states."""
        return states.NOW


Serve = Callable[..., Site]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Return a function that serves a state; with a key only if it is given one."""
    # A test that tries the limit sets it: other requests may be slow.
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 10.0 * _SECONDS)
    with contextlib.ExitStack() as stack:

        def start(
            state: State | None = None, *, key: str = "", **scheduler: Any
        ) -> Site:
            settings = {"listen": "127.0.0.1:0", **scheduler}
            if key:
                path = tmp_path / "key"
                path.write_text(f"{key}\n")
                path.chmod(0o600)
                settings["api_key_file"] = path
            run = Stopped(Settings.model_validate({"scheduler": settings}))
            shown = states.well() if state is None else state
            watch = Watch(lambda: shown, interval_seconds=_SECONDS)
            stack.callback(watch.stop)
            wait_for(lambda: watch.state is not None)
            serving = web.serve(run, watch)
            stack.callback(serving.stop)
            return Site(serving)

        yield start


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + _SECONDS
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_without_a_key_health_is_the_bare_status(serve: Serve) -> None:
    """Also where no key is set: nobody learns what is wrong, or what there is."""
    for site in (serve(), serve(key=KEY)):
        answer = site.ask("/health")

        assert answer.status == 200
        assert answer.document == {
            "status": "healthy",
            "time": states.NOW.isoformat(),
        }


def test_with_the_key_health_says_everything(serve: Serve) -> None:
    """The checks have the fields of `status --json`."""
    document = serve(key=KEY).ask("/health", X_API_Key=KEY).document

    assert set(document) == {"status", "time", "version", "uptime_seconds", "checks"}
    assert len(document["checks"]) > 5
    assert all(
        set(each) == {"name", "status", "observed", "limit", "hint"}
        for each in document["checks"]
    )


@pytest.mark.parametrize("path", ["/", "/metrics", "/page.css", "/nothing"])
def test_everything_else_needs_the_key(serve: Serve, path: str) -> None:
    """What exists and what does not is not to be told apart without it."""
    site = serve(key=KEY)

    assert site.ask(path).status == 401
    assert site.ask(path, X_API_Key=KEY + "x").status == 401
    assert site.ask(path, X_API_Key=KEY).status in (200, 404)


@pytest.mark.parametrize("key", ["wrong", "", "ä", KEY[:-1]])
def test_a_wrong_key_is_refused_for_health_too(serve: Serve, key: str) -> None:
    """Whoever sends one should notice that it is wrong."""
    answer = serve(key=KEY).ask("/health", X_API_Key=key)

    assert answer.status == 401
    assert "checks" not in answer.document


def test_browsers_and_prometheus_send_the_key_as_a_password(serve: Serve) -> None:
    """They cannot send headers of their own, or only lately."""
    site = serve(key=KEY)

    right = base64.b64encode(f"anybody:{KEY}".encode()).decode()
    wrong = base64.b64encode(b"anybody:else").decode()

    assert site.ask("/metrics", Authorization=f"Basic {right}").status == 200
    refused = site.ask("/metrics", Authorization=f"Basic {wrong}")
    assert refused.status == 401
    assert refused.headers["www-authenticate"] == 'Basic realm="opskit"'
    assert site.ask("/metrics", Authorization="Basic !!").status == 401
    assert site.ask("/metrics", Authorization=f"Bearer {KEY}").status == 401


def test_without_a_key_only_names_of_this_host_are_answered(serve: Serve) -> None:
    """A page that has its own name point here learns nothing."""
    site = serve()

    for name in ("localhost", "127.0.0.1:1", "[::1]:8321", "[::1]"):
        assert site.ask("/metrics", Host=name).status == 200
    for name in ("evil.example:8321", "127.0.0.1.evil.example", "localhost@evil", ""):
        assert site.ask("/metrics", Host=name).status == 421


def test_it_does_not_listen_beyond_loopback_without_a_key(serve: Serve) -> None:
    """With one it does."""
    with pytest.raises(ConfigurationError, match="no key") as refused:
        serve(listen="0.0.0.0:0")

    assert "api_key_file" in refused.value.hint
    assert serve(listen="0.0.0.0:0", key=KEY).ask("/health").status == 200


def test_a_port_in_use_and_a_bad_address_are_named(serve: Serve) -> None:
    """Nothing is served, and the error says what to change."""
    port = serve().address[1]

    with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port} cannot be used"):
        serve(listen=f"127.0.0.1:{port}")
    with pytest.raises(ConfigurationError, match="is not an address"):
        serve(listen="no-such-host.invalid:1")


@pytest.mark.parametrize(
    ("state", "code", "status"),
    [
        (states.well(), 200, Health.HEALTHY),
        (replace(states.well(), memory=Room(name="memory", free_bytes=1,
         total_bytes=1000)), 200, Health.DEGRADED),
        (states.sick(), 503, Health.UNHEALTHY),
        (replace(states.well(), time=states.NOW - timedelta(hours=1)), 503,
         Health.UNHEALTHY),
    ],
    ids=["healthy", "degraded", "unhealthy", "old"],
)  # fmt: skip
def test_health_is_in_the_code_of_the_answer(
    serve: Serve, state: State, code: int, status: Health
) -> None:
    """A state that is not gathered any more is unhealthy, whatever it says."""
    answer = serve(state).ask("/health")

    assert (answer.status, answer.document["status"]) == (code, status)
    assert serve(state).ask("/health", method="HEAD").status == code


def test_metrics_of_a_state_that_became_old_say_so(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is gathered any more: the same figures come with another health."""
    site = serve()
    assert b"opskit_health_status 0.0" in site.ask("/metrics").body

    later = states.NOW + timedelta(hours=1)
    monkeypatch.setattr(Stopped, "now", lambda _run: later)

    assert b"opskit_health_status 2.0" in site.ask("/metrics").body
    monkeypatch.undo()
    assert b"opskit_health_status 0.0" in site.ask("/metrics").body


def test_before_the_first_state_nothing_is_claimed(serve: Serve) -> None:
    """Health is unhealthy, and there are no metrics."""
    run = Stopped(Settings.model_validate({"scheduler": {"listen": "127.0.0.1:0"}}))
    watch = Watch(lambda: 1 / 0, interval_seconds=_SECONDS)  # type: ignore[arg-type, return-value]
    serving = web.serve(run, watch)
    try:
        assert Site(serving).ask("/health").status == 503
        assert Site(serving).ask("/metrics").status == 503
    finally:
        serving.stop()
        watch.stop()


RUDE = {
    "a long path": b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n",
    "a query": b"GET /?" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n",
    "a header": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 30_000 + b"\r\n",
    "headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 5000,
    "no host": b"GET / HTTP/1.1\r\n",
    "bytes": bytes(range(256)) + b"\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    "a bad length": b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
    b"Content-Length: 2\r\n",
    "a method": b"BREW / HTTP/1.1\r\nHost: localhost\r\n",
    "a parent": b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n",
    "a null": b"GET /%00%ff%fe HTTP/1.1\r\nHost: localhost\r\n",
    "an upgrade": b"GET /no HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\n"
    b"Upgrade: websocket\r\n",
}  # fmt: skip


@pytest.mark.parametrize("request_", RUDE.values(), ids=RUDE)
def test_absurd_requests_get_an_error_with_every_header(
    serve: Serve, request_: bytes
) -> None:
    """The error is the client's, and the server goes on."""
    site = serve()

    # In one piece: what arrives after the end of a connection resets it.
    answer = site.send(request_ + b"Connection: close\r\n\r\n")

    head = answer.partition(b"\r\n\r\n")[0].decode().lower()
    assert head.startswith("http/1.1 4")
    for name, value in HEADERS.items():
        assert f"{name}: {value.lower()}" in head
    assert "server:" not in head
    assert site.ask("/health").status == 200


def test_a_path_of_megabytes_is_not_read(serve: Serve) -> None:
    """The connection ends, before or after an answer."""
    site = serve()

    with contextlib.suppress(ConnectionError):
        answer = site.send(b"GET /" + b"x" * 20_000_000 + b" HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 4")

    assert site.ask("/health").status == 200


def test_a_fault_of_our_own_is_an_error_with_every_header_too(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client does not learn what it was; the log and error tracking do."""
    tracked: list[BaseException] = []

    def render(*_arguments: object) -> bytes:
        raise ValueError("a secret of ours")

    monkeypatch.setattr(metrics, "render", render)
    monkeypatch.setattr(web, "capture", tracked.append)
    log.configure(run_id="0123", form="json")
    site = serve()

    answer = site.ask("/metrics")

    assert answer.status == 500
    assert HEADERS.items() <= answer.headers.items()
    assert b"secret" not in answer.body
    assert "a secret of ours" in capfd.readouterr().err
    wait_for(lambda: bool(tracked))
    assert isinstance(tracked[0], ValueError)


def test_a_client_that_sends_a_byte_now_and_then_is_cut_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not keep its connection, however it goes on, and others are answered."""
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 1.0)
    site = serve()

    with site.connected() as slow:
        wait_for(lambda: site.is_timed or not _can_send(slow, b"G"))
        # Others, and what would renew the time of this one, have more.
        monkeypatch.setattr(web, "_REQUEST_SECONDS", 10.0 * _SECONDS)

        def goes_on() -> bool:
            assert site.ask("/health").status == 200
            return _can_send(slow, b"G")

        wait_for(lambda: not goes_on())


def test_a_body_without_end_is_cut_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads it."""
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 1.0)
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"

    with serve().connected() as endless:
        _can_send(endless, head + b"\r\n")
        wait_for(lambda: not _can_send(endless, b"5\r\nhello\r\n"))


def _can_send(client: socket.socket, piece: bytes) -> bool:
    try:
        client.sendall(piece)
    except ConnectionError:
        return False
    return True


def test_a_connection_may_be_used_again_and_again(serve: Serve) -> None:
    """The time for a request begins anew with each one."""
    site = serve()
    client = http.client.HTTPConnection(*site.address, timeout=_SECONDS)
    with contextlib.closing(client):
        client.connect()
        wait_for(lambda: len(site.connections) == 1)
        (used,) = site.connections
        first = used._limit.when()
        client.request("GET", "/health")
        assert client.getresponse().read()

        wait_for(lambda: used._limit.when() > first)


def test_idle_connections_do_not_keep_others_out(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are only so many at once; those that do nothing end soon."""
    monkeypatch.setattr(web, "connections_max", lambda: 5)
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 3.0)
    site = serve()

    with contextlib.ExitStack() as stack:

        def is_full() -> bool:
            # Some of those before may have ended while this machine was busy.
            stack.close()
            wait_for(lambda: not site.connections)
            for _ in range(5):
                stack.enter_context(site.connected())
            return not _answers(site)

        wait_for(is_full)
        wait_for(lambda: _answers(site))


def _answers(site: Site) -> bool:
    try:
        return site.ask("/health").status == 200
    except (OSError, http.client.HTTPException):
        return False


CROWD = """
import asyncio, collections, json, sys
host, port = sys.argv[1], int(sys.argv[2])
async def one():
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /health HTTP/1.1\\r\\nHost: localhost\\r\\n"
                     b"Connection: close\\r\\n\\r\\n")
        answer = await reader.read()
        writer.close()
        return answer.split(b" ")[1].decode() if answer else "closed"
    except OSError:
        return "closed"
async def main():
    answers = await asyncio.wait_for(
        asyncio.gather(*(one() for _ in range(1000))), 60)
    print(json.dumps(collections.Counter(answers)))
asyncio.run(main())
"""


def test_a_thousand_requests_at_once_are_answered_or_refused(serve: Serve) -> None:
    """None waits for ever, none breaks the server."""
    site = serve()

    crowd = subprocess.run(
        [sys.executable, "-c", CROWD, *map(str, site.address)],
        capture_output=True,
        text=True,
        timeout=2 * _SECONDS,
        check=False,
    )

    assert crowd.returncode == 0, crowd.stderr
    answers = json.loads(crowd.stdout)
    assert sum(answers.values()) == 1000
    assert set(answers) <= {"200", "429", "503", "closed"}
    assert answers["200"] > 100
    wait_for(lambda: _answers(site))


def test_who_asks_too_often_is_told_to_wait(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says for how long."""
    monkeypatch.setattr(web, "_REQUESTS_PER_SECOND", 2)
    site = serve()

    answers: list[Answer] = []

    def refused() -> bool:
        answers.append(site.ask("/health"))
        return answers[-1].status == 429

    wait_for(refused)

    assert answers[0].status == 200
    assert answers[-1].headers["retry-after"] == "1"
    assert HEADERS.items() <= answers[-1].headers.items()
    wait_for(lambda: site.ask("/health").status == 200)


def test_the_page_may_be_asked_for_less_often(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making it takes long: one client must not keep a processor busy with it."""
    monkeypatch.setattr(web, "_REQUESTS_PER_SECOND", 10 * web._PAGE_COUNTS_AS)
    monkeypatch.setattr(web, "RateLimitItemPerSecond", RateLimitItemPerHour)
    site = serve()

    # An hour may begin anew meanwhile, once.
    pages = [site.ask("/?source=shop").status for _ in range(25)]

    assert pages[0] == 200
    assert 429 in pages
    site = serve()
    assert {site.ask("/health").status for _ in range(25)} == {200}


def test_pages_of_other_origins_read_nothing_unless_they_are_listed(
    serve: Serve,
) -> None:
    """A listed one may also send the key, for which browsers ask beforehand."""
    alien, listed = "https://alien.example", "https://board.example"
    site = serve(key=KEY, allowed_origins=[listed])
    allowed = "access-control-allow-origin"
    asking = {
        "Access_Control_Request_Method": "GET",
        "Access_Control_Request_Headers": "x-api-key",
    }

    assert allowed not in serve(key=KEY).ask("/health", Origin=listed).headers
    assert allowed not in site.ask("/health", Origin=alien).headers
    assert site.ask("/health", Origin=listed).headers[allowed] == listed
    assert site.ask("/health", "OPTIONS", Origin=listed, **asking).status == 200
    assert site.ask("/health", "OPTIONS", Origin=alien, **asking).status == 400


def test_without_a_key_not_every_origin_is_allowed(serve: Serve) -> None:
    """Any web page could read what a browser on this host may ask for."""
    with pytest.raises(ValueError, match="allowed_origins: \\* lets every web page"):
        serve(allowed_origins=["*"])

    answer = serve(key=KEY, allowed_origins=["*"]).ask("/health", Origin="https://a.b")
    assert answer.headers["access-control-allow-origin"] == "*"


def test_what_browsers_ask_beforehand_is_limited_too(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no key, so anybody can ask it."""
    monkeypatch.setattr(web, "_REQUESTS_PER_SECOND", 5)
    monkeypatch.setattr(web, "RateLimitItemPerSecond", RateLimitItemPerHour)
    site = serve(key=KEY, allowed_origins=["https://board.example"])
    asking = {
        "Origin": "https://board.example",
        "Access_Control_Request_Method": "GET",
    }

    statuses = [site.ask("/health", "OPTIONS", **asking).status for _ in range(12)]

    assert statuses[0] == 200
    assert 429 in statuses


def test_secrets_in_what_a_store_says_are_masked(serve: Serve) -> None:
    """Its own words go to clients with the key."""
    log.hide("s3cr3t-canary")
    bad = StoreState(name="local", error="denied to user s3cr3t-canary")
    site = serve(replace(states.well(), stores=(bad,)), key=KEY)

    answer = site.ask("/health", X_API_Key=KEY)

    assert b"denied to user ***" in answer.body
    assert b"canary" not in answer.body


def test_two_states_are_not_mixed_up(serve: Serve) -> None:
    """What was made of one state is not shown with another."""
    shown = [states.sick(), states.well()]
    run = Stopped(Settings.model_validate({"scheduler": {"listen": "127.0.0.1:0"}}))
    watch = Watch(lambda: shown.pop(0) if len(shown) > 1 else shown[0])
    wait_for(lambda: watch.state is not None)
    serving = web.serve(run, watch)
    site = Site(serving)
    try:
        assert site.ask("/health").status == 503
        assert b"opskit_health_status 2.0" in site.ask("/metrics").body

        watch.refresh()

        wait_for(lambda: site.ask("/health").status == 200)
        assert b"opskit_health_status 0.0" in site.ask("/metrics").body
    finally:
        serving.stop()
        watch.stop()
