"""What has to stand in the schemas before an archive's other statements run: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from opskit.catalog.manifest import Manifest
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.database import quoted
from opskit.preflight.concessions import Concessions


def statements_ahead(
    entries: Iterable[TocEntry], manifest: Manifest, concessions: Concessions
) -> list[str]:
    """Return stand-ins for missing collations, and extensions in their versions."""
    return [
        *_stand_ins(manifest, concessions),
        *_extensions(entries, manifest, concessions),
    ]


def extension_statement(name: str) -> str:
    """Return how the statement begins that creates an extension."""
    return f"CREATE EXTENSION IF NOT EXISTS {quoted(name)}"


def _stand_ins(manifest: Manifest, concessions: Concessions) -> Iterator[str]:
    """Yield statements that create a plain collation for each that is missing."""
    missing = concessions.subjects("collation")
    for each in manifest.inventory["collations"] if missing else ():
        if f"{each['schema']}.{each['name']}" in missing:
            name = f"{quoted(each['schema'])}.{quoted(each['name'])}"
            yield f"CREATE COLLATION {name} (provider = libc, locale = 'C')"


def _extensions(
    entries: Iterable[TocEntry], manifest: Manifest, concessions: Concessions
) -> Iterator[str]:
    """Yield statements that create the extensions in the source's own versions.

    pg_dump leaves the version out, so that the server would take its newest.
    """
    known = {each["name"]: each for each in manifest.inventory["extensions"]}
    any_version = concessions.subjects("extension-version")
    for entry in entries:
        each = known.get(entry.name)
        if entry.kind == "EXTENSION" and each is not None:
            statement = extension_statement(entry.name)
            statement += f" WITH SCHEMA {quoted(each['schema'])}"
            if entry.name not in any_version:
                statement += f" VERSION {quoted(each['version'])}"
            yield statement
