"""Completion: what a shell shows and fills in when a person presses the tab key."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT
from tests.unit import stock

_SECONDS_MAX = 180
# Without a configuration of the user's or the machine's. The prompt is not what is typed
# to set it: that is shown before the shell has read it.
_SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$({})"; PS1="is""ready"'),
    "zsh": (["-f", "-i"], 'eval "$({})"; PS1="is""ready"'),
    "fish": (
        ["--no-config", "-i"],
        "{} | source; function fish_prompt; echo is''ready; end",
    ),
}


@contextmanager
def terminal(program: str, arguments: list[str], folder: Path) -> Iterator[int]:
    """Yield the terminal of a program, which is killed with the block."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", program, *arguments],
        cwd=folder,
        env={
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "dumb",
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(descriptor: int, pattern: str) -> str:
    """Return what a terminal shows, as soon as a pattern is in it."""
    shown, end = "", time.monotonic() + _SECONDS_MAX
    while not re.search(pattern, shown):
        left = end - time.monotonic()
        if left < 0 or not select.select([descriptor], [], [], left)[0]:
            raise AssertionError(f"{pattern} was not shown: {shown!r}")
        shown += os.read(descriptor, 65536).decode(errors="replace")
    return shown


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("opskit restore-d", "restore-drill "),
        ("opskit backup --databa", "--database "),
    ],
)
@pytest.mark.parametrize("shell", _SHELLS)
def test_a_shell_completes_tasks_and_flags(
    shell: str, typed: str, shown: str, tmp_path: Path
) -> None:
    """Each of the shells, with the script that opskit prints for it."""
    program = stock.program(shell)
    arguments, setting = _SHELLS[shell]
    (tmp_path / "opskit").symlink_to(ROOT / "inv")
    script = setting.format(f"opskit --print-completion-script {shell}")

    with terminal(program, arguments, tmp_path) as screen:
        os.write(screen, f"{script}\n".encode())
        read_until(screen, "isready")
        os.write(screen, f"{typed}\t".encode())

        assert read_until(screen, re.escape(shown))
