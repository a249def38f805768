"""Tells a fault of the server or its machine from what a server refuses: pure."""

from __future__ import annotations

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
