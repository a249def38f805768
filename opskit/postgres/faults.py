"""Tells a fault of the server or its machine from what a server refuses: pure."""

from __future__ import annotations

import re

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


def reported(told: str, words: str) -> tuple[str, str]:
    """Return SQLSTATE and source file of the last error that a verbose psql met.

    `told` is psql's variable LAST_ERROR_SQLSTATE; it is empty if the connection was
    lost, of which the server says the code. An error's text may hold anything, but its
    source file comes after it.
    """
    codes = [*_ENDED.findall(words), *_CODE.findall(told)]
    sources = _SOURCE.findall(words)
    return codes[-1] if codes else "", sources[-1] if sources else ""
