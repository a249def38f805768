"""What differs between two sets, as their manifests say it: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    sizes = _sizes(older, newer)
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


def _sizes(older: Manifest, newer: Manifest) -> dict[str, Any]:
    return {
        "size_bytes_before": older.size_bytes,
        "size_bytes_after": newer.size_bytes,
    }


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
    before, after = (
        {(each.name,): each.version for each in made.inventory.extensions}
        for made in (older, newer)
    )
    return {
        "extensions_added": sorted(name for (name,) in after.keys() - before.keys()),
        "extensions_removed": sorted(name for (name,) in before.keys() - after.keys()),
        "extensions_changed": [
            {"name": key[0], "version_before": version, "version_after": after[key]}
            for key, version in sorted(before.items())
            if key in after and after[key] != version
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
