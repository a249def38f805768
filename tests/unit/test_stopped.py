"""A run of probes that ends early: nothing waits for an answer any more."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from opskit.config.smoke import SmokeSettings
from opskit.config.watch import SloSettings
from opskit.operations.smoke import families
from opskit.probes import tls
from opskit.probes.probe import Inconclusive
from opskit.probes.session import Counter, Session, Target
from opskit.tasks.signals import run_handlers_soon
from tests.listening import listening

# So long an answer is waited for where nothing ends the run.
_SECONDS = 120.0
SLO = SloSettings(error_rate=0.1)


@pytest.fixture
def silent() -> Iterator[tuple[str, threading.Event]]:
    """The address of a service that answers nothing, and what is set once asked."""
    asked = threading.Event()

    def respond(connection: socket.socket, head: bytes, ended: threading.Event) -> None:
        asked.set()
        ended.wait(_SECONDS)

    with listening(respond) as address:
        yield f"http://{address}", asked


@contextmanager
def _soon() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < _SECONDS / 2, "it waited for the answer"


def _request(session: Session) -> None:
    session.get("/")


def _stream(session: Session) -> None:
    with session.stream("/"):
        pytest.fail("it was opened")


def _websocket(session: Session) -> None:
    with session.websocket("/"):
        pytest.fail("it was opened")


def _handshake(session: Session) -> None:
    tls._greet(session, ssl.create_default_context())


@pytest.mark.parametrize("ask", [_request, _stream, _websocket, _handshake])
def test_what_is_connected_as_the_run_ends_is_cut(
    silent: tuple[str, threading.Event], ask: Callable[[Session], None]
) -> None:
    """The end comes after it was seen that there was none, before the connection."""

    class Ending(Counter):
        def add(self) -> None:
            target.stop()

    target = Target(url=silent[0], timeout_seconds=_SECONDS, requests=Ending())

    with _soon(), Session(target) as session, pytest.raises(Inconclusive):
        ask(session)


@pytest.mark.parametrize("ask", [_request, _stream, _websocket])
def test_what_waits_for_an_answer_is_cut(
    silent: tuple[str, threading.Event], ask: Callable[[Session], None]
) -> None:
    """Whatever kind of connection it is."""
    url, asked = silent
    target = Target(url=url, timeout_seconds=_SECONDS)

    def end() -> None:
        asked.wait(_SECONDS)
        target.stop()

    threading.Thread(target=end, daemon=True).start()

    with _soon(), Session(target) as session, pytest.raises(Inconclusive):
        ask(session)
    assert not target.handles


@pytest.mark.parametrize(
    ("family", "section"),
    [
        ("latency", {"path": "/", "requests": 100}),
        ("load", {"rate": 1, "duration": "1s", "requests": [{"path": "/"}]}),
        ("webhooks", {"incoming": {"path": "/", "document": {"type": "{id}"}}}),
    ],
)
def test_an_interrupt_ends_a_probe_that_asks_in_several_threads(
    silent: tuple[str, threading.Event],
    tmp_path: Path,
    family: str,
    section: dict[str, Any],
) -> None:
    """It does not wait for the answers, which take minutes."""
    url, asked = silent
    if family == "webhooks":
        (tmp_path / "key").write_text("whsec_" + "A" * 32)
        (tmp_path / "key").chmod(0o600)
        section["incoming"] |= {"secret_file": str(tmp_path / "key")}
    settings = SmokeSettings.model_validate({"url": url, family: section})
    probe = families(settings, SLO)[family][-1]
    target = Target(url=url, timeout_seconds=_SECONDS)
    _interrupt_when(asked)

    run_handlers_soon()
    # The background jobs of a shell begin with it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _soon(), Session(target) as session, pytest.raises(KeyboardInterrupt):
            probe.ask(session)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt_when(asked: threading.Event) -> None:
    def interrupt() -> None:
        asked.wait(_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
