"""Differences: what came, went and changed between two sets, by their manifests."""

from __future__ import annotations

from typing import Any

from opskit.catalog.differences import differences, is_equal
from opskit.catalog.file_record import FileRecord
from opskit.catalog.manifest import Manifest
from tests.unit.builders import INVENTORY, folder_manifest, manifest


def _table(name: str, rows: int, digest: str = "0") -> dict[str, Any]:
    return {"schema": "public", "name": name, "rows": rows, "digest": digest * 32}


def _set(*tables: dict[str, Any], **changes: Any) -> Manifest:
    return manifest(tables=list(tables), **changes)


def test_a_set_does_not_differ_from_itself() -> None:
    """Every part is unchanged, and that is said."""
    found = differences(_set(_table("t", 3)), _set(_table("t", 3)), with_digests=True)

    assert found["tables_unchanged"] == 1
    assert is_equal(found) is True


def test_tables_that_came_went_and_changed_are_named() -> None:
    """Rows before and after, and whether the contents are equal."""
    older = _set(_table("gone", 1), _table("grown", 2), _table("other", 3))
    newer = _set(_table("new", 4), _table("grown", 5, "1"), _table("other", 3, "1"))
    found = differences(older, newer, with_digests=True)

    assert found["tables_added"] == [{"schema": "public", "name": "new", "rows": 4}]
    assert found["tables_removed"] == [{"schema": "public", "name": "gone", "rows": 1}]
    assert [
        (each["name"], each["rows_before"], each["rows_after"], each["digest_equal"])
        for each in found["tables_changed"]
    ] == [("grown", 2, 5, False), ("other", 3, 3, False)]
    assert (found["rows_before"], found["rows_after"]) == (6, 12)
    assert is_equal(found) is False


def test_without_digests_equal_numbers_of_rows_are_no_proof() -> None:
    """Of an encrypted set nothing but the numbers is known here."""
    older, newer = (
        _set(_table("t", 3), _table("e", 0)),
        _set(_table("t", 3, "1"), _table("e", 0)),
    )
    found = differences(older, newer, with_digests=False)

    assert found["tables_not_compared"] == [{"schema": "public", "name": "t"}]
    assert found["tables_unchanged"] == 1
    assert is_equal(found) is None


def test_sequences_large_objects_and_extensions_are_compared() -> None:
    """Each under a key of its own."""
    older = _set(
        inventory=INVENTORY | {"extensions": [{"name": "citext", "version": "1.5"}]}
    )
    newer = _set(
        inventory=INVENTORY | {"extensions": [{"name": "citext", "version": "1.6"}]},
        sequences=[
            {"schema": "public", "name": "s", "last_value": 9, "is_called": True}
        ],
        large_objects={"count": 1, "size_bytes": 5, "digest": "1" * 32},
    )
    found = differences(older, newer, with_digests=True)

    assert found["sequences_changed"] == [
        {"schema": "public", "name": "s", "value_before": -5, "value_after": 9}
    ]
    assert found["large_objects_changed"] is True
    assert found["extensions_changed"] == [
        {"name": "citext", "version_before": "1.5", "version_after": "1.6"}
    ]
    for key in ("sequences_changed", "large_objects_changed", "extensions_changed"):
        assert is_equal({key: found[key]}) is False


def test_files_that_came_went_and_changed_are_named() -> None:
    """A changed mode is a change as well; the digest tells of contents."""

    def record(path: str, **changes: Any) -> dict[str, Any]:
        plain = {"path": path, "type": "file", "mode": 0o644, "uid": 0, "gid": 0}
        return plain | {"mtime_ns": 1, "size_bytes": 2, "sha256": "0" * 64} | changes

    older = folder_manifest().model_copy(
        update={"files": _files(record("gone"), record("a"), record("b"), record("c"))}
    )
    newer = older.model_copy(
        update={
            "files": _files(
                record("new"),
                record("a"),
                record("b", mode=0o600),
                record("c", sha256="1" * 64),
            )
        }
    )
    found = differences(older, newer, with_digests=True)
    unopened = differences(older, newer, with_digests=False)

    assert found["files_added"] == [{"path": "new", "size_bytes": 2}]
    assert found["files_removed"] == [{"path": "gone", "size_bytes": 2}]
    assert [each["path"] for each in found["files_changed"]] == ["b", "c"]
    assert found["files_unchanged"] == 1
    assert [each["path"] for each in unopened["files_changed"]] == ["b"]
    assert unopened["files_not_compared"] == ["a", "c"]


def _files(*records: dict[str, Any]) -> tuple[FileRecord, ...]:
    return tuple(FileRecord.model_validate(each) for each in records)
