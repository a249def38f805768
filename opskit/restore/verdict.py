"""Verdict: whether the set or the server is to blame for a load that failed.

pg_restore gives no SQLSTATE. What it failed at is therefore run once more by psql,
which does, and which names the source file that reported the error.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace

from opskit.errors import DatabaseError, ServerFault
from opskit.postgres.connect import (
    Connection,
    client_connection,
    client_environment,
    query_value,
    translated,
)
from opskit.postgres.faults import ends_sessions, is_server_fault, last_error
from opskit.restore.load import LoadFailed, LoadJob, script_arguments

_CONNECTION_LOST = 2  # psql's exit code
_PLAIN = {"LC_ALL": "C", "LANGUAGE": ""}


def judged(connection: Connection, job: LoadJob, error: LoadFailed) -> DatabaseError:
    """Return the error of a failed load, a ServerFault if the set is not to blame.

    `connection` leads to another database of the same server. The copy must be as the
    load left it.
    """
    try:
        if error.entry is not None:
            return _of_entry(connection, job, error, error.entry)
        # No statement failed: pg_restore cannot read the archive, or lost the server.
        return error if _is_unreadable(job) else _fault(error, "")
    except subprocess.TimeoutExpired:
        return _fault(error, "")


def _of_entry(
    connection: Connection, job: LoadJob, error: DatabaseError, dump_id: int
) -> DatabaseError:
    use_list = job.archive.with_name("failed.list")
    use_list.write_text(f"{dump_id};\n")
    code, output, words = _run_once_more(replace(job, use_list=use_list))
    sqlstate, source = last_error(output, words)
    if not sqlstate:
        # It worked, or there was no server to refuse it.
        return _fault(error, "") if code in (0, _CONNECTION_LOST) else error
    claimed = is_server_fault(sqlstate, source)
    if claimed and not (ends_sessions(sqlstate) and _is_up(connection)):
        return _fault(error, sqlstate)
    return DatabaseError(
        error.summary, said=error.said, hint=error.hint, sqlstate=sqlstate
    )


def _fault(error: DatabaseError, sqlstate: str) -> ServerFault:
    return ServerFault(
        error.summary,
        said=error.said,
        hint="See the server's log, and the disk space and memory of its machine, "
        "then run this again.",
        sqlstate=sqlstate,
    )


def _is_up(connection: Connection) -> bool:
    """Return whether the server has gone on: then it ended the load's session alone."""
    try:
        with translated("server"):
            return bool(query_value(connection, "SELECT true"))
    except ServerFault:
        return False


def _is_unreadable(job: LoadJob) -> bool:
    finished = subprocess.run(
        script_arguments(job),
        env=client_environment(job.url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=job.limits.seconds,
        check=False,
    )
    return finished.returncode > 0


def _run_once_more(job: LoadJob) -> tuple[int, str, str]:
    """Run the job's statements by psql; return its exit code and what it said.

    It ends with the code of the last error, which no error's text can forge.
    """
    environment = client_environment(job.url) | _PLAIN
    script = subprocess.Popen(
        script_arguments(job),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        finished = subprocess.run(
            [
                job.installation.program("psql"),
                "--no-psqlrc",
                "--quiet",
                "--no-password",
                "--set=VERBOSITY=verbose",
                "--file=-",
                r"--command=\echo :LAST_ERROR_SQLSTATE",
                f"--dbname={client_connection(job.url)}",
            ],
            env=environment,
            stdin=script.stdout,
            capture_output=True,
            timeout=job.limits.seconds,
            check=False,
        )
    finally:
        script.kill()
        script.communicate()
    output, words = (
        each.decode("utf-8", "replace") for each in (finished.stdout, finished.stderr)
    )
    return finished.returncode, output, words
