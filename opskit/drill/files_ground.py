"""The restored directory that mutants are planted in, and how they are taken back."""

from __future__ import annotations

import contextlib
import os
import random
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from opskit.catalog.file_record import ROOT, FileRecord
from opskit.folders.tree import encoded, join


class Unsuited(Exception):
    """An entry cannot have this kind of damage."""


class Ground:
    """A copy that equals its records, and a folder beside it for what is taken out."""

    def __init__(self, copy: Path, records: Sequence[FileRecord], seed: str) -> None:
        self._copy = os.fsencode(copy)
        self.aside = os.fsencode(copy.with_name("aside"))
        os.makedirs(os.path.dirname(self.aside), exist_ok=True)
        os.mkdir(self.aside, 0o700)
        self.records = {record.path: record for record in records}
        self.rng = random.Random(seed)  # noqa: S311 - one seed, the same mutants
        self.touched: set[str] = set()
        self._parents = {parent_path(path) for path in self.records if path != ROOT}
        self.linked = {each.target for each in records if each.type == "hardlink"}
        self.with_one_name = [
            each
            for each in records
            if each.type == "file" and each.path not in self.linked
        ]
        self.has_several_contents = len({e.sha256 for e in self.with_one_name}) > 1
        self._digests = {each.path: each.sha256 for each in records if each.sha256}

    def shuffled(self) -> list[FileRecord]:
        """Return the records in an order of chance."""
        return self.rng.sample(list(self.records.values()), len(self.records))

    def digests_but(self, paths: Collection[str]) -> dict[str, str]:
        """Return the digests of the files that need not be read again."""
        return {p: each for p, each in self._digests.items() if p not in paths}

    def place(self, path: str) -> bytes:
        """Return where an entry of the copy lies."""
        return os.path.join(self._copy, encoded(path))

    def is_empty(self, record: FileRecord) -> bool:
        """Return whether nothing is in a directory of the copy."""
        return record.path not in self._parents

    @contextlib.contextmanager
    def kept(self, *paths: str) -> Iterator[None]:
        """Give entries and their folders back what they had, as far as they are there.

        Once the block has begun and once it has ended, `mark` does so: what is planted
        must not be noticed by a time that it left behind.
        """
        affected = {*paths, *(parent_path(path) for path in paths)}
        self.touched |= affected
        before = {path: os.lstat(self.place(path)) for path in sorted(affected)
                  if os.path.lexists(self.place(path))}  # fmt: skip
        try:
            yield
        finally:
            for path in sorted(before, reverse=True):
                self.mark(path, before[path])

    def mark(self, path: str, marks: os.stat_result) -> None:
        """Give an entry an owner, a mode and a time."""
        place = self.place(path)
        if os.geteuid() == 0:
            os.chown(place, marks.st_uid, marks.st_gid, follow_symlinks=False)
        if not stat.S_ISLNK(os.lstat(place).st_mode):
            os.chmod(place, stat.S_IMODE(marks.st_mode))
        os.utime(
            place, ns=(marks.st_mtime_ns, marks.st_mtime_ns), follow_symlinks=False
        )

    @contextlib.contextmanager
    def taken_out(self, path: str) -> Iterator[bytes]:
        """Move an entry out of the copy for the block; yield where it is."""
        away = os.path.join(self.aside, b"entry")
        place = self.place(path)
        with self.kept(path):
            os.rename(place, away)
            try:
                yield away
            finally:
                if os.path.lexists(place):
                    os.unlink(place)
                os.rename(away, place)

    def settle_parent(self, path: str) -> None:
        """Give the folder of an entry the time of its record."""
        parent = parent_path(path)
        time_ns = self.records[parent].mtime_ns
        os.utime(self.place(parent), ns=(time_ns, time_ns))

    def new_path(self, record: FileRecord) -> str:
        """Return a path in a directory that nothing has."""
        path = join(record.path, "mutant")
        while path in self.records:
            path += "-"
        return path


def parent_path(path: str) -> str:
    """Return the directory that an entry is in; the root is in itself."""
    return path.rpartition("/")[0] or ROOT
