"""A task that is interrupted says of what is left behind only what it knows."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_SECONDS_MAX = 180
_PROGRAM = """
import sys, time
from invoke.context import Context
from invoke.exceptions import Exit
from opskit.tasks.command import command

@command()
def slow(say):
    try:
        say("working")
        time.sleep(600)
    finally:
        say("cleaning up")
        if len(sys.argv) > 1:
            time.sleep(600)

try:
    slow(Context())
except Exit as error:
    sys.exit(error.code)
"""


@pytest.mark.parametrize(
    ("signals", "hint"),
    [
        ([signal.SIGINT], "Nothing half-done was left."),
        (
            [signal.SIGINT, signal.SIGTERM],
            "The next run removes or takes up what is left.",
        ),
    ],
)
def test_a_second_signal_is_not_called_clean(signals: list[int], hint: str) -> None:
    """It comes while the first one is being obeyed, as from GitHub after 7.5 seconds."""
    arguments = ["slowly"] if len(signals) > 1 else []
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for number in signals:
                assert process.stdout.readline()  # it has got this far
                process.send_signal(number)
            _output, errors = process.communicate(timeout=_SECONDS_MAX)
        finally:
            process.kill()

    assert process.returncode == 130
    assert f"hint: {hint}" in errors


_WAITING = """
import os, signal, sys, threading, time
from invoke.context import Context
from invoke.exceptions import Exit
from opskit.tasks.command import command

def interrupt():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)

@command()
def slow(say):
    # Another thread takes the signal, so that it does not end what this one waits in:
    # as if it had come right before.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=interrupt, daemon=True).start()
    threading.Event().wait()

try:
    slow(Context())
except Exit as error:
    sys.exit(error.code)
"""


def test_a_signal_right_before_a_wait_without_end_is_handled() -> None:
    """Otherwise the task would go on waiting, and know of no signal."""
    finished = subprocess.run(
        [sys.executable, "-c", _WAITING],
        check=False,
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
    )

    assert finished.returncode == 130
    assert finished.stderr.startswith("error: interrupted")
