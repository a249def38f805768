"""The turn of a fleet's job: read from what its worker says, and asked for in time."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime

import pytest

from opskit.config.fleet import FleetSettings
from opskit.errors import UsageError
from opskit.operations import turn as turns
from opskit.operations.turn import Turn, read_turn

DUE = datetime(2026, 3, 10, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        ("", None),
        (
            '{"due": "2026-03-10T03:00:00Z", "job": 7, "attempt": 1, "worker": 2}',
            Turn(due=DUE, job=7, attempt=1, worker=2),
        ),
        (
            '{"due": "2026-03-10T03:00:00Z", "job": null, "later": 1}',
            Turn(due=DUE, job=None),
        ),
    ],
)
def test_a_worker_says_what_its_job_is_for(text: str, turn: Turn | None) -> None:
    """Or nobody does; a later version may say more."""
    assert read_turn(text) == turn


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "{}",
        '{"due": "2026-03-10T03:00:00Z"}',
        '{"due": "2026-03-10T03:00:00"}',
        "{",
    ],
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    """A set must not be made for some other time."""
    with pytest.raises(UsageError, match="OPSKIT_TURN is not valid"):
        read_turn(text)


def test_a_queue_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes the connection, and is silent: the stores decide."""
    monkeypatch.setattr(turns, "_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        url = f"postgresql://127.0.0.1:{port}/queue"
        Turn(due=DUE, job=1).require_held(FleetSettings.model_validate({"url": url}))
        words = capsys.readouterr()
    asking = [each for each in threading.enumerate() if each.name == "turn"]
    for each in asking:
        each.join(60)

    assert "no answer in 0.2 seconds" in words.out + words.err
    assert not any(each.is_alive() for each in asking)


def test_without_a_job_there_is_nobody_to_ask(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It was started while the queue was away."""
    nowhere = FleetSettings.model_validate({"url": "postgresql:///?host=/nowhere"})

    Turn(due=DUE, job=None).require_held(nowhere)
    words = capsys.readouterr()
    Turn(due=DUE, job=1).require_held(nowhere)

    assert words.out + words.err == ""
    words = capsys.readouterr()
    assert "so the stores decide" in words.out + words.err
