"""A task that is interrupted says of what is left behind only what it knows."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_SECONDS_MAX = 60
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
