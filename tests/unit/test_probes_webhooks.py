"""The probes of webhooks: a right service passes, and each wrong one fails."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from urllib3 import HTTPHeaderDict

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.config.webhooks import SignatureSettings
from opskit.errors import ConfigurationError
from opskit.probes.listener import Delivery, Listener
from opskit.probes.probe import WrongAnswer
from opskit.probes.session import Session, Target
from opskit.probes.signatures import Scheme
from tests.asgi import serving
from tests.ports import free_port
from tests.unit.probed import asked_at, named

SECRET = b"secret-of-webhooks"
TOLERANCE_SECONDS = 300


def signature(time: str, body: bytes, secret: bytes = SECRET) -> str:
    """Return the right signature."""
    signed = f"{time}.".encode() + body
    return "v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()


def refusal(status: int) -> Response:
    """Return a clean refusal."""
    return JSONResponse({"error": {"code": "refused"}}, status)


@dataclass
class Incoming:
    """A service that takes webhooks; each field may be spoiled."""

    right: Callable[[str, str, bytes], bool] = lambda told, time, body: (
        hmac.compare_digest(told, signature(time, body))
    )
    old_seconds: float = TOLERANCE_SECONDS
    ahead_seconds: float = TOLERANCE_SECONDS
    forged: int = 401
    malformed: int = 400
    unknown: int = 422
    conflict: int = 409
    remembers: bool = True
    remembers_signatures: bool = True
    remembers_bodies: bool = True
    remembers_forged: bool = False
    atomic: bool = True
    seen: dict[str, bytes] = field(default_factory=dict)
    signatures: set[str] = field(default_factory=set)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def take(self, id: str, time_: str, told: str, body: bytes) -> Response:
        """Take a webhook."""
        age = time.time() - int(time_ or 0)
        is_right = self.right(told, time_, body)
        if not is_right or age > self.old_seconds or -age > self.ahead_seconds:
            if self.remembers_forged:
                self.seen[id] = body
            return refusal(self.forged)
        try:
            document = json.loads(body)
        except ValueError:
            return refusal(self.malformed)
        if document.get("type") != "ping":
            return refusal(self.unknown)
        if not self.remembers:
            return JSONResponse({"status": "accepted"}, 202)
        known = self.seen.get(id)
        if not self.atomic:
            time.sleep(2)
        if known is not None:
            if known != body and self.remembers_bodies:
                return refusal(self.conflict)
            return JSONResponse({"status": "duplicate"}, 202)
        if told in self.signatures and self.remembers_signatures:
            return refusal(self.conflict)
        self.seen[id] = body
        self.signatures.add(told)
        return JSONResponse({"status": "accepted"}, 202)

    @property
    def application(self) -> Starlette:
        """The service."""

        def post(request: Request, body: bytes) -> Response:
            headers = request.headers
            id, at, told = (
                headers.get(f"x-webhook-{name}", "")
                for name in ("id", "timestamp", "signature")
            )
            return self.take(id, at, told, body)

        async def incoming(request: Request) -> Response:
            body = await request.body()
            if self.atomic:
                with self.guard:
                    return post(request, body)
            return await run_in_threadpool(post, request, body)

        return Starlette(routes=[Route("/incoming", incoming, methods=["POST"])])


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """The file of the secret."""
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


def ask(service: Incoming, secret: Path, name: str, **wanted: Any) -> Check:
    """Ask a probe of incoming webhooks."""
    given = {
        "path": "/incoming",
        "document": {"type": "ping", "note": "{id}"},
        "other": {"type": "ping", "note": "other"},
        "unknown": {"type": "unknown"},
        "secret_file": str(secret),
    }
    with serving(service.application) as url:
        return asked_at(
            url,
            f"webhooks.incoming-{name}",
            webhooks={"incoming": given | wanted},
            error_fields=["error.code"],
        )


@pytest.mark.parametrize("name", ["signature", "malformed", "replayed", "duplicate"])
def test_a_service_that_takes_webhooks_rightly_passes(name: str, secret: Path) -> None:
    check = ask(Incoming(), secret, name)

    assert check.passed, check


@pytest.mark.parametrize(
    ("service", "shown"),
    [
        (Incoming(right=lambda *_: True), "another secret"),
        (
            Incoming(right=lambda told, at, body: told in ("", signature(at, body))),
            "no signature",
        ),
        (
            Incoming(
                right=lambda told, at, body: (
                    bool(told) and signature(at, body).startswith(told)
                )
            ),
            "a signature cut short",
        ),
        (
            Incoming(right=lambda told, at, body: told == signature(at, body.strip())),
            "other bytes",
        ),
        (Incoming(old_seconds=10**9), "an old one"),
        (Incoming(ahead_seconds=10**9), "one of the future"),
        (Incoming(forged=500), "no signature: 500"),
        (Incoming(forged=200), "no signature: 200"),
        (Incoming(right=lambda *_: False), "a right one"),
        (Incoming(remembers_forged=True), "a right one"),
    ],
    ids=[
        "not checked",
        "missing one accepted",
        "beginning suffices",
        "parsed",
        "age not checked",
        "future not checked",
        "500",
        "200",
        "all refused",
        "a forged one uses up the id",
    ],
)
def test_a_signature_that_is_not_checked_rightly_fails(
    service: Incoming, shown: str, secret: Path
) -> None:
    check = ask(service, secret, "signature")

    assert check.passed is False
    assert shown in check.observed


@pytest.mark.parametrize(
    ("service", "shown"),
    [
        (Incoming(malformed=500), "no JSON: 500"),
        (Incoming(malformed=202), "no JSON: 202"),
        (Incoming(unknown=202), "an unknown type: 202"),
        (Incoming(unknown=500), "an unknown type: 500"),
    ],
)
def test_a_malformed_delivery_that_is_not_refused_fails(
    service: Incoming, shown: str, secret: Path
) -> None:
    check = ask(service, secret, "malformed")

    assert check.passed is False
    assert shown in check.observed


@pytest.mark.parametrize(
    ("service", "shown"),
    [
        (Incoming(remembers_signatures=False), "the signature under another id"),
        (Incoming(remembers_bodies=False), "the id with another body: duplicate"),
        (Incoming(remembers=False), "the id with another body: accepted"),
        (Incoming(conflict=500), "500"),
    ],
    ids=["signatures", "bodies", "nothing", "500"],
)
def test_a_replay_that_is_accepted_fails(
    service: Incoming, shown: str, secret: Path
) -> None:
    check = ask(service, secret, "replayed")

    assert check.passed is False
    assert shown in check.observed


@pytest.mark.parametrize(
    "service",
    [Incoming(remembers=False), Incoming(atomic=False, remembers_signatures=False)],
    ids=["nothing remembered", "looked up before it is remembered"],
)
def test_a_duplicate_that_is_processed_twice_fails(
    service: Incoming, secret: Path
) -> None:
    check = ask(service, secret, "duplicate")

    assert check.passed is False
    assert "5 at once" in check.observed


def recorded_in(record: Path, secret: Path) -> dict[str, Any]:
    """Return the settings of incoming webhooks whose deliveries are on record."""
    return {
        "path": "/incoming",
        "document": {"type": "ping", "note": "{id}"},
        "secret_file": str(secret),
        "record": str(record),
    }


def test_a_service_that_forgets_at_a_restart_fails(
    secret: Path, tmp_path: Path
) -> None:
    record, service = tmp_path / "record.json", Incoming()
    settings = recorded_in(record, secret)
    with serving(service.application) as url:

        def check() -> Check:
            name, wanted = "webhooks.incoming-duplicate", {"incoming": settings}
            return asked_at(url, name, webhooks=wanted)

        assert check().passed
        assert check().passed, "it is known"
        assert "ping" not in record.read_text()

        service.seen.clear()
        service.signatures.clear()
        forgotten = check()

    assert forgotten.passed is False
    assert forgotten.observed == "accepted"
    assert forgotten.expected == "a delivery of the run before is a duplicate"


def test_what_another_version_forgot_is_not_held_against_this_one(
    secret: Path, tmp_path: Path
) -> None:
    """What was processed twice counts until the runner says who may have done so."""
    incoming = recorded_in(tmp_path / "record.json", secret)
    service, name = Incoming(), "webhooks.incoming-duplicate"
    settings = SmokeSettings.model_validate({"webhooks": {"incoming": incoming}})
    with serving(service.application) as url:
        target = Target(url=url, timeout_seconds=60)
        probe = named(settings, name)

        def ask() -> Check:
            with Session(target) as session:
                return probe.ask(session)

        assert ask().passed
        service.seen.clear()
        service.signatures.clear()
        for _ in range(2):
            with pytest.raises(WrongAnswer):
                ask()
        target.doubts.add()

        assert ask().passed


def test_a_record_that_cannot_be_read_is_not_taken_for_a_first_run(
    secret: Path, tmp_path: Path
) -> None:
    incoming = recorded_in(tmp_path, secret)
    with serving(Incoming().application) as url:
        check = asked_at(
            url, "webhooks.incoming-duplicate", webhooks={"incoming": incoming}
        )

    assert check.passed is None
    assert f"{tmp_path} cannot be read: Is a directory" in check.detail


@dataclass
class Outgoing:
    """A service that delivers a webhook after an action; each field may be spoiled."""

    url: str
    times: int = 1
    key: bytes = SECRET
    signed: Callable[[bytes], bytes] = lambda body: body
    change: Callable[[dict[str, str]], object] = lambda _headers: None
    at: Callable[[float], str] = lambda now: str(int(now))
    status: int = 201

    @property
    def application(self) -> Starlette:
        """The service."""

        async def act(request: Request) -> Response:
            cause = request.headers["x-request-id"]
            threading.Thread(target=self._deliver, args=(cause,), daemon=True).start()
            return JSONResponse({}, self.status, {"X-Request-ID": cause})

        return Starlette(routes=[Route("/act", act, methods=["POST"])])

    def _deliver(self, cause: str) -> None:
        self._send("somebody-else", "7")
        for number in range(self.times):
            self._send(cause, str(number))

    def _send(self, cause: str, id: str) -> None:
        body, at = b'{"type": "task.created"}', self.at(time.time())
        headers = {
            "X-Request-ID": cause,
            "X-Webhook-ID": id,
            "X-Webhook-Timestamp": at,
            "X-Webhook-Signature": signature(at, self.signed(body), self.key),
        }
        self.change(headers)
        request = urllib.request.Request(self.url, body, headers, method="POST")
        # The listener may have gone when it has seen enough.
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(request, timeout=30) as answer,
        ):
            answer.read()


def deliver(secret: Path, **spoiled: Any) -> Check:
    """Ask the probe of outgoing webhooks."""
    port = free_port()
    service = Outgoing(f"http://127.0.0.1:{port}/", **spoiled)
    wanted = {
        "path": "/act",
        "document": {"title": "made by a test"},
        "listen": f"127.0.0.1:{port}",
        "secret_file": str(secret),
        "wait": "5s" if spoiled else "60s",
    }
    with serving(service.application) as url:
        return asked_at(url, "webhooks.outgoing", webhooks={"outgoing": wanted})


def test_a_delivery_that_is_signed_passes(secret: Path) -> None:
    check = deliver(secret)

    assert check.passed, check


def header(name: str, value: str | None) -> Callable[[dict[str, str]], object]:
    """Change a header of the delivery, or leave it out."""

    def change(headers: dict[str, str]) -> None:
        headers.pop(name)
        if value is not None:
            headers[name] = value

    return change


@pytest.mark.parametrize(
    ("spoiled", "shown"),
    [
        ({"times": 0}, "1 without it"),
        ({"times": 2}, "a second one under another id"),
        ({"status": 500}, "500"),
        ({"key": b"x" + SECRET}, "not that of the body"),
        ({"signed": lambda body: body.replace(b" ", b"")}, "not that of the body"),
        ({"signed": lambda _body: b""}, "not that of the body"),
        ({"at": lambda now: str(int(now * 1000))}, "s from now"),
        ({"at": lambda now: str(int(now - 3600))}, "a timestamp 36"),
        ({"at": lambda now: f"{now:.3f}"}, "no timestamp"),
        ({"change": header("X-Webhook-Timestamp", None)}, "no timestamp"),
        ({"change": header("X-Webhook-Signature", None)}, "no signature"),
        ({"change": header("X-Webhook-Signature", "v0=00")}, "another form"),
        ({"change": header("X-Webhook-ID", None)}, "no X-Webhook-ID"),
        ({"change": header("X-Request-ID", None)}, "2 without it"),
        ({"change": header("X-Request-ID", "another")}, "2 without it"),
    ],
)
def test_a_delivery_that_is_not_right_fails(
    spoiled: dict[str, Any], shown: str, secret: Path
) -> None:
    check = deliver(secret, **spoiled)

    assert check.passed is False
    assert shown in check.observed


@pytest.mark.parametrize(
    ("settings", "header", "value"),
    [
        (
            {"header": "X-Hub-Signature-256", "form": "sha256={signature}"}
            | {"signed": "{body}", "timestamp_header": "", "id_header": ""},
            "X-Hub-Signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ),
    ],
)
def test_the_scheme_of_a_known_sender_is_understood(
    settings: dict[str, Any], header: str, value: str
) -> None:
    """GitHub's documentation gives this secret, body and signature."""
    scheme = Scheme(
        settings=SignatureSettings(**settings), secret=b"It's a Secret to Everybody"
    )

    assert scheme.headers(b"Hello, World!", id="", time=0) == {header: value}
    assert scheme.fault({header: value}, b"Hello, World!", now=0) == ""
    assert scheme.fault({header: value}, b"Hello, World?", now=0) != ""


def test_a_time_inside_the_signature_is_understood() -> None:
    settings = SignatureSettings(
        form="t={timestamp},v1={signature}",
        timestamp_header="",
        id_header="",
        encoding="base64",
        algorithm="sha512",
    )
    scheme = Scheme(settings=settings, secret=SECRET)
    headers = scheme.headers(b"{}", id="", time=1000)

    assert scheme.fault(headers, b"{}", now=1100) == ""
    assert scheme.fault(headers, b"{}", now=2000) == "a timestamp 1000 s from now"


def test_a_secret_is_needed(secret: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"outgoing\.secret_file is missing"):
        asked_at(
            "http://127.0.0.1:9",
            "webhooks.outgoing",
            webhooks={"outgoing": {"path": "/act"}},
        )


def test_a_delivery_that_is_looked_at_late_is_not_lost() -> None:
    """It came in time, while this machine was too busy to look."""
    came: SimpleQueue[Delivery] = SimpleQueue()
    came.put(Delivery(headers=HTTPHeaderDict(), body=b"{}", time=time.time()))

    assert len(list(Listener(came).until(time.monotonic() - 1))) == 1
