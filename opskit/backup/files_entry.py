"""Reads one entry of a directory: its record, and the content of a file."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from opskit.catalog.file_record import FileRecord, describe, file_type
from opskit.folders.reading import (
    Changed,
    Content,
    State,
    extended_attributes,
    state,
    unchanged,
)
from opskit.folders.tree import Entry


@dataclass(frozen=True, kw_only=True)
class Reading:
    """An entry as it was at one moment; files alone have a content."""

    record: FileRecord
    state: State
    has_attributes: bool = False
    content: Content | None = None


@dataclass(kw_only=True)
class Links:
    """Files with several names, by the name that was read first."""

    _known: dict[tuple[int, int], tuple[str, State]] = field(default_factory=dict)

    def first(self, found: os.stat_result) -> str | None:
        """Return the name that a file was read by, if it is still as it was then."""
        path, then = self._known.get((found.st_dev, found.st_ino), (None, ()))
        return path if then == state(found) else None

    def add(self, path: str, found: os.stat_result) -> None:
        """Remember a file that was read."""
        if found.st_nlink > 1:
            self._known[found.st_dev, found.st_ino] = (path, state(found))


@contextlib.contextmanager
def reading(
    entry: Entry, *, links: Links, spool_dir: Path | None, is_locked: bool
) -> Iterator[Reading | None]:
    """Read an entry; yield None for sockets and devices, which cannot be stored.

    `is_locked` says that a lock keeps the writers of files away.

    Raises:
        Changed: it was changed meanwhile.
        OSError: as the system says, with the path in the tree.
    """
    found = entry.look()
    kind = file_type(found.st_mode)
    first = links.first(found) if kind == "file" else None
    if kind is None:
        yield None
    elif first is not None:
        record = _record(entry, found, target=first, is_hardlink=True)
        yield Reading(record=record, state=state(found))
    elif kind == "file":
        with unchanged(entry, spool_dir=spool_dir, is_locked=is_locked) as content:
            links.add(entry.path, content.stat)
            yield Reading(
                record=_record(
                    entry, content.stat, sha256=content.sha256, sparse=content.sparse
                ),
                state=state(content.stat),
                has_attributes=content.has_attributes,
                content=content,
            )
    elif kind == "symlink":
        record = _record(entry, found, target=_target(entry))
        if state(entry.look()) != state(found):
            raise Changed
        yield Reading(record=record, state=state(found))
    else:
        is_labelled = kind == "directory" and extended_attributes(entry.directory)
        yield Reading(
            record=_record(entry, found),
            state=state(found),
            has_attributes=bool(is_labelled),
        )


def _target(entry: Entry) -> str:
    try:
        return entry.read_link()
    except OSError as error:
        if error.errno == errno.EINVAL:  # no link any more
            raise Changed from error
        raise


def _record(
    entry: Entry,
    found: os.stat_result,
    *,
    sha256: str = "",
    target: str = "",
    is_hardlink: bool = False,
    sparse: bool = False,
) -> FileRecord:
    return describe(
        entry.path,
        found,
        sha256=sha256,
        target=target,
        is_hardlink=is_hardlink,
        sparse=sparse,
        owner=_owner(found.st_uid),
        group=_group(found.st_gid),
    )


@cache
def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


@cache
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return ""
