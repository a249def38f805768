"""Makes a database from an archive's own statements, run one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from opskit.postgres.archive.entry import CONTENT_KINDS, TocEntry
from opskit.postgres.archive.toc import Contents
from opskit.postgres.connect import Connection
from opskit.postgres.database import run_bytes

# Data, and what belongs to the database or to the server rather than into it.
SKIPPED = CONTENT_KINDS | {
    "DATABASE",
    "SUBSCRIPTION",
    "DATABASE PROPERTIES",
    "ACL",
    "DEFAULT ACL",
    "COMMENT",
    "SECURITY LABEL",
}
# The first of these says in which encoding all the others are.
_FIRST = ("ENCODING", "STDSTRINGS", "SEARCHPATH", "SCHEMA")
# They might act on what comes after them.
_LAST = ("EVENT TRIGGER",)
_SETTINGS = "SET check_function_bodies = false; SET xmloption = content;"


def build(
    connection: Connection, archive: Contents, kept: Sequence[TocEntry], ahead: str
) -> None:
    """Run the statements of all definitions kept in the connection's empty database.

    They are in the order in which pg_dump wrote them, which is that of dependence; the
    script `ahead` comes between the schemas and all others, as it does in the copy.

    Raises:
        DatabaseError: by the connection's own context, if one is refused.
    """
    run_bytes(connection, _SETTINGS.encode())
    for entry in kept:
        if entry.kind in _FIRST:
            run_bytes(connection, _bytes(entry, archive))
    run_bytes(connection, ahead.encode(archive.codec, "surrogateescape"))
    for entry in kept:
        if entry.kind not in SKIPPED and entry.kind not in (*_FIRST, *_LAST):
            run_bytes(connection, _bytes(entry, archive))
    for entry in kept:
        if entry.kind in _LAST:
            run_bytes(connection, _bytes(entry, archive))
    for entry in grants_of_others_in(archive):
        run_bytes(connection, _bytes(entry, archive))


def grants_of_others_in(archive: Contents) -> list[TocEntry]:
    """Return the grants on what is built in or an extension's.

    pg_dump writes them as the difference to what an extension's script granted, and
    what default privileges added to that when it was created.
    """
    made = {entry.dump_id for entry in archive.entries}
    return [
        entry
        for entry in archive.entries
        if entry.kind == "ACL" and entry.is_about_others(made)
    ]


def _bytes(entry: TocEntry, archive: Contents) -> bytes:
    """Return a statement in the encoding that the archive's first entry sets."""
    return entry.definition.encode(archive.codec, "surrogateescape")
