"""Reads all objects of a set into memory and a folder, each checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opskit.catalog.manifest import Manifest
from opskit.catalog.reader import SetReader
from opskit.postgres.archive import toc
from opskit.postgres.archive.toc import Contents
from opskit.postgres.schema import SchemaObject
from opskit.restore.unpack import unpack_dump


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The set as it was read; `objects` is how many were.

    `manifest` is the set's own, with the digests that an encrypted one seals.
    """

    manifest: Manifest
    archive: Path
    contents: Contents
    roles_sql: str
    schema: Sequence[SchemaObject]
    objects: int


def read_set(reader: SetReader, folder: Path) -> Fetched:
    """Unpack the dump into the folder and read everything else.

    Raises:
        IntegrityError: an object is missing, or not what the manifest says.
        ConfigurationError: the set is encrypted and no identity here opens it.
    """
    archive = folder / "dump.pgdump"
    unpack_dump(reader, archive)
    return Fetched(
        manifest=reader.opened(),
        archive=archive,
        contents=toc.read(archive),
        roles_sql=reader.read_text("roles"),
        schema=reader.read_schema(),
        objects=len(reader.manifest.dump_bytes_of) + reader.read_others(),
    )
