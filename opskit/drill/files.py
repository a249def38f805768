"""Drills the set of a directory: extract, exact comparison, mutants."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from opskit import workspace
from opskit.catalog.file_record import FileRecord
from opskit.checks import Check
from opskit.drill.files_mutants import plant
from opskit.drill.mutants.report import MutantReport
from opskit.errors import IntegrityError
from opskit.folders.beside import make_removable
from opskit.folders.compare import compare
from opskit.folders.extract import extract
from opskit.folders.restore import OpenTar

KIND = "files"


@dataclass(kw_only=True)
class FilesDrill:
    """What was found so far. `mutants` is None where none were planted."""

    checks: list[Check] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    mutants: MutantReport | None = None
    entries: int = 0
    size_bytes: int = 0

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a block; also one that fails took its time."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = round(time.monotonic() - began, 3)


def drill_files(
    open_tar: OpenTar,
    records: Sequence[FileRecord],
    *,
    run_id: str,
    mutants: int,
    work_dir: Path | None = None,
) -> FilesDrill:
    """Extract an archive into a throw-away folder and compare everything.

    What is wrong with the set is a failed check, not an error. If the copy is equal,
    as many mutants are planted in it, chosen by the run's id, and each must be noticed.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
        ConfigurationError: the work folder does not exist.
    """
    found = FilesDrill()
    workspace.sweep(KIND, base=work_dir, before_removal=make_removable)
    with workspace.throwaway(KIND, base=work_dir) as folder:
        copy = folder / "copy"
        copy.mkdir(mode=0o700)
        try:
            _run(found, copy, open_tar, records, run_id=run_id, mutants=mutants)
        finally:
            make_removable(folder)
    return found


def _run(
    found: FilesDrill,
    copy: Path,
    open_tar: OpenTar,
    records: Sequence[FileRecord],
    *,
    run_id: str,
    mutants: int,
) -> None:
    try:
        with found.phase("restore"), open_tar() as stream:
            extract(stream, copy, records)
    except IntegrityError as error:
        found.checks.append(Check(name="restore", passed=False, detail=str(error)))
        return
    found.checks.append(
        Check(name="restore", passed=True, expected="no error", observed="no error")
    )
    with found.phase("compare"):
        found.checks += compare(copy, records)
    found.entries = len(records)
    found.size_bytes = sum(record.size_bytes for record in records)
    if not mutants or not all(check.passed for check in found.checks):
        return  # a comparison that fails has just shown that it can
    with found.phase("mutants"):
        found.mutants, left = plant(copy, records, number=mutants, seed=run_id)
    found.checks.append(found.mutants.check())
    # Each was taken back, or the next would have been noticed for the one before.
    found.checks += [check for check in left if not check.passed]
