"""Runs a program until its own input ends, then ends all that the program started.

It is run as a script of its own, `supervisor.py UID GID PROGRAM …` (-1: do not change
that one). Its input is a pipe whose other end the owner holds, so that the death of the
owner ends the program as well. Processes that left their session or lost their parent
become children of this one (Linux), and are ended too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

_SET_CHILD_SUBREAPER = 36
_SET_DEATH_SIGNAL = 1
_POLL_SECONDS = 0.1
_QUIT_SECONDS_MAX = 10


def main(uid: int, gid: int, command: list[str]) -> None:
    """Run the command as described above."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _control(_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        _become(uid, gid, command)
    while not select.select([0], [], [], _POLL_SECONDS)[0]:
        if _has_ended(child):
            break
    else:
        _quit(child)
    _end_all(child)


def _become(uid: int, gid: int, command: list[str]) -> None:
    try:
        os.setsid()
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        _control(_SET_DEATH_SIGNAL, signal.SIGKILL)
        # A shell starts its background jobs with SIGQUIT ignored, which ends this one.
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execv(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _control(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _has_ended(child: int) -> bool:
    """Collect every process that has ended; return whether one of them is the child."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            if found == child:
                return True
        return False
    return True


def _quit(child: int) -> None:
    """Let the program give back what outlives a process, such as shared memory."""
    os.kill(child, signal.SIGQUIT)
    deadline = time.monotonic() + _QUIT_SECONDS_MAX
    while not _has_ended(child) and time.monotonic() < deadline:
        time.sleep(0.01)


def _end_all(child: int) -> None:
    """Kill every process below this one, round by round: orphans come to it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        with contextlib.suppress(OSError):
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
