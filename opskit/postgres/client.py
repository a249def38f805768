"""Runs pg_dump and its kin; judges them by exit code and by what they say."""

from __future__ import annotations

import contextlib
import fcntl
import select
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from opskit.errors import BackupFailed, DatabaseError, ServerFault
from opskit.masking import mask

BLOCK_BYTES = 1024 * 1024
_GATHERED_BYTES = 256 * 1024
_WRITTEN_BYTES = 64 * 1024
_STOP_SECONDS_MAX = 10
_SILENT_SECONDS_MAX = 3600
_MESSAGE_BYTES_MAX = 64 * 1024


class Messages:
    """The end of what a program says on standard error, collected as it runs."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._tail = b""
        self._thread = threading.Thread(target=self._drain, args=(stream,), daemon=True)
        self._thread.start()

    def _drain(self, stream: IO[bytes]) -> None:
        with stream:
            while block := stream.read(4096):
                self._tail = (self._tail + block)[-_MESSAGE_BYTES_MAX:]

    def text(self) -> str:
        """Return the words, passwords masked, once the program has ended."""
        self._thread.join(timeout=_STOP_SECONDS_MAX)
        return mask(self._tail.decode("utf-8", "replace")).strip()


@contextlib.contextmanager
def streaming(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    started: Callable[[subprocess.Popen[bytes]], None] = lambda _process: None,
) -> Iterator[Iterator[bytes]]:
    """Run a program and yield its output in blocks.

    The block must read to the end. Whatever happens in it, the program is gone
    afterwards. `started` is handed the program, so that others can end it.

    Raises:
        BackupFailed: the program did not exit with 0; its words are in the message.
    """
    process = subprocess.Popen(
        _written_in_blocks(arguments),
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        # A Ctrl-C reaches us alone; we end the program ourselves, in order.
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    messages = Messages(process.stderr)
    try:
        started(process)
        with process.stdout as output:
            _widen_pipe(output)
            yield iter(_Blocks(output, arguments[0]))
        code = process.wait(timeout=_STOP_SECONDS_MAX)
    finally:
        stop(process)
    if code != 0:
        raise failure(arguments[0], code, messages.text())


class _Blocks:
    """The output of a program in blocks, until it ends.

    A pipe gives what is in it, often little: enough is gathered that what is done with
    each block costs less than reading it. The buffer is used again and again: memory
    that is new each time costs as much as copying.
    """

    def __init__(self, output: IO[bytes], program: str) -> None:
        self._output, self._program = output, program
        self._buffer = memoryview(bytearray(_GATHERED_BYTES + BLOCK_BYTES))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._read, b"")

    def _read(self) -> bytes:
        size_bytes = 0
        while size_bytes < _GATHERED_BYTES:
            self._wait()
            read_bytes = self._output.readinto(self._buffer[size_bytes:])  # type: ignore[attr-defined]
            if not read_bytes:
                break
            size_bytes += read_bytes
        return bytes(self._buffer[:size_bytes])

    def _wait(self) -> None:
        """Wait for bytes; a program that falls silent for good is given up."""
        readable, _, _ = select.select([self._output], [], [], _SILENT_SECONDS_MAX)
        if not readable:
            raise BackupFailed(
                f"{_name(self._program)} wrote nothing for {_SILENT_SECONDS_MAX} "
                "seconds and was stopped",
                hint="See what its session waits for in pg_stat_activity on the "
                "server.",
            )


def _written_in_blocks(arguments: Sequence[str]) -> list[str]:
    """Let a program write more at a time than the 4 KiB that a pipe is given.

    Each write wakes its reader. `stdbuf`, of the GNU coreutils, becomes the program.
    """
    stdbuf = shutil.which("stdbuf")
    return [*([stdbuf, f"-o{_WRITTEN_BYTES}"] if stdbuf else []), *arguments]


def failure(program: str, code: int, words: str) -> BackupFailed:
    """Return the error for a dump program that did not end well."""
    name = _name(program)
    ended = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
    return BackupFailed(
        f"{name} {ended}" + (f": {words}" if words else " and said nothing"),
        hint=_hint(words, code),
    )


def _name(program: str) -> str:
    return program.rsplit("/", 1)[-1]


_HINTS = (
    (
        "row-level security",
        "Connect as a role with BYPASSRLS or as the tables' owner: a dump through "
        "row-level security would hold only the rows that the role may see.",
    ),
    (
        "permission denied",
        "Grant what is missing to the role that opskit connects as, for instance: "
        "GRANT pg_read_all_data TO that_role; or exclude the table. Large objects need "
        "grants of their own, or a superuser.",
    ),
    (
        # pg_dump bounds its wait for locks by a statement timeout.
        "LOCK TABLE",
        "A migration holds the table; run the backup again when it has ended.",
    ),
    (
        "server closed the connection",
        "The server or the network went away; check its log, "
        "then run the backup again.",
    ),
)


def _hint(words: str, code: int) -> str:
    for pattern, hint in _HINTS:
        if pattern in words:
            return hint
    if code < 0:
        return (
            "See the system log for who ended it (out of memory?), then run it again."
        )
    return "The program's own words say what it refused."


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    doing: str,
    timeout_seconds: float,
    stdin: bytes | None = None,
) -> tuple[bytes, str]:
    """Run a program to its end and return its output and its words.

    Raises:
        ServerFault: it took longer than allowed, or was killed.
        DatabaseError: it did not exit with 0.
    """
    process = subprocess.Popen(
        list(arguments),
        env=dict(environment),
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    try:
        output, errors = process.communicate(stdin, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        raise ServerFault(
            f"{doing} took longer than {timeout_seconds:g} seconds and was stopped",
            hint="Raise the limit in the configuration if the data has grown.",
        ) from None
    finally:
        stop(process)
    words = mask(errors.decode("utf-8", "replace")).strip()
    require_success(doing, process.returncode, words)
    return output, words


def require_success(doing: str, code: int, words: str) -> None:
    """Judge the exit code of a program that speaks to a server.

    Raises:
        ServerFault: it was killed.
        DatabaseError: it did not exit with 0.
    """
    if code < 0:
        raise ServerFault(
            f"{doing} was killed by signal {-code}",
            hint="See the system log for who ended it (out of memory?), "
            "then run this again.",
        )
    if code != 0:
        raise DatabaseError(
            f"{doing} failed: {words or f'exit code {code}'}",
            hint="The program's own words say what it refused.",
        )


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
