"""Loads an archive into a server with pg_restore, stopping at the first error."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from opskit.errors import BackupFailed, ClientToolError, DatabaseError
from opskit.masking import mask
from opskit.postgres import client
from opskit.postgres.conninfo import client_connection, client_environment
from opskit.postgres.programs import (
    CLIENT_PROGRAMS,
    Installation,
    sets_unknown_parameter,
)
from opskit.restore import announced

_LINE_BEFORE = b"\nSET idle_in_transaction_session_timeout = 0;\n"
_UNKNOWN_PARAMETER = _LINE_BEFORE + b"SET transaction_timeout = 0;\n"
_FIRST_DATA = b"\nCOPY "


@dataclass(frozen=True, kw_only=True)
class LoadJob:
    """What to load where. `jobs` is a number of processes, `timeout` in seconds.

    `finished` is called with the dump id of what is in already, from another thread;
    not everything is announced.
    """

    archive: Path
    url: str
    server_major: int
    installation: Installation
    jobs: int
    timeout_seconds: float
    use_list: Path | None = None
    no_tablespaces: bool = False
    no_owners: bool = False
    finished: Callable[[int], None] | None = None


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


def load(job: LoadJob) -> str:
    """Run pg_restore and return what it said.

    Raises:
        DatabaseError: it met an error; its words name the object.
    """
    if sets_unknown_parameter(
        client_major=job.installation.major, server_major=job.server_major
    ):
        return _load_as_script(job)
    arguments = [
        *_pg_restore(job),
        "--exit-on-error",
        "--no-password",
        f"--jobs={job.jobs}",
        f"--dbname={client_connection(job.url)}",
        str(job.archive),
    ]
    environment = client_environment(job.url)
    if job.finished is not None:
        return announced.run(
            arguments,
            environment,
            timeout_seconds=job.timeout_seconds,
            finished=job.finished,
        )
    _output, words = client.run(
        arguments,
        environment,
        doing="pg_restore",
        timeout_seconds=job.timeout_seconds,
    )
    return words


def _pg_restore(job: LoadJob) -> list[str]:
    return [
        job.installation.program("pg_restore"),
        *(["--no-tablespaces"] if job.no_tablespaces else []),
        *(["--no-owner", "--no-privileges"] if job.no_owners else []),
        *([f"--use-list={job.use_list}"] if job.use_list else []),
    ]


def _load_as_script(job: LoadJob) -> str:
    """Load through psql, so that the one unknown line can be left out."""
    psql = subprocess.Popen(
        [
            job.installation.program("psql"),
            "--no-psqlrc",
            "--quiet",
            "--no-password",
            "--set=ON_ERROR_STOP=1",
            f"--dbname={client_connection(job.url)}",
        ],
        env=client_environment(job.url),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    assert psql.stdin is not None
    assert psql.stderr is not None
    messages = client.Messages(psql.stderr)
    # Also while we write: a server that hangs must not hold us for ever.
    deadline = threading.Timer(job.timeout_seconds, psql.kill)
    deadline.start()
    script_error: DatabaseError | None = None
    try:
        arguments = [*_pg_restore(job), "--file=-", str(job.archive)]
        with client.streaming(arguments, client_environment(job.url)) as blocks:
            for block in without_unknown_parameter(blocks):
                psql.stdin.write(block)
        psql.stdin.close()
        psql.wait()
    except (BrokenPipeError, BackupFailed) as error:
        # psql stopped at an error and no longer reads: its words tell why.
        script_error = DatabaseError(f"pg_restore: {error}")
    finally:
        deadline.cancel()
        client.stop(psql)
    words = mask(messages.text())
    if psql.returncode != 0 or script_error is not None:
        raise DatabaseError(
            f"loading with psql failed: {words or script_error}",
            hint="The program's own words say what it refused.",
        ) from script_error
    return words


def without_unknown_parameter(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Leave the setting out of a script; it stands in front of all data only.

    It is known by the line before it, and nothing is touched from the first COPY on:
    a function or a row may well hold the same words.
    """
    held_bytes = max(len(_UNKNOWN_PARAMETER), len(_FIRST_DATA))
    carry = b"\n"
    for block in blocks:
        statements, data, rows = (carry + block).partition(_FIRST_DATA)
        statements = statements.replace(_UNKNOWN_PARAMETER, _LINE_BEFORE)
        if data:
            yield statements + data + rows
            yield from blocks
            return
        yield statements[:-held_bytes]
        carry = statements[-held_bytes:]
    yield carry
