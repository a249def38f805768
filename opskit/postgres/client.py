"""Runs pg_dump and its kin; judges them by exit code and by what they say."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, LiteralString

from opskit.errors import BackupFailed, DatabaseError, ServerFault
from opskit.log import mask
from opskit.postgres.connect import Connection, connect, query_value, require_pinned
from opskit.postgres.parameters import (
    PINNED_SETTINGS,
    client_connection,
    client_environment,
)
from opskit.postgres.servers.programs import Installation
from opskit.process_group import ended
from opskit.threads import Thread

BLOCK_BYTES = 1024 * 1024
_GATHERED_BYTES = 256 * 1024
_WRITTEN_BYTES = 64 * 1024
_STOP_SECONDS_MAX = 10
_END_SECONDS_MAX = 60
_WAITS = "See what its session waits for in pg_stat_activity on the server."
_SILENT_SECONDS_MAX = 3600
_MESSAGE_BYTES_MAX = 64 * 1024
_FROM_PROGRAM = re.compile(rb"pg_\w+: ")
_TROUBLE = (b"warning: ", b"error: ", b"detail: ", b"hint: ")
_NOTICE = b":  "  # behind the severity of what a server says
# These words tell progress from errors, so a program must not translate them.
PLAIN_WORDS = {"LC_ALL": "C", "LANGUAGE": ""}
Listener = Callable[[bytes], None]
_KILLED = "See the system log for who ended it (out of memory?), then run this again."
_REFUSED = "The program's own words say what it refused."


class Messages:
    """The end of what a program says on standard error, collected as it runs.

    `progress` is called in another thread with each line about its progress, and at
    the end with an empty one; it must not wait. These lines are not collected.
    """

    def __init__(self, stream: IO[bytes], progress: Listener | None = None) -> None:
        self._tail = b""
        self._progress = progress
        self._thread = Thread(self._drain, stream, name="messages")

    def _drain(self, stream: IO[bytes]) -> None:
        with stream:
            progress = self._progress
            for line in complaints(stream, progress) if progress else stream:
                self._tail = (self._tail + line)[-_MESSAGE_BYTES_MAX:]
            if progress:
                progress(b"")

    def text(self) -> str:
        """Return the words, passwords masked, once the program has ended."""
        self._thread.join(timeout=_STOP_SECONDS_MAX)
        return mask(self._tail.decode("utf-8", "replace")).strip()


def complaints(lines: Iterable[bytes], progress: Listener) -> Iterator[bytes]:
    """Yield the lines that a program would say without being asked for its progress.

    The others go to `progress`. A line without the program's name goes on with what the
    server said in the one before, if it did.
    """
    is_notice = False
    for line in lines:
        start = _FROM_PROGRAM.match(line)
        is_progress = start and not line[start.end() :].startswith(_TROUBLE)
        if start:
            is_notice = bool(is_progress and _NOTICE in line)
        if is_progress or is_notice:
            progress(line)
        else:
            yield line


@dataclass
class Running:
    """A program that runs, and writes to us."""

    _name: str
    _process: subprocess.Popen[bytes]
    _output: IO[bytes]
    _messages: Messages
    _held_bytes: int

    def end(self) -> None:
        """End it; callable from any thread."""
        if self._process.poll() is None:
            self._process.terminate()

    def require_well(self, wait_seconds: float = 0) -> None:
        """Raise BackupFailed if it failed; wait a while for its end, if need be."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if code := self._process.wait(wait_seconds):
                raise failure(self._name, code, self._messages.text())

    def blocks(self, idle: Callable[[], None] = lambda: None) -> Iterator[bytes]:
        """Yield its output to the end, then `require_well`; call `idle` in silence."""
        buffer = memoryview(bytearray(_GATHERED_BYTES + BLOCK_BYTES))
        with self._output as output:
            while self._held_bytes:
                self._held_bytes -= len(output.read(self._held_bytes))
            _widen_pipe(output)
            while size_bytes := self._gather(buffer, idle):
                yield bytes(buffer[:size_bytes])
        self._require_end()

    def _require_end(self) -> None:
        self.require_well(_END_SECONDS_MAX)
        if self._process.returncode is None:
            raise BackupFailed(
                f"{_name(self._name)} had closed its output and did not end within "
                f"{_END_SECONDS_MAX} seconds",
                hint=_WAITS,
            )

    def _gather(self, buffer: memoryview, idle: Callable[[], None]) -> int:
        """Read at least some blocks' worth, unless it ends; return how many bytes.

        A pipe gives what is in it, often little: what is gathered makes up for the
        reading. New memory each time would cost as much as copying, so it stays.
        """
        size_bytes = 0
        while size_bytes < _GATHERED_BYTES:
            self._wait(idle)
            read_bytes = self._output.readinto(buffer[size_bytes:])  # type: ignore[attr-defined]
            if not read_bytes:
                break
            size_bytes += read_bytes
        return size_bytes

    def _wait(self, idle: Callable[[], None]) -> None:
        """Wait for bytes; a program that falls silent for good is given up."""
        for _ in range(_SILENT_SECONDS_MAX):
            if select.select([self._output], [], [], 1)[0]:
                return
            idle()
        raise BackupFailed(
            f"{_name(self._name)} wrote nothing for {_SILENT_SECONDS_MAX} "
            "seconds and was stopped",
            hint=_WAITS,
        )


