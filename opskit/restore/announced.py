"""Runs pg_restore: which entries it has loaded, and which it could not make."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO

from opskit.errors import ServerFault
from opskit.masking import mask
from opskit.postgres import client

_FINISHED = re.compile(rb"pg_restore: finished item (\d+) ")
# Two jobs write at once, each piece by piece: it may stand anywhere in a line.
_FAILED = re.compile(rb"from TOC entry (\d+); \d+ \d+ [A-Z]")
_OWN = b"pg_restore: "
_ERROR = b"error: "
_WORDS = (b"warning: ", _ERROR, b"detail: ", b"hint: ")
# It repeats the statement, which may hold a password; the entry names the object.
_STATEMENT = b"Command was: "
# Said at the very end, and only where it went on after errors.
_WENT_ON = re.compile(rb"pg_restore: warning: errors ignored on restore: (\d+)\n")
# pg_restore of 17 and newer sets it in each session, whatever the server knows.
_UNKNOWN_PARAMETER = b'"transaction_timeout"'
_WORDS_BYTES_MAX = 64 * 1024
_END_SECONDS_MAX = 10
# These words tell its progress from errors, so it must not translate them.
_PLAIN = {"LC_ALL": "C", "LANGUAGE": ""}


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    timeout_seconds: float,
    finished: Callable[[int], None] = lambda _dump_id: None,
    may_fail: frozenset[int] = frozenset(),
) -> tuple[str, frozenset[int]]:
    """Run pg_restore to its end; return its words and the entries that failed.

    `finished` is called in another thread with the dump id of each entry that a
    parallel job has loaded; it must not wait. An entry that is not among `may_fail`
    ends the run as soon as it fails.

    Raises:
        ServerFault: it took longer than allowed, or was killed.
        DatabaseError: such an entry failed, or it did not exit with 0.
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
    said = Said(finished, may_fail)
    listener = _Listener(process.stderr, said, process.terminate)
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
    if said.must_stop:
        client.require_success("pg_restore", 1, words)
    if not said.only_what_may_fail:
        client.require_success("pg_restore", process.returncode, words)
    return words, frozenset(said.failed)


class Said:
    """What pg_restore has said: the entries that failed, and whether it went on."""

    def __init__(
        self,
        finished: Callable[[int], None] = lambda _dump_id: None,
        may_fail: frozenset[int] = frozenset(),
    ) -> None:
        self.failed: set[int] = set()
        self.must_stop = False
        self._finished = finished
        self._may_fail = may_fail
        self._named: int | None = None
        self._unknown_parameters = 0
        self._ignored = 0

    @property
    def only_what_may_fail(self) -> bool:
        """Whether it came to its end, and every error is one that may be."""
        return (
            self._ignored > 0
            and self.failed <= self._may_fail
            and (bool(self.failed) or self._ignored == self._unknown_parameters)
        )

    def complaints(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines that are no progress, but for statements that failed.

        A line that does not begin with its name goes on with the one before.
        """
        is_kept = False
        for line in lines:
            if line.startswith(_OWN) or _FAILED.search(line):
                is_kept = self._is_complaint(line)
            elif line.startswith(_STATEMENT):
                is_kept = False
            if is_kept:
                is_error = line.startswith(_OWN + _ERROR)
                self.must_stop |= is_error and not self.failed <= self._may_fail
                yield line

    def _is_complaint(self, line: bytes) -> bool:
        if failed := [int(each) for each in _FAILED.findall(line)]:
            self._named = None if failed[-1] in self.failed else failed[-1]
            self.failed.update(failed)
            return True
        if found := _FINISHED.match(line):
            self._finished(int(found[1]))
        elif found := _WENT_ON.match(line):
            self._ignored = int(found[1])
        elif line.startswith(_OWN + _ERROR) and _UNKNOWN_PARAMETER in line:
            self._unknown_parameters += 1
            if self._named is not None:  # it names whatever entry comes first
                self.failed.discard(self._named)
        else:
            return line[len(_OWN) :].startswith(_WORDS)
        return False


class _Listener(threading.Thread):
    """Reads what pg_restore says to the end, and ends it where it must not go on."""

    def __init__(self, stream: IO[bytes], said: Said, stop: Callable[[], None]) -> None:
        super().__init__(name="pg_restore", daemon=True)
        self.words = b""
        self._stream = stream
        self._said = said
        self._stop_program = stop

    def run(self) -> None:
        """Read to the end."""
        with self._stream:
            for line in self._said.complaints(self._stream):
                self.words = (self.words + line)[-_WORDS_BYTES_MAX:]
                if self._said.must_stop:
                    self._stop_program()
