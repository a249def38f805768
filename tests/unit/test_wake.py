"""Wake: what ends a wait early, also from a signal's handler."""

from __future__ import annotations

import subprocess
import sys
import time

from opskit.threads import Wake

_SECONDS_MAX = 600
# One signal for each wait, at any moment of its begin and its end.
_PROGRAM = """
import signal
from opskit.threads import Wake

wake = Wake()
signal.signal(signal.SIGALRM, lambda *_: wake.set())
for number in range(20_000):
    signal.setitimer(signal.ITIMER_REAL, 0.00001 + number % 100 * 0.000002)
    wake.wait(0.0001)
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_a_handler_may_set_it_at_any_moment() -> None:
    """The main thread, which runs the handler, may just begin to wait, or end it."""
    finished = subprocess.run(
        [sys.executable, "-c", _PROGRAM], check=False, timeout=_SECONDS_MAX
    )

    assert finished.returncode == 0


def test_all_that_came_before_a_wait_ends_it_once() -> None:
    """Nothing that comes between two waits is lost."""
    wake = Wake()
    wake.set()
    wake.set()
    began = time.monotonic()
    wake.wait(_SECONDS_MAX)
    at_once = time.monotonic() - began
    wake.wait(0.05)

    assert at_once < _SECONDS_MAX / 2
    assert time.monotonic() - began >= 0.05