@contextlib.contextmanager
def running(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    progress: Listener | None = None,
    held: bool = False,
) -> Iterator[Running]:
    """Run a program; whatever happens in the block, it is gone afterwards.

    `progress` is for `Messages`. A program that is `held` cannot write a byte, nor end
    well, until its blocks are read.
    """
    reader, writer = os.pipe()
    held_bytes = _fill(writer) if held else 0
    with open(reader, "rb", buffering=0) as output:
        try:
            process = subprocess.Popen(
                _written_in_blocks(arguments),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=subprocess.PIPE,
                # A Ctrl-C reaches us alone; we end the program ourselves, in order.
                process_group=0,
            )
        finally:
            os.close(writer)
        assert process.stderr is not None
        messages = Messages(process.stderr, progress)
        try:
            yield Running(arguments[0], process, output, messages, held_bytes)
        finally:
            stop(process)


def _fill(pipe: int) -> int:
    """Fill a pipe, so that who writes into it waits; return with how much."""
    os.set_blocking(pipe, False)
    filled_bytes = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled_bytes += os.write(pipe, bytes(_WRITTEN_BYTES))
    os.set_blocking(pipe, True)
    return filled_bytes


def _written_in_blocks(arguments: Sequence[str]) -> list[str]:
    """Let GNU's `stdbuf` start it: then it writes more at a time than 4 KiB."""
    stdbuf = shutil.which("stdbuf")
    return [*([stdbuf, f"-o{_WRITTEN_BYTES}"] if stdbuf else []), *arguments]


def failure(program: str, code: int, words: str) -> BackupFailed:
    """Return the error for a dump program that did not end well."""
    name = _name(program)
    ended = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
    return BackupFailed(
        f"{name} {ended}" + ("" if words else " and said nothing"),
        said=words,
        hint=_KILLED if code < 0 else _REFUSED,
    )


def _name(program: str) -> str:
    return program.rsplit("/", 1)[-1]


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    doing: str,
    timeout_seconds: float,
    stdin: bytes | None = None,
) -> tuple[bytes, str]:
    """Run a program to its end and return its output and its words.

    Raises ServerFault if it takes too long, and what `require_success` does.
    """

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(arguments),
            env=dict(environment),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )

    with ended(begin, stop) as beginning:
        process = beginning.result()
        try:
            output, errors = process.communicate(stdin, timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            raise ServerFault(
                f"{doing} took longer than {timeout_seconds:g} seconds and was stopped",
                hint="Raise the limit in the configuration if the data has grown.",
            ) from None
    words = mask(errors.decode("utf-8", "replace")).strip()
    require_success(doing, process.returncode, words)
    return output, words


def require_success(doing: str, code: int, words: str) -> None:
    """Raise ServerFault for a program that was killed, DatabaseError for a failure."""
    if code < 0:
        raise ServerFault(f"{doing} was killed by signal {-code}", hint=_KILLED)
    if code != 0:
        words = words or f"exit code {code}"
        raise DatabaseError(f"{doing} failed", said=words, hint=_REFUSED)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program that may still run: politely, then for good."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _widen_pipe(stream: IO[bytes]) -> None:
    """Let the writer run ahead by a whole block; the default pipe holds 64 KiB."""
    resize = getattr(fcntl, "F_SETPIPE_SZ", None)
    if resize is not None:
        # The system caps it for ordinary users; a smaller pipe is only slower.
        with contextlib.suppress(OSError):
            fcntl.fcntl(stream.fileno(), resize, BLOCK_BYTES)


_REACH_SECONDS_MAX = 60
_SERVER: LiteralString = "SELECT pg_postmaster_start_time()"
_SESSION = "SELECT pg_backend_pid()"
_END_LOOKS, _END_LOOK_SECONDS = 100, 0.02


def require_same_server(
    url: str, installation: Installation, connection: Connection
) -> None:
    """Raise DatabaseError if psql by this URL reaches another server or settings.

    Its libpq is another one: it may look for a socket elsewhere, or not know a
    parameter.
    """
    shows = [f"--command=SHOW {name}" for name in PINNED_SETTINGS]
    try:
        output, _words = run(
            [
                *(installation.program("psql"), "--no-psqlrc", "--no-password"),
                *("--tuples-only", "--no-align", f"--dbname={client_connection(url)}"),
                *(f"--command={_SERVER}", *shows, f"--command={_SESSION}"),
            ],
            client_environment(url),
            doing=f"connecting with psql {installation.version}",
            timeout_seconds=_REACH_SECONDS_MAX,
        )
    except DatabaseError as error:
        with connect(url, purpose="test"):  # the server's own refusal has a code
            pass
        raise error.replace(
            hint="opskit itself connects by this URL: one of its parameters may be "
            "newer than these programs; leave it out, or install newer client programs."
        ) from error
    server, *shown, session = output.decode("utf-8", "replace").splitlines()
    if server != str(query_value(connection, f"{_SERVER}::text")):
        raise DatabaseError(
            "two servers answer at this URL: psql reaches another one than opskit",
            hint="Name the server itself in the URL, not an address that leads to "
            "several.",
        )
    require_pinned(connection, dict(zip(PINNED_SETTINGS, shown, strict=False)))
    _wait_for_end(connection, session)


def _wait_for_end(connection: Connection, session: str) -> None:
    """Wait a little for a session to end: until then a CONNECTION LIMIT counts it."""
    is_there: LiteralString = "SELECT true FROM pg_stat_activity WHERE pid = %s"
    for _ in range(_END_LOOKS):
        if not query_value(connection, is_there, int(session)):
            return
        time.sleep(_END_LOOK_SECONDS)
