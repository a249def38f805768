"""Loads an archive into a server with pg_restore."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from opskit.errors import ClientToolError, DatabaseError, ServerFault
from opskit.log import mask
from opskit.postgres import client
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import (
    connect,
    ends_sessions,
    limit_statements,
    quoted,
    statements_by_role,
    translated,
)
from opskit.postgres.content import python_codec
from opskit.postgres.database import run_bytes
from opskit.postgres.inventory import Inventory
from opskit.postgres.parameters import client_connection, client_environment
from opskit.postgres.servers.programs import CLIENT_PROGRAMS, Installation
from opskit.threads import Thread
from opskit.workspace import Limits

# Two jobs write at once, each piece by piece: the name may stand there twice, or not at
# all, and an entry that failed anywhere in a line.
_FINISHED = re.compile(rb"(?:pg_restore:| )*finished item (\d+) ")
_FAILED = re.compile(rb"from TOC entry (\d+); \d+ \d+ [A-Z]")
_NAMED = re.compile(r"from TOC entry (\d+);")
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


class LoadFailed(DatabaseError):
    """pg_restore did not load everything.

    `entry` is the dump id that its words name first, None where no statement failed.
    """

    def __init__(self, words: str, code: int = 1) -> None:
        super().__init__(
            "pg_restore failed",
            said=words or f"exit code {code}",
            hint="The program's own words say what it refused.",
        )
        named = _NAMED.search(words)
        self.entry = None if named is None else int(named[1])


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
        LoadFailed: such an entry failed, or it did not exit with 0.
    """
    process = subprocess.Popen(
        [*arguments, "--verbose"],
        env=dict(environment) | _PLAIN,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    stream = process.stderr
    assert stream is not None
    said, said_bytes = Said(finished, may_fail), bytearray()

    def listen() -> None:
        """Read to the end, and end the program where it must not go on."""
        with stream:
            for line in said.complaints(stream):
                said_bytes.extend(line)
                del said_bytes[:-_WORDS_BYTES_MAX]
                if said.must_stop:
                    process.terminate()

    listener = Thread(listen, name="pg_restore")
    try:
        process.wait(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        raise ServerFault(
            f"pg_restore took longer than {timeout_seconds:g} seconds and was stopped",
            hint="Raise the limit in the configuration if the data has grown.",
        ) from None
    finally:
        client.stop(process)
        listener.join(_END_SECONDS_MAX)
    words = mask(said_bytes.decode("utf-8", "replace")).strip()
    if said.must_stop or not said.only_what_may_fail:
        code = 1 if said.must_stop else process.returncode
        if code > 0:
            raise LoadFailed(words, code)
        client.require_success("pg_restore", code, words)
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
            is_own = line.startswith(_OWN) or _FINISHED.match(line)
            if is_own or _FAILED.search(line):
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


@dataclass(frozen=True, kw_only=True)
class LoadJob:
    """What to load where.

    `finished` is called with the dump id of what is in already, from another thread;
    not everything is announced. Entries of `may_fail` do not end the load.
    """

    archive: Path
    url: str
    installation: Installation
    limits: Limits
    use_list: Path | None = None
    no_tablespaces: bool = False
    no_owners: bool = False
    finished: Callable[[int], None] = lambda _dump_id: None
    may_fail: frozenset[int] = frozenset()


def choose_program(
    available: Sequence[Installation], *, client_major: int, server_major: int
) -> Installation:
    """Return programs that read the archive, of the server's own major if possible.

    Raises:
        ClientToolError: none can read it.
    """
    readers = [each for each in available if each.major >= client_major]
    usable = [each for each in readers if each.has(CLIENT_PROGRAMS)]
    if not usable:
        raise ClientToolError(
            f"no pg_restore of major {client_major} or newer was found",
            hint=f"Install it (Debian: postgresql-client-{client_major}).",
        )
    return min(usable, key=lambda each: (each.major != server_major, each.major))


def load(job: LoadJob) -> tuple[str, frozenset[int]]:
    """Run pg_restore; return what it said, and which entries failed that may.

    Raises:
        LoadFailed: another entry failed; its words name the object.
    """
    options = ["--no-password", f"--jobs={job.limits.jobs}"]
    options += [f"--dbname={client_connection(job.url)}", str(job.archive)]
    return run(
        [*_pg_restore(job), *options],
        client_environment(job.url),
        timeout_seconds=job.limits.seconds,
        finished=job.finished,
        may_fail=job.may_fail,
    )


def script(job: LoadJob) -> bytes:
    """Return the statements that pg_restore would run, without psql's own commands."""
    output, _words = client.run(
        script_arguments(job),
        client_environment(job.url),
        doing="pg_restore",
        timeout_seconds=job.limits.seconds,
    )
    # The first line of that kind holds a random word, which no text can know.
    if restricted := re.search(rb"^\\restrict (\w+)\n", output, re.MULTILINE):
        for command in (b"\\restrict ", b"\\unrestrict "):
            output = output.replace(b"\n" + command + restricted[1] + b"\n", b"\n")
    return output


def script_arguments(job: LoadJob) -> list[str]:
    return [*_pg_restore(job), "--file=-", str(job.archive)]


def _pg_restore(job: LoadJob) -> list[str]:
    return [
        job.installation.program("pg_restore"),
        *(["--no-tablespaces"] if job.no_tablespaces else []),
        *(["--no-owner", "--no-privileges"] if job.no_owners else []),
        *([f"--use-list={job.use_list}"] if job.use_list else []),
    ]


_Script = TypeVar("_Script", str, bytes)
# pg_restore makes these last, in this order; all others stand in order of dependence.
_LATE = ("ACL", "MATERIALIZED VIEW DATA", "EVENT TRIGGER")


def in_order(entries: Iterable[TocEntry]) -> list[TocEntry]:
    """Return the entries in the order in which pg_restore makes them."""
    return sorted(
        entries, key=lambda e: _LATE.index(e.kind) + 1 if e.kind in _LATE else 0
    )


def with_search_path(
    script: bytes, entries: Iterable[TocEntry], inventory: Inventory
) -> bytes:
    """Let a script of pg_restore find what extensions brought by its bare name.

    pg_dump empties the search path, and does not qualify every operator that a
    definition uses.
    """
    schemas = dict.fromkeys(each.schema_name for each in inventory.extensions)
    path = f"SET search_path = {', '.join(map(quoted, schemas))};\n"
    for entry in entries:
        if entry.kind == "SEARCHPATH" and schemas:
            codec = python_codec(inventory.encoding)
            script = script.replace(entry.definition.encode(), path.encode(codec), 1)
    return script


def make(
    url: str, entry: TocEntry, script: bytes, *, encoding: str, timeout_seconds: float
) -> DatabaseError | None:
    """Make one entry by its script; return what the server says if it refuses.

    Raises:
        ServerFault: the server failed, or cannot be reached.
    """
    if entry.kind == "ACL":
        codec = python_codec(encoding)
        scripts = [each.encode(codec, "surrogateescape")
                   for each in statements_by_role(entry.definition)]  # fmt: skip
    else:
        scripts = [script]
    try:
        with connect(url, purpose="restore") as connection:
            limit_statements(connection, timeout_seconds)
            # A script is read in the encoding that holds before its first statement.
            run_bytes(connection, f"SET client_encoding = '{encoding}'".encode())
            return make_each(entry, scripts, lambda each: run_bytes(connection, each))
    except ServerFault as fault:
        if not ends_sessions(fault.sqlstate):
            raise
        with connect(url, purpose="restore"):
            return fault  # the server is up: the entry's own code ended the session


def make_each(
    entry: TocEntry, scripts: Iterable[_Script], run: Callable[[_Script], None]
) -> DatabaseError | None:
    """Run each script whatever becomes of the others; return the first refusal.

    Raises:
        ServerFault: the server failed, or the connection is lost.
    """
    refusal = None
    for script in scripts:
        try:
            with translated(entry.label):
                run(script)
        except ServerFault:
            raise
        except DatabaseError as error:
            refusal = refusal or error
    return refusal
