"""Sudden change: what a set holds far less of than the one before it.

Nobody deletes older sets while such a change is unconfirmed: they may be all that is
left of what is gone. A confirmation beside the set says that somebody looked at it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction

from opskit.catalog.file_record import FileRecord
from opskit.catalog.manifest import DatabaseManifest, FolderManifest, Manifest
from opskit.errors import ConfigurationError
from opskit.postgres.schema import pattern_regexes

# What is smaller than this rises and falls every day.
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
        return _changes_of_files(_files(older), _files(newer), share)
    before, after = _rows(older), _rows(newer)
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
    # How much of a dump was one table's is not known: what is excused explains it.
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
    rows = _rows(older)
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


def _files(manifest: Manifest) -> tuple[FileRecord, ...]:
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


def _rows(manifest: DatabaseManifest) -> dict[str, int]:
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
