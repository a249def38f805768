"""Compares a restored folder with the records of its backup set, exactly."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from opskit.catalog.file_record import FileRecord, describe, file_type, listed, shown
from opskit.checks import Check
from opskit.errors import StoreError
from opskit.folders.extract import LENDING_BITS
from opskit.folders.tree import Entry, named, open_root, sha256, walk

NAME = "files"
_SHOWN_MAX = 100
_FIELDS = ("type", "mode", "mtime_ns", "size_bytes", "sha256", "target")


def compare(
    target: Path,
    records: Sequence[FileRecord],
    *,
    known: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return a check of the whole, and a failed one for each entry that differs.

    Names, types, modes, owners, times, contents and links are compared; only root can
    set owners, so for other users they are only listed. At most 100 entries that differ
    have a check of their own. `known` holds digests, by path, of files that need not be
    read again.

    Raises:
        StoreError: the directory cannot be read.
    """
    left = {record.path: record for record in records}
    differing: dict[str, str] = {}
    foreign: list[str] = []
    links: dict[tuple[int, int], str] = {}
    root = _opened(target)
    try:
        for entry in walk(root):
            record = left.pop(entry.path, None)
            if record is None:
                differing[entry.path] = "is not in the set"
                continue
            observed = _observe(entry, links, known or {})
            if observed is not None and _is_foreign(record, observed):
                foreign.append(entry.path)
            if difference := _differences(record, observed):
                differing[entry.path] = difference
    except OSError as error:
        raise StoreError(
            f"{shown(str(error.filename))} in {target} cannot be read: "
            f"{error.strerror}",
            hint="Run this as a user who may read the copy, such as root.",
        ) from error
    finally:
        os.close(root)
    differing |= dict.fromkeys(left, "is missing")
    return _checks(len(records), differing, foreign)


def _opened(target: Path) -> int:
    try:
        return open_root(target)
    except OSError as error:
        raise StoreError(
            f"{target} cannot be read: {error.strerror}",
            hint="Check the path and that this user may read it.",
        ) from error


def _observe(
    entry: Entry, links: dict[tuple[int, int], str], known: Mapping[str, str]
) -> FileRecord | None:
    """Return the record of an entry as it is; None for sockets and devices."""
    status = entry.stat
    kind = file_type(status.st_mode)
    if kind is None:
        return None
    if kind == "symlink":
        return describe(entry.path, status, target=entry.read_link())
    if kind != "file":
        return describe(entry.path, status)
    first = links.setdefault((status.st_dev, status.st_ino), entry.path)
    if first != entry.path:
        return describe(entry.path, status, target=first, is_hardlink=True)
    digest = known.get(entry.path) or _digest(entry)
    return describe(entry.path, status, sha256=digest)


def _digest(entry: Entry) -> str:
    descriptor = entry.open()
    try:
        with named(entry.path):
            return sha256(descriptor, entry.stat.st_size)
    finally:
        os.close(descriptor)


def _is_foreign(record: FileRecord, observed: FileRecord) -> bool:
    """Return whether the owner is another, and this user could not make it right."""
    owners = (observed.uid, observed.gid) == (record.uid, record.gid)
    return not owners and os.geteuid() != 0


def _differences(record: FileRecord, observed: FileRecord | None) -> str:
    if observed is None:
        return f"type: a {record.type} is expected, a socket or a device is there"
    names = [name for name in _FIELDS if name != "mode"]
    if record.type != "symlink":  # its mode means nothing
        names.append("mode")
    if not _is_foreign(record, observed):
        names += ["uid", "gid"]
    else:
        record = record.model_copy(update={"mode": record.mode & ~LENDING_BITS})
    return "; ".join(
        f"{name}: {_value(record, name)} is expected, {_value(observed, name)} is there"
        for name in names
        if getattr(record, name) != getattr(observed, name)
    )


def _value(record: FileRecord, name: str) -> str:
    value = getattr(record, name)
    if name == "mode":
        return f"{value:04o}"
    return shown(str(value)) or "none"


def _checks(
    number: int, differing: Mapping[str, str], foreign: list[str]
) -> list[Check]:
    details = ["names, types, modes, owners, times, contents, links"]
    if foreign:
        details.append(
            "not root, so the owner could not be set and was not compared: "
            f"{listed(foreign)}"
        )
    if not number:
        details.append("the set names no entry at all")
    paths = sorted(differing)
    whole = Check(
        name=NAME,
        passed=not differing and number > 0,
        expected=f"{number} equal entries" if number else "at least the folder",
        observed=f"{len(paths)} differ" if paths else f"{number} equal entries",
        detail="; ".join(details),
    )
    return [
        whole,
        *(
            Check(
                name=f"file {shown(path)}",
                passed=False,
                expected="as in the set",
                observed="different",
                detail=differing[path],
            )
            for path in paths[:_SHOWN_MAX]
        ),
    ]
