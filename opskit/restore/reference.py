"""Makes a database from an archive's own statements, run one after the other."""

from __future__ import annotations

from collections.abc import Iterable

from opskit.postgres.connect import Connection
from opskit.postgres.database import run_bytes
from opskit.postgres.toc import Contents
from opskit.postgres.toc_entry import TocEntry

# Data, and what belongs to the database or to the server rather than into it.
SKIPPED = {
    "TABLE DATA",
    "SEQUENCE SET",
    "BLOB",
    "BLOBS",
    "BLOB METADATA",
    "BLOB COMMENTS",
    "MATERIALIZED VIEW DATA",
    "STATISTICS DATA",
    "DATABASE",
    "SUBSCRIPTION",
    "DATABASE PROPERTIES",
    "ACL",
    "DEFAULT ACL",
    "COMMENT",
    "SECURITY LABEL",
}
_SETTINGS = "SET check_function_bodies = false; SET xmloption = content;"


def build(
    connection: Connection, archive: Contents, left_out: Iterable[int] = ()
) -> None:
    """Run the statements of all definitions in the connection's empty database.

    They are in the order in which pg_dump wrote them, which is that of dependence.

    Raises:
        DatabaseError: by the connection's own context, if one is refused.
    """
    skipped = frozenset(left_out)
    run_bytes(connection, _SETTINGS.encode())
    for entry in archive.entries:
        if entry.dump_id not in skipped and entry.kind not in SKIPPED:
            run_bytes(connection, _bytes(entry, archive))


def _bytes(entry: TocEntry, archive: Contents) -> bytes:
    """Return a statement in the encoding that the archive's first entry sets."""
    return entry.definition.encode(archive.codec, "surrogateescape")
