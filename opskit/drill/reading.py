"""Reads all objects of a set into memory and a folder, each checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opskit.catalog.manifest import Manifest
from opskit.postgres import toc
from opskit.postgres.schema import SchemaObject
from opskit.postgres.toc import Contents
from opskit.restore import fetch
from opskit.store import Store


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The set as it was read; `objects` is how many were."""

    archive: Path
    contents: Contents
    roles_sql: str
    schema: Sequence[SchemaObject]
    objects: int


def read_set(manifest: Manifest, store: Store, folder: Path) -> Fetched:
    """Unpack the dump into the folder and read everything else.

    Raises:
        IntegrityError: an object is missing, or not what the manifest says.
    """
    archive = folder / "dump.pgdump"
    fetch.unpack_dump(manifest, store, archive)
    return Fetched(
        archive=archive,
        contents=toc.read(archive),
        roles_sql=fetch.read_text(manifest, store, "roles"),
        schema=fetch.read_schema(manifest, store),
        objects=1 + fetch.read_others(manifest, store),
    )
