"""What differs between two sets by their manifests, and what of it is alarming."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any, Generic, TypeVar

from opskit.catalog.file_record import FileRecord
from opskit.catalog.manifest import (
    DatabaseManifest,
    FolderManifest,
    Manifest,
    SequenceRecord,
    TableRecord,
    of_database,
    of_folder,
)
from opskit.errors import ConfigurationError
from opskit.postgres.schema import pattern_regexes

_Record = TypeVar("_Record")
_Name = TypeVar("_Name", bound=tuple[str, ...])


@dataclass(frozen=True, kw_only=True)
class Parts(Generic[_Record]):
    """Parts of one kind: those of one set alone, and those that are in both."""

    added: list[_Record]
    removed: list[_Record]
    both: list[tuple[_Record, _Record]]


def parts(
    older: Mapping[_Name, _Record], newer: Mapping[_Name, _Record]
) -> Parts[_Record]:
    """Return which parts came, went and stayed, in the order of their names."""
    return Parts(
        added=[newer[name] for name in sorted(newer.keys() - older.keys())],
        removed=[older[name] for name in sorted(older.keys() - newer.keys())],
        both=[
            (older[name], newer[name]) for name in sorted(older.keys() & newer.keys())
        ],
    )


def differences(
    older: Manifest, newer: Manifest, *, with_digests: bool
) -> dict[str, Any]:
    """Return what differs, as a JSON-ready document.

    Without `with_digests`, as of encrypted sets that cannot be opened here, tables with
    as many rows and files of the same size are listed as not compared.
    """
    sizes = {
        "size_bytes_before": older.size_bytes,
        "size_bytes_after": newer.size_bytes,
    }
    if isinstance(older, FolderManifest):
        return sizes | _files(older, of_folder(newer), with_digests)
    older, newer = of_database(older), of_database(newer)
    return (
        sizes
        | {"rows_before": older.rows, "rows_after": newer.rows}
        | _tables(older, newer, with_digests)
        | _sequences(older, newer)
        | _large_objects(older, newer, with_digests)
        | _extensions(older, newer)
    )


def is_equal(document: Mapping[str, Any]) -> bool | None:
    """Return whether such a document names no difference; None if that is not known."""
    endings = ("_added", "_removed", "_changed")
    if any(value for key, value in document.items() if key.endswith(endings)):
        return False
    unknown = [v for key, v in document.items() if key.endswith("_not_compared")]
    return None if any(unknown) else True


def _tables(
    older: DatabaseManifest, newer: DatabaseManifest, with_digests: bool
) -> dict[str, Any]:
    tables = parts(_by_name(older.tables), _by_name(newer.tables))
    changed = [
        {
            **_named(before),
            "rows_before": before.rows,
            "rows_after": after.rows,
            "digest_equal": before.digest == after.digest if with_digests else None,
        }
        for before, after in tables.both
        if before.rows != after.rows or (with_digests and before.digest != after.digest)
    ]
    unknown = [
        _named(before)
        for before, after in tables.both
        if before.rows == after.rows and before.rows and not with_digests
    ]
    return {
        "tables_added": [_named(each) | {"rows": each.rows} for each in tables.added],
        "tables_removed": [_named(e) | {"rows": e.rows} for e in tables.removed],
        "tables_changed": changed,
        "tables_not_compared": unknown,
        "tables_unchanged": len(tables.both) - len(changed) - len(unknown),
    }


def _sequences(older: DatabaseManifest, newer: DatabaseManifest) -> dict[str, Any]:
    sequences = parts(_by_name(older.sequences), _by_name(newer.sequences))
    return {
        "sequences_added": [_named(each) for each in sequences.added],
        "sequences_removed": [_named(each) for each in sequences.removed],
        "sequences_changed": [
            _named(before)
            | {"value_before": before.last_value, "value_after": after.last_value}
            for before, after in sequences.both
            if (before.last_value, before.is_called)
            != (after.last_value, after.is_called)
        ],
    }


def _large_objects(
    older: DatabaseManifest, newer: DatabaseManifest, with_digests: bool
) -> dict[str, Any]:
    before, after = older.large_objects, newer.large_objects
    same = (before.count, before.size_bytes) == (after.count, after.size_bytes)
    return {
        "large_objects_before": before.count,
        "large_objects_after": after.count,
        "large_objects_changed": not same
        or (with_digests and before.digest != after.digest),
        "large_objects_not_compared": same and bool(before.count) and not with_digests,
    }


def _extensions(older: DatabaseManifest, newer: DatabaseManifest) -> dict[str, Any]:
    extensions = parts(
        {(each.name,): each for each in older.inventory.extensions},
        {(each.name,): each for each in newer.inventory.extensions},
    )
    return {
        "extensions_added": [each.name for each in extensions.added],
        "extensions_removed": [each.name for each in extensions.removed],
        "extensions_changed": [
            {
                "name": before.name,
                "version_before": before.version,
                "version_after": after.version,
            }
            for before, after in extensions.both
            if before.version != after.version
        ],
    }


def _files(
    older: FolderManifest, newer: FolderManifest, with_digests: bool
) -> dict[str, Any]:
    files = parts(
        {(each.path,): each for each in older.files},
        {(each.path,): each for each in newer.files},
    )
    changed = [
        (before, after)
        for before, after in files.both
        if _without_digest(before) != _without_digest(after)
        or (with_digests and before.sha256 != after.sha256)
    ]
    unknown = [
        before.path
        for before, after in files.both
        if not with_digests and before.sha256 and (before, after) not in changed
    ]
    return {
        "files_added": [_of_file(each) for each in files.added],
        "files_removed": [_of_file(each) for each in files.removed],
        "files_changed": [
            {
                "path": before.path,
                "size_bytes_before": before.size_bytes,
                "size_bytes_after": after.size_bytes,
                "sha256_equal": before.sha256 == after.sha256 if with_digests else None,
            }
            for before, after in changed
        ],
        "files_not_compared": unknown,
        "files_unchanged": len(files.both) - len(changed) - len(unknown),
    }


def _without_digest(record: FileRecord) -> FileRecord:
    return record.model_copy(update={"sha256": ""})


def _of_file(record: FileRecord) -> dict[str, Any]:
    return {"path": record.path, "size_bytes": record.size_bytes}


def _by_name(
    records: Iterable[TableRecord] | Iterable[SequenceRecord],
) -> dict[tuple[str, str], Any]:
    return {(each.schema_name, each.name): each for each in records}


def _named(record: TableRecord | SequenceRecord) -> dict[str, Any]:
    return {"schema": record.schema_name, "name": record.name}


# Smaller amounts rise and fall every day.
_COUNTED_ROWS = 100
_COUNTED_BYTES = 64 * 1024
_COUNTED_FILES = 10


def sudden_changes(
    older: Manifest, newer: Manifest, *, max_drop: float, ignore: Sequence[str]
) -> list[str]:
    """Return what is gone or has fallen by more than a share, one sentence each.

    A table that is gone counts always; rows and sizes count where they were not small
    before, and never with a `max_drop` of 1. Of folders the number of entries and the
    size count. Tables that `ignore` matches do not count (`schema.table`, with the
    wildcards of a shell), nor do those that the newer set leaves out on purpose.

    Args:
        older: the set that the newer one is measured by.
        newer: the set that was just made.
        max_drop: from 0 to 1; 0.5 lets anything fall to its half.
        ignore: patterns of tables that come and go.
    """
    share = Fraction(str(max_drop))
    if not (
        isinstance(older, DatabaseManifest) and isinstance(newer, DatabaseManifest)
    ):
        return _changes_of_files(_entries_of(older), _entries_of(newer), share)
    before, after = _rows_of(older), _rows_of(newer)
    excused = {
        name
        for name in (*before, *after)
        if any(fnmatchcase(name, pattern) for pattern in ignore)
    } | {name for name, _ in _excluded(older, newer)}
    changes = _changes_of_tables(
        {name: rows for name, rows in before.items() if name not in excused},
        {name: rows for name, rows in after.items() if name not in excused},
        share,
    )
    number, left = older.large_objects.count, newer.large_objects.count
    if number >= _COUNTED_ROWS and _fell(number, left, share):
        changes.append(f"large objects fell from {number} to {left}")
    # The share of a table in a dump is not known: an excused one may explain it all.
    explained = any(after.get(name, 0) < before.get(name, 0) for name in excused)
    sizes = (older.dump_bytes, newer.dump_bytes)
    if sizes[0] >= _COUNTED_BYTES and not explained and _fell(*sizes, share):
        changes.append(f"the dump shrank from {sizes[0]} to {sizes[1]} bytes")
    return changes


def newly_excluded(older: Manifest, newer: Manifest) -> list[str]:
    """Return which tables the newer set leaves out on purpose, one sentence each."""
    if not (
        isinstance(older, DatabaseManifest) and isinstance(newer, DatabaseManifest)
    ):
        return []
    rows = _rows_of(older)
    return [
        f"table {name} is left out now ({pattern}); it held {rows[name]} rows"
        for name, pattern in _excluded(older, newer)
    ]


def _changes_of_tables(
    before: Mapping[str, int], after: Mapping[str, int], share: Fraction
) -> list[str]:
    changes = []
    for name, rows in sorted(before.items()):
        now = after.get(name)
        if now is None:
            changes.append(f"table {name} is gone (it held {rows} rows)")
        elif rows >= _COUNTED_ROWS and _fell(rows, now, share):
            changes.append(f"table {name} fell from {rows} to {now} rows")
    total, left = sum(before.values()), sum(after.values())
    if total >= _COUNTED_ROWS and _fell(total, left, share):
        changes.append(f"rows in all fell from {total} to {left}")
    return changes


def _entries_of(manifest: Manifest) -> tuple[FileRecord, ...]:
    return manifest.files if isinstance(manifest, FolderManifest) else ()


def _changes_of_files(
    older: Sequence[FileRecord], newer: Sequence[FileRecord], share: Fraction
) -> list[str]:
    """One file that is gone is no news; that half of them are, is."""
    numbers = len(older), len(newer)
    sizes = [sum(each.size_bytes for each in files) for files in (older, newer)]
    changes = []
    if numbers[0] >= _COUNTED_FILES and _fell(*numbers, share):
        changes.append(
            f"files, folders and links fell from {numbers[0]} to {numbers[1]}"
        )
    if sizes[0] >= _COUNTED_BYTES and _fell(sizes[0], sizes[1], share):
        changes.append(f"the files' size fell from {sizes[0]} to {sizes[1]} bytes")
    return changes


def _rows_of(manifest: DatabaseManifest) -> dict[str, int]:
    return {f"{t.schema_name}.{t.name}": t.rows for t in manifest.tables}


def _fell(before: int, after: int, share: Fraction) -> bool:
    return before - after > share * before


def _excluded(
    older: DatabaseManifest, newer: DatabaseManifest
) -> list[tuple[str, str]]:
    """Return tables that are not in the newer set, with the new pattern they match."""
    kept = {(table.schema_name, table.name) for table in newer.tables}
    known = {*older.exclude_tables, *older.exclude_table_data}
    patterns = [
        pattern
        for pattern in (*newer.exclude_tables, *newer.exclude_table_data)
        if pattern not in known
    ]
    excluded = []
    for table in older.tables:
        schema, name = table.schema_name, table.name
        matching = [each for each in patterns if _matches(each, schema, name)]
        if (schema, name) not in kept and matching:
            excluded.append((f"{schema}.{name}", matching[0]))
    return sorted(excluded)


def _matches(pattern: str, schema: str, name: str) -> bool:
    """Return whether a pattern of pg_dump names a table; without a schema, in any."""
    try:
        of_schema, of_name = pattern_regexes(pattern)
        return re.search(of_name, name) is not None and (
            of_schema is None or re.search(of_schema, schema) is not None
        )
    except (ConfigurationError, re.error):
        return False  # then it excuses nothing
