"""Drills the set of a folder: reads it out of its store, and makes evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from opskit import workspace
from opskit.catalog.file_record import FileRecord
from opskit.catalog.manifest import of_folder
from opskit.catalog.reader import SetReader
from opskit.catalog.sets import BackupSet
from opskit.checks import compare
from opskit.crypto.keys import Identities
from opskit.drill.report import DrillEvidence, DrillRecord
from opskit.errors import IntegrityError
from opskit.folders import copy as folders_compare
from opskit.folders.copy import extract
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
            with drill.phase("restore"), open_tar() as stream:
                extract(stream, copy, records)
            drill.checks.append(compare("restore", "no error", "no error"))
            with drill.phase("compare"):
                drill.checks += folders_compare.compare(copy, records)
            drill.files = len(records)
            drill.is_restored = drill.files > 0
            # A comparison that fails has just shown that it can.
            if mutants and not any(check.failed for check in drill.checks):
                with drill.phase("mutants"):
                    drill.mutants, left = plant(
                        copy, records, number=mutants, seed=run_id
                    )
                drill.checks.append(drill.mutants.check())
                # Each was taken back, or the next would be noticed for the one before.
                drill.checks += [check for check in left if check.failed]
        except IntegrityError as error:
            drill.fail("restore", error)
        finally:
            make_removable(folder)
    return drill


def drill_folder(
    chosen: BackupSet,
    *,
    mutants: int,
    run_id: str,
    clock: Callable[[], datetime],
    identities: Identities | None = None,
    work_dir: Path | None = None,
) -> DrillEvidence:
    """Restore a folder's set into a throw-away one and compare every entry.

    What is wrong with the set is a failed check in the evidence, not an error.

    Raises:
        ConfigurationError: the set is encrypted and no identity here opens it.
        StoreError: the throw-away folder cannot be written.
    """
    started_at, manifest = clock(), chosen.manifest
    reader = SetReader(manifest=manifest, store=chosen.stores[0], identities=identities)
    reader.require_identities()
    drill = DrillRecord(drill_server="a throw-away folder")
    expected = len(manifest.objects) - 1
    detail = "size and SHA-256 of each but the archive's, which restoring it checks"
    try:
        with drill.phase("fetch"):
            others = reader.read_others()
            records = of_folder(reader.opened()).files
    except IntegrityError as error:
        drill.fail("stored objects", error)
    else:
        drill.checks.append(compare("stored objects", expected, others, detail))
        with bar("drilling the files", manifest.size_bytes):
            drill_copy(
                reader.open_tar,
                records,
                run_id=run_id,
                mutants=mutants,
                work_dir=work_dir,
                record=drill,
            )
    if not mutants:
        drill.leave_out_mutants()
    return drill.evidence(
        chosen, run_id=run_id, started_at=started_at, finished_at=clock()
    )
