"""Tells a fault of the server or its machine from what a server refuses: pure.

A server's SQLSTATE decides. Words decide only where there is no SQLSTATE: libpq gives
none for a refused connection, so its words choose the hint, see `_REFUSALS`; what
pg_dump and pg_restore report of their progress and errors has no other form, see
`client.complaints`, `backup.stream` and `restore.load`.
"""

from __future__ import annotations

import re

import psycopg

# As psql writes them with VERBOSITY=verbose.
_ENDED = re.compile(r"^psql:\S+ (?:FATAL|PANIC):  ([0-9A-Z]{5}): ", re.MULTILINE)
_CODE = re.compile(r"^(?!00000)[0-9A-Z]{5}$", re.MULTILINE)
_SOURCE = re.compile(r"^LOCATION:  \S+, (\S+):\d+$", re.MULTILINE)
# Connection, insufficient resources, operator intervention, system error.
_CLASSES = ("08", "53", "57P", "58")
# The sources of PL/pgSQL, PL/Perl, PL/Python and others: pl_exec.c, plperl.c, …
_LANGUAGES = "pl"


def is_server_fault(sqlstate: str, source_file: str) -> bool:
    """Return whether an error says that the server or its machine failed.

    A function may raise any SQLSTATE. Then the error was reported by a source file of
    its language, and it is the function's.
    """
    return sqlstate.startswith(_CLASSES) and not source_file.startswith(_LANGUAGES)


def ends_sessions(sqlstate: str) -> bool:
    """Return whether an error says that the server or the connection went away.

    A function can end the session that it runs in; the server is up then.
    """
    return sqlstate.startswith(("08", "57P"))


def last_error(variable: str, words: str) -> tuple[str, str]:
    """Return SQLSTATE and source file of the last error that a verbose psql met.

    `variable` is psql's variable LAST_ERROR_SQLSTATE; it is empty if the connection was
    lost, of which the server says the code. An error's text may hold anything, but its
    source file comes after it.
    """
    codes = [*_ENDED.findall(words), *_CODE.findall(variable)]
    sources = _SOURCE.findall(words)
    return codes[-1] if codes else "", sources[-1] if sources else ""


NEUTRAL = "The server's own words say what it refused."
_FREE = "Free a connection on the server, or raise its limit."
# Of a whole code, or of a class.
_BY_SQLSTATE = {
    "08P01": "Connect to the server itself: a connection pooler does not take every "
    "parameter of a session.",
    "28P01": "Check the user and the password (PGPASSFILE, url_file or the "
    "environment).",
    "28000": "Check the user, and allow it and this host in the server's pg_hba.conf.",
    "3D000": "Check the name in the URL; `psql --list` shows what is there.",
    "40001": "Set hot_standby_feedback = on on the standby, or raise "
    "max_standby_streaming_delay: its replay cancels queries that take long.",
    "42501": "Grant the right that the server names to the role that opskit connects "
    "as.",
    "53100": "Free some space on the server.",
    "53200": "Raise max_locks_per_transaction on the server, or free memory there.",
    "53300": _FREE,
    "55P03": "See in pg_locks who holds the lock; run this again when it is free.",
    "57P03": "Wait until the server has started, then run this again.",
}
# For a refused connection libpq gives no SQLSTATE, only the server's words.
_REFUSALS = (
    ("password authentication failed", _BY_SQLSTATE["28P01"]),
    ("no pg_hba.conf entry", _BY_SQLSTATE["28000"]),
    ("does not exist", _BY_SQLSTATE["3D000"]),
    ("permission denied for database", "Grant it: GRANT CONNECT ON DATABASE …"),
    ("too many", _FREE),
    ("connection slots", _FREE),
    ("the database system is", _BY_SQLSTATE["57P03"]),
    ("unsupported startup parameter", _BY_SQLSTATE["08P01"]),
)
_REFUSED = ("FATAL:", "ERROR:")


def of_error(error: psycopg.Error, words: str) -> str:
    """Return what to do about an error of psycopg."""
    if error.sqlstate:
        return _BY_SQLSTATE.get(error.sqlstate, NEUTRAL)
    if error.pgconn is not None and error.pgconn.needs_password:
        return "Give the password in a PGPASSFILE, by url_file or in the environment."
    if any(each in words for each in _REFUSED):
        return next((hint for refusal, hint in _REFUSALS if refusal in words), NEUTRAL)
    if isinstance(error, psycopg.OperationalError):
        return (
            "Check that the server runs and that host and port are reachable from here."
        )
    return NEUTRAL
