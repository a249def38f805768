"""What to do about a server's refusal, by SQLSTATE; or by what else is known of it."""

from __future__ import annotations

import psycopg

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
        return next((hint for said, hint in _REFUSALS if said in words), NEUTRAL)
    if isinstance(error, psycopg.OperationalError):
        return (
            "Check that the server runs and that host and port are reachable from here."
        )
    return NEUTRAL
