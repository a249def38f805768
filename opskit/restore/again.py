"""Tries entries that failed once more, each by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from opskit.compare.definition import units
from opskit.errors import DatabaseError, ServerFault
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import (
    connect,
    limit_statements,
    translated,
)
from opskit.postgres.database import quoted, run_bytes
from opskit.postgres.encodings import python_codec
from opskit.postgres.faults import ends_sessions

_Script = TypeVar("_Script", str, bytes)
# pg_restore makes these last, in this order; all others stand in order of dependence.
_LATE = ("ACL", "MATERIALIZED VIEW DATA", "EVENT TRIGGER")


def in_order(entries: Iterable[TocEntry]) -> list[TocEntry]:
    """Return the entries in the order in which pg_restore makes them."""
    return sorted(
        entries, key=lambda e: _LATE.index(e.kind) + 1 if e.kind in _LATE else 0
    )


def with_search_path(
    script: bytes, entries: Iterable[TocEntry], inventory: Mapping[str, Any]
) -> bytes:
    """Let a script of pg_restore find what extensions brought by its bare name.

    pg_dump empties the search path, and does not qualify every operator that a
    definition uses.
    """
    schemas = dict.fromkeys(each["schema"] for each in inventory["extensions"])
    path = f"SET search_path = {', '.join(map(quoted, schemas))};\n"
    for entry in entries:
        if entry.kind == "SEARCHPATH" and schemas:
            codec = python_codec(inventory["encoding"])
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
                   for each in units(entry.definition)]  # fmt: skip
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
