"""Runs pg_restore and tells which entries it has loaded, while it goes on."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO

from opskit.errors import ServerFault
from opskit.masking import mask
from opskit.postgres import client

_FINISHED = re.compile(rb"pg_restore: finished item (\d+) ")
_OWN = b"pg_restore: "
_WORDS = (b"warning: ", b"error: ", b"detail: ", b"hint: ")
_WORDS_BYTES_MAX = 64 * 1024
_END_SECONDS_MAX = 10
# What it says is told from its progress by these words, so it must not translate them.
_PLAIN = {"LC_ALL": "C", "LANGUAGE": ""}


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    timeout_seconds: float,
    finished: Callable[[int], None],
) -> str:
    """Run pg_restore to its end and return its words, without its progress.

    `finished` is called in another thread with the dump id of each entry that a
    parallel job has loaded; it must not wait.

    Raises:
        ServerFault: it took longer than allowed, or was killed.
        DatabaseError: it did not exit with 0.
    """
    process = subprocess.Popen(
        [*arguments, "--verbose"],
        env=dict(environment) | _PLAIN,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    assert process.stderr is not None
    listener = _Listener(process.stderr, finished)
    listener.start()
    try:
        process.wait(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        raise ServerFault(
            f"pg_restore took longer than {timeout_seconds:g} seconds and was stopped",
            hint="Raise the limit in the configuration if the data has grown.",
        ) from None
    finally:
        client.stop(process)
        listener.join(timeout=_END_SECONDS_MAX)
    words = mask(listener.words.decode("utf-8", "replace")).strip()
    client.require_success("pg_restore", process.returncode, words)
    return words


class _Listener(threading.Thread):
    """Reads what pg_restore says: calls for its progress, keeps the rest."""

    def __init__(self, stream: IO[bytes], finished: Callable[[int], None]) -> None:
        super().__init__(name="pg_restore", daemon=True)
        self.words = b""
        self._stream = stream
        self._finished = finished

    def run(self) -> None:
        """Read to the end."""
        with self._stream:
            for line in kept(self._stream, self._finished):
                self.words = (self.words + line)[-_WORDS_BYTES_MAX:]


def kept(lines: Iterable[bytes], finished: Callable[[int], None]) -> Iterable[bytes]:
    """Yield the lines that pg_restore would say without being asked for its progress.

    A line that does not begin with its name goes on with the one before.
    """
    is_progress = False
    for line in lines:
        if line.startswith(_OWN):
            is_progress = not line[len(_OWN) :].startswith(_WORDS)
            found = _FINISHED.match(line)
            if found is not None:
                finished(int(found[1]))
        if not is_progress:
            yield line
