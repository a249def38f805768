"""Signals: a handler runs soon, also if the main thread was about to wait.

Python runs handlers in the main thread, between two of its instructions. A signal that
arrives after the last look for one, and before the system call that waits, is handled
only when that call returns: for a thread that waits for an answer, in minutes. A busy
machine has such moments in one of a hundred waits.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from opskit.threads import Thread

# It ends the call that waits, and nothing else: by default every process ignores it.
_WAKE = signal.SIGURG
# After these seconds each: once the main thread waits, one is enough.
_PAUSES = (0.1, 0.4, 1.5)
_is_on = False


def run_handlers_soon() -> None:
    """Wake the main thread after each signal, from now on; it must be the caller."""
    global _is_on
    if not _is_on:
        _is_on = True
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.signal(_WAKE, lambda *_: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        Thread(_wake, reading, threading.get_ident(), name="signals")


def _wake(reading: int, main_thread: int) -> None:
    while arrived := os.read(reading, 4096):
        if set(arrived) == {_WAKE}:
            continue
        for pause in _PAUSES:
            time.sleep(pause)
            signal.pthread_kill(main_thread, _WAKE)
