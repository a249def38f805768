"""Loads an archive into a server with pg_restore."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from opskit.errors import ClientToolError
from opskit.postgres import client
from opskit.postgres.conninfo import client_connection, client_environment
from opskit.postgres.servers.programs import CLIENT_PROGRAMS, Installation
from opskit.restore import announced


@dataclass(frozen=True, kw_only=True)
class LoadJob:
    """What to load where. `jobs` is a number of processes, `timeout` in seconds.

    `finished` is called with the dump id of what is in already, from another thread;
    not everything is announced. Entries of `may_fail` do not end the load.
    """

    archive: Path
    url: str
    installation: Installation
    jobs: int
    timeout_seconds: float
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
    usable = [
        each
        for each in available
        if each.has(CLIENT_PROGRAMS) and each.major >= client_major
    ]
    if not usable:
        raise ClientToolError(
            f"no pg_restore of major {client_major} or newer was found",
            hint=f"Install it (Debian: postgresql-client-{client_major}).",
        )
    return min(usable, key=lambda each: (each.major != server_major, each.major))


def load(job: LoadJob) -> tuple[str, frozenset[int]]:
    """Run pg_restore; return what it said, and which entries failed that may.

    Raises:
        DatabaseError: another entry failed; its words name the object.
    """
    arguments = [
        *_pg_restore(job),
        "--no-password",
        f"--jobs={job.jobs}",
        f"--dbname={client_connection(job.url)}",
        str(job.archive),
    ]
    return announced.run(
        arguments,
        client_environment(job.url),
        timeout_seconds=job.timeout_seconds,
        finished=job.finished,
        may_fail=job.may_fail,
    )


def script(job: LoadJob) -> bytes:
    """Return the statements that pg_restore would run, without psql's own commands.

    Raises:
        DatabaseError: it failed.
    """
    output, _words = client.run(
        script_arguments(job),
        client_environment(job.url),
        doing="pg_restore",
        timeout_seconds=job.timeout_seconds,
    )
    # The first line of that kind holds a random word, which no text can know.
    if restricted := re.search(rb"^\\restrict (\w+)\n", output, re.MULTILINE):
        for command in (b"\\restrict ", b"\\unrestrict "):
            output = output.replace(b"\n" + command + restricted[1] + b"\n", b"\n")
    return output


def script_arguments(job: LoadJob) -> list[str]:
    """Return the command that prints what the job would run."""
    return [*_pg_restore(job), "--file=-", str(job.archive)]


def _pg_restore(job: LoadJob) -> list[str]:
    return [
        job.installation.program("pg_restore"),
        *(["--no-tablespaces"] if job.no_tablespaces else []),
        *(["--no-owner", "--no-privileges"] if job.no_owners else []),
        *([f"--use-list={job.use_list}"] if job.use_list else []),
    ]
