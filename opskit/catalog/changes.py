"""Sudden change: what a set holds far less of than the one before it.

Nobody deletes older sets while such a change is unconfirmed: they may be all that is
left of what is gone. That somebody looked is an object beside the set.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction

from opskit.catalog.file_record import FileRecord
from opskit.catalog.manifest import DatabaseManifest, FolderManifest, Manifest
from opskit.errors import ConfigurationError
from opskit.postgres.patterns import to_regexes

# What is smaller than this rises and falls every day.
_COUNTED_ROWS = 100
_COUNTED_BYTES = 64 * 1024
_COUNTED_FILES = 10


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What a set consists of, by name, and what one of these is called."""

    kind: str
    unit: str
    amounts: Mapping[str, int]


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
    before, after = _parts(older), _parts(newer)
    excused = {
        name
        for name in (*before.amounts, *after.amounts)
        if any(fnmatchcase(name, pattern) for pattern in ignore)
    } | {name for name, _ in _excluded(older, newer)}
    found = [
        *_changes_of_parts(before, after, excused, share),
        *_changes_of_large_objects(older, newer, share),
    ]
    # Nobody knows how much of a dump was one table's: what is excused explains it.
    explained = any(
        after.amounts.get(name, 0) < before.amounts.get(name, 0) for name in excused
    )
    sizes = (older.dump_bytes, newer.dump_bytes)
    if sizes[0] >= _COUNTED_BYTES and not explained and _fell(*sizes, share):
        found.append(f"the dump shrank from {sizes[0]} to {sizes[1]} bytes")
    return found


def newly_excluded(older: Manifest, newer: Manifest) -> list[str]:
    """Return which tables the newer set leaves out on purpose, one sentence each."""
    if not (
        isinstance(older, DatabaseManifest) and isinstance(newer, DatabaseManifest)
    ):
        return []
    held = _parts(older).amounts
    return [
        f"table {name} is left out now ({pattern}); it held {held[name]} rows"
        for name, pattern in _excluded(older, newer)
    ]


def _changes_of_parts(
    before: _Parts, after: _Parts, excused: Collection[str], share: Fraction
) -> list[str]:
    kind, unit = before.kind, before.unit
    counted = {k: v for k, v in before.amounts.items() if k not in excused}
    found = []
    for name, amount in sorted(counted.items()):
        now = after.amounts.get(name)
        if now is None:
            found.append(f"{kind} {name} is gone (it held {amount} {unit})")
        elif amount >= _COUNTED_ROWS and _fell(amount, now, share):
            found.append(f"{kind} {name} fell from {amount} to {now} {unit}")
    total = sum(counted.values())
    left = sum(v for k, v in after.amounts.items() if k not in excused)
    if total >= _COUNTED_ROWS and _fell(total, left, share):
        found.append(f"{unit} in all fell from {total} to {left}")
    return found


def _changes_of_large_objects(
    older: DatabaseManifest, newer: DatabaseManifest, share: Fraction
) -> list[str]:
    before, after = older.large_objects.count, newer.large_objects.count
    if before >= _COUNTED_ROWS and _fell(before, after, share):
        return [f"large objects fell from {before} to {after}"]
    return []


def _files(manifest: Manifest) -> tuple[FileRecord, ...]:
    return manifest.files if isinstance(manifest, FolderManifest) else ()


def _changes_of_files(
    older: Sequence[FileRecord], newer: Sequence[FileRecord], share: Fraction
) -> list[str]:
    """One file that is gone is no news; that half of them are, is."""
    numbers = len(older), len(newer)
    sizes = [sum(each.size_bytes for each in files) for files in (older, newer)]
    found = []
    if numbers[0] >= _COUNTED_FILES and _fell(*numbers, share):
        found.append(f"files, folders and links fell from {numbers[0]} to {numbers[1]}")
    if sizes[0] >= _COUNTED_BYTES and _fell(sizes[0], sizes[1], share):
        found.append(f"the files' size fell from {sizes[0]} to {sizes[1]} bytes")
    return found


def _parts(manifest: DatabaseManifest) -> _Parts:
    amounts = {f"{t.schema_name}.{t.name}": t.rows for t in manifest.tables}
    return _Parts(kind="table", unit="rows", amounts=amounts)


def _fell(before: int, after: int, share: Fraction) -> bool:
    return before - after > share * before


def _excluded(
    older: DatabaseManifest, newer: DatabaseManifest
) -> list[tuple[str, str]]:
    """Return tables that are not in the newer set, with the new pattern they match."""
    there = {(table.schema_name, table.name) for table in newer.tables}
    known = {*older.exclude_tables, *older.exclude_table_data}
    patterns = [
        pattern
        for pattern in (*newer.exclude_tables, *newer.exclude_table_data)
        if pattern not in known
    ]
    found = []
    for table in older.tables:
        schema, name = table.schema_name, table.name
        matching = [each for each in patterns if _matches(each, schema, name)]
        if (schema, name) not in there and matching:
            found.append((f"{schema}.{name}", matching[0]))
    return sorted(found)


def _matches(pattern: str, schema: str, name: str) -> bool:
    """Return whether a pattern of pg_dump names a table; without a schema, in any."""
    try:
        of_schema, of_name = to_regexes(pattern)
        return re.search(of_name, name) is not None and (
            of_schema is None or re.search(of_schema, schema) is not None
        )
    except (ConfigurationError, re.error):
        return False  # then it excuses nothing
