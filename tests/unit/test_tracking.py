"""Tracking: what a server that speaks Sentry's protocol gets, and what it never gets."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from invoke.context import Context
from invoke.exceptions import Exit

from opskit import log
from opskit.errors import BackupFailed, ConfigurationError
from opskit.operations.run import Run, begin
from opskit.tasks.command import command
from opskit.tasks.output import Say
from opskit.threads import Thread
from opskit.watch import runs, tracking
from opskit.watch.tracking import capture
from tests.receivers import Receiver, receiver
from tests.unit.conftest import LoadConfig

CANARY = "canary-password-7"
MakeRun = Callable[[str], Run]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_FLUSH_SECONDS", 60.0)


@pytest.fixture
def server() -> Iterator[Receiver]:
    """A server of events; nothing is tracked after the test."""
    with receiver() as made:
        yield made
    sentry_sdk.get_global_scope().set_client(None)


@pytest.fixture
def make_run(load_config: LoadConfig, tmp_path: Path) -> MakeRun:
    """Return a function that begins a run whose errors are tracked."""
    (tmp_path / "store").mkdir()
    url = (tmp_path / "store").as_uri()

    def make_run(dsn: str) -> Run:
        text = f'[stores.local]\nurl = "{url}"\n[notify]\nsentry_dsn = "{dsn}"'
        return runs.observed(begin(load_config(text)))

    return make_run


def _dsn(server: Receiver) -> str:
    return server.url.replace("//", "//key@") + "/42"


def _raise(error: Exception) -> None:
    secret = f"{CANARY}-local"
    assert secret
    raise error


def _events(server: Receiver) -> list[dict[str, Any]]:
    """Return the events of the envelopes."""
    found = []
    for each in server.requests:
        body = gzip.decompress(each.body)
        assert CANARY.encode() not in body
        assert each.path == "/api/42/envelope/"
        assert "sentry_key=key" in each.headers["x-sentry-auth"]
        _head, kind, payload, *_rest = body.split(b"\n")
        assert json.loads(kind)["type"] == "event"
        found.append(json.loads(payload))
    return found


def test_an_operation_that_failed_is_an_event(
    server: Receiver, make_run: MakeRun
) -> None:
    """With its source and its run, and no secret."""
    run = make_run(_dsn(server))
    log.hide(CANARY)
    with run.recorded("backup", "shop") as record:
        record.begin(source="shop")
        _raise(BackupFailed(f"no entry with {CANARY}", said="Key (iban)=(DE02)"))
    with run.recorded("backup", "shop") as record:
        record.begin(source="shop")

    (event,) = _events(server)
    assert event["message"] == "backup of shop failed: no entry with ***"
    assert event["tags"] == {
        "operation": "backup",
        "source": "shop",
        "code": "40",
        "run_id": run.run_id,
    }
    assert event["level"] == "error"
    assert event["release"].startswith("opskit@")
    assert "iban" not in str(event)


def test_an_unexpected_error_is_an_event_without_data(
    server: Receiver, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its type and where it happened: no words, variables, environment, host."""
    monkeypatch.setenv("SOME_PASSWORD", f"{CANARY}-environment")
    make_run(_dsn(server))
    assert sentry_sdk.get_client().integrations == {}
    try:
        _raise(KeyError(f"{CANARY}-words"))
    except KeyError as error:
        capture(error)

    (event,) = _events(server)
    (thrown,) = event["exception"]["values"]
    assert (thrown["type"], thrown["value"]) == ("KeyError", "")
    assert thrown["stacktrace"]["frames"][-1]["function"] == "_raise"
    assert "vars" not in str(thrown)
    assert socket.gethostname() not in str(event)
    assert not {"server_name", "modules", "extra", "user"} & event.keys()


def test_an_unexpected_error_of_a_task_is_an_event(
    server: Receiver,
    make_run: MakeRun,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The person who called it sees it as ever."""
    monkeypatch.setattr("signal.signal", lambda *_arguments: None)

    @command()
    def broken(say: Say) -> None:
        make_run(_dsn(server))
        _raise(KeyError(f"{CANARY}-words"))

    with pytest.raises(Exit) as ended:
        broken(Context())

    assert ended.value.code == 1
    assert "please report it" in capsys.readouterr().err
    (event,) = _events(server)
    assert event["exception"]["values"][0]["type"] == "KeyError"


def test_a_server_that_points_elsewhere_is_not_followed(make_run: MakeRun) -> None:
    """Events go to the configured server alone."""
    with receiver() as other, receiver([307], other.url) as server:
        run = make_run(_dsn(server))
        with run.recorded("backup", "shop") as record:
            record.begin(source="shop")
            _raise(BackupFailed("no"))
        sentry_sdk.get_global_scope().set_client(None)

    assert len(server.requests) == 1
    assert other.requests == []


def test_an_address_of_another_form_is_refused_without_showing_it(
    make_run: MakeRun,
) -> None:
    """It may hold a key."""
    with pytest.raises(ConfigurationError) as raised:
        make_run(f"https://{CANARY}@/x")

    assert raised.value.exit_code == 2
    assert "notify.sentry_dsn" in raised.value.message
    assert CANARY not in str(raised.value) + str(raised.value.__cause__)


def test_many_errors_at_once_wait_in_one_thread(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of events that is silent does not collect threads."""
    answered = threading.Event()
    monkeypatch.setattr(sentry_sdk, "flush", lambda _seconds: answered.wait(120))
    with receiver([0]) as silent:
        make_run(_dsn(silent))
        waiting = [
            Thread(capture, KeyError(str(number)), name="one of many")
            for number in range(20)
        ]
        deadline = time.monotonic() + 60
        while sum(each.is_alive() for each in waiting) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert any(each.is_alive() for each in waiting)
        answered.set()
    for each in waiting:
        each.join(60)
        assert not each.is_alive()
    sentry_sdk.get_global_scope().set_client(None)


def test_a_client_that_was_replaced_ends(server: Receiver, make_run: MakeRun) -> None:
    """The configuration is read again as often as anybody wants."""
    before = _workers()
    for _ in range(5):
        make_run(_dsn(server))
        capture(KeyError("x"))
    deadline = time.monotonic() + 60
    while len(_workers() - before) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert len(_events(server)) == 5


def test_an_address_that_is_removed_gets_nothing_any_more(
    server: Receiver, make_run: MakeRun
) -> None:
    """The scheduler reads its configuration again while it runs."""
    make_run(_dsn(server))
    make_run("")
    capture(KeyError("x"))

    assert server.requests == []


def _workers() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if "sentry" in each.name}


def test_without_an_address_nothing_is_sent() -> None:
    """An unexpected error is shown, and that is all."""
    capture(KeyError("x"))
