"""What the manifest says of a dump: records of tables, sequences and large objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opskit.catalog.manifest import LargeObjectsRecord, SequenceRecord, TableRecord
from opskit.postgres.archive.reader import ArchiveReader

# By schema and name: the extension, and the condition of the rows that are dumped.
OfExtensions = Mapping[tuple[str, str], tuple[str, str | None]]


def tables(
    readers: Iterable[ArchiveReader], of_extensions: OfExtensions
) -> tuple[TableRecord, ...]:
    """Return a record of each table whose data came by in any of the archives."""
    found = []
    for entry, content in (each for reader in readers for each in reader.tables()):
        extension, condition = of_extensions.get(
            (entry.schema, entry.name), (None, None)
        )
        found.append(
            TableRecord(
                schema=entry.schema,
                name=entry.name,
                rows=content.rows,
                digest=content.digest,
                columns=entry.columns,
                via_root=entry.loaded_into,
                extension=extension,
                condition=condition,
            )
        )
    return tuple(found)


def sequences(
    reader: ArchiveReader, of_extensions: OfExtensions
) -> tuple[SequenceRecord, ...]:
    """Return a record of each sequence that the dump sets."""
    found = []
    for entry in reader.contents.entries:
        if entry.kind == "SEQUENCE SET":
            last_value, is_called = entry.sequence_value
            extension, _condition = of_extensions.get(
                (entry.schema, entry.name), (None, None)
            )
            found.append(
                SequenceRecord(
                    schema=entry.schema,
                    name=entry.name,
                    last_value=last_value,
                    is_called=is_called,
                    extension=extension,
                )
            )
    return tuple(found)


def large_objects(reader: ArchiveReader) -> LargeObjectsRecord:
    """Return a record of all large objects that came by."""
    found = reader.large_objects()
    return LargeObjectsRecord(
        count=found.count, size_bytes=found.size_bytes, digest=found.digest
    )
