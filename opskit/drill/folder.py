"""Drills the set of a folder: reads it out of its store, and makes evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opskit import workspace
from opskit.catalog.file_record import FileRecord
from opskit.catalog.manifest import FolderManifest, of_folder
from opskit.catalog.reader import SetReader
from opskit.catalog.sets import BackupSet
from opskit.checks import Check, compare
from opskit.crypto.keys import Identities
from opskit.drill.report import DrillEvidence, DrillRecord
from opskit.errors import IntegrityError
from opskit.folders import compare as folders_compare
from opskit.folders.extract import extract
from opskit.folders.restore import OpenTar, make_removable
from opskit.mutants.folders import plant
from opskit.progress import bar

KIND = "files"


def drill_copy(
    open_tar: OpenTar,
    records: Sequence[FileRecord],
    *,
    run_id: str,
    mutants: int,
    work_dir: Path | None = None,
    record: DrillRecord | None = None,
) -> DrillRecord:
    """Extract an archive into a throw-away folder and compare everything.

    What is wrong with the set is a failed check in the record. If the copy is equal,
    as many mutants are planted in it, chosen by the run's id, and each must be noticed.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
        ConfigurationError: the work folder does not exist.
    """
    drill = record or DrillRecord()
    workspace.sweep(KIND, base=work_dir, before_removal=make_removable)
    with workspace.throwaway(KIND, base=work_dir) as folder:
        copy = folder / "copy"
        copy.mkdir(mode=0o700)
        try:
            _run(drill, copy, open_tar, records, run_id=run_id, mutants=mutants)
        finally:
            make_removable(folder)
    return drill


def _run(
    drill: DrillRecord,
    copy: Path,
    open_tar: OpenTar,
    records: Sequence[FileRecord],
    *,
    run_id: str,
    mutants: int,
) -> None:
    try:
        with drill.phase("restore"), open_tar() as stream:
            extract(stream, copy, records)
    except IntegrityError as error:
        drill.checks.append(Check(name="restore", passed=False, detail=str(error)))
        return
    drill.checks.append(
        Check(name="restore", passed=True, expected="no error", observed="no error")
    )
    with drill.phase("compare"):
        drill.checks += folders_compare.compare(copy, records)
    drill.files = len(records)
    drill.is_restored = drill.files > 0
    if not mutants or any(check.failed for check in drill.checks):
        return  # a comparison that fails has just shown that it can
    with drill.phase("mutants"):
        drill.mutants, left = plant(copy, records, number=mutants, seed=run_id)
    drill.checks.append(drill.mutants.check())
    # Each was taken back, or the next would have been noticed for the one before.
    drill.checks += [check for check in left if check.failed]


@dataclass(frozen=True, kw_only=True)
class FolderDrillRequest:
    """Which set to prove, and how many mutants are to show that the drill can fail."""

    chosen: BackupSet
    mutants: int
    work_dir: Path | None = None
    identities: Identities | None = None


def drill_folder(
    request: FolderDrillRequest, *, run_id: str, clock: Callable[[], datetime]
) -> DrillEvidence:
    """Restore a folder's set into a throw-away one and compare every entry.

    What is wrong with the set is a failed check in the evidence, not an error.

    Raises:
        ConfigurationError: the set is encrypted and no identity here opens it.
        StoreError: the throw-away folder cannot be written.
    """
    chosen = request.chosen
    started_at = clock()
    reader = SetReader(
        manifest=chosen.manifest,
        store=chosen.stores[0],
        identities=request.identities,
    )
    reader.require_identities()
    drill = DrillRecord(drill_server="a throw-away folder")
    manifest = _fetch(drill, reader)
    if manifest is not None:
        with bar("drilling the files", manifest.size_bytes):
            drill_copy(
                reader.open_tar,
                manifest.files,
                run_id=run_id,
                mutants=request.mutants,
                work_dir=request.work_dir,
                record=drill,
            )
    if not request.mutants:
        drill.leave_out_mutants()
    return drill.evidence(
        chosen, run_id=run_id, started_at=started_at, finished_at=clock()
    )


def _fetch(drill: DrillRecord, reader: SetReader) -> FolderManifest | None:
    """Read all but the archive, which is checked as it is extracted."""
    try:
        with drill.phase("fetch"):
            others = reader.read_others()
            manifest = of_folder(reader.opened())
    except IntegrityError as error:
        drill.checks.append(
            Check(name="stored objects", passed=False, detail=str(error))
        )
        return None
    drill.checks.append(
        compare(
            "stored objects",
            len(reader.manifest.objects) - 1,
            others,
            "size and SHA-256 of each but the archive's, which restoring it checks",
        )
    )
    return manifest
