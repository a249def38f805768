"""Shows sets: which there are, what is in one, what differs between two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from opskit.catalog.catalog import Catalog
from opskit.catalog.differences import differences, is_equal, parts
from opskit.catalog.manifest import Manifest
from opskit.catalog.reader import SetReader
from opskit.catalog.sets import BackupSet, ListedSet
from opskit.errors import ClientToolError, UsageError
from opskit.operations import sources
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run


@dataclass(frozen=True, kw_only=True)
class BackupsRequest:
    """The source whose sets to show; those of all if none is named."""

    database: str = ""
    files: str = ""


@dataclass(frozen=True, kw_only=True)
class ListedSets:
    """The sets of the stores, newest first, and what could not be read, at a time."""

    listing: Catalog[ListedSet]
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            "backups": [_listed_as_json(each, self.at) for each in self.listing.sets],
            "unreadable": [vars(bad) for bad in self.listing.unreadable],
            "unreachable": [error.message for error in self.listing.unreachable],
        }


def _listed_as_json(each: ListedSet, at: datetime) -> dict[str, Any]:
    return {
        "backup_id": each.backup_id,
        "source": each.source,
        "finished_at": each.finished_at.isoformat(),
        "age_seconds": round((at - each.finished_at).total_seconds()),
        "size_bytes": each.size_bytes,
        "proof": each.proof,
        "pinned": each.is_pinned,
        "stores": [store.name for store in each.stores],
    }


def list_sets(run: Run, request: BackupsRequest) -> Outcome[ListedSets]:
    """List the backup sets, newest first."""
    with run.recorded("backups") as record:
        source = sources.of_sets(run, database=request.database, files=request.files)
        record.result = ListedSets(listing=run.listing(source or None), at=run.now())
    return record.outcome


@dataclass(frozen=True, kw_only=True)
class ShownSet:
    """A set with what is in it, and its age at a time."""

    chosen: BackupSet
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        chosen, manifest = self.chosen, self.chosen.manifest
        database = manifest if manifest.kind == "postgres" else None
        return {
            "backup_id": manifest.backup_id,
            "source": manifest.source,
            "kind": manifest.kind,
            "started_at": manifest.started_at.isoformat(),
            "snapshot_at": manifest.snapshot_at.isoformat(),
            "finished_at": manifest.finished_at.isoformat(),
            "age_seconds": round((self.at - manifest.finished_at).total_seconds()),
            "server_version": database.server_version if database else "",
            "client_version": database.client_version if database else "",
            "tool_version": manifest.tool_version,
            "size_bytes": manifest.size_bytes,
            "dump_bytes": manifest.dump_bytes,
            "encrypted": manifest.encryption is not None,
            "signed": manifest.signature is not None,
            "pinned": chosen.is_pinned,
            "proof": chosen.proof,
            "stores": [store.name for store in chosen.stores],
            **manifest.counts,
            "objects": len(manifest.objects),
            "large_objects": database.large_objects.count if database else 0,
            "contents": _contents(manifest),
            "stored": [
                {"key": each.key, "size_bytes": each.size_bytes}
                for each in manifest.objects
            ],
            "drills": _evidence(chosen, "drill"),
            "verifications": _evidence(chosen, "verify"),
            "warnings": list(manifest.warnings),
            "sudden_changes": list(manifest.sudden_changes),
        }


def show_set(run: Run, request: BackupsRequest, backup: str) -> Outcome[ShownSet]:
    """Show what is in a set of the source named, or of any."""
    with run.recorded("backups") as record:
        source = sources.of_sets(run, database=request.database, files=request.files)
        chosen = run.listing().find(backup, source=source or None)
        record.result = ShownSet(chosen=chosen, at=run.now())
    return record.outcome


def _contents(manifest: Manifest) -> list[dict[str, Any]]:
    if manifest.kind == "files":
        return [
            {"path": each.path, "type": each.type, "size_bytes": each.size_bytes}
            for each in manifest.files
        ]
    return [
        {"schema": each.schema_name, "name": each.name, "rows": each.rows}
        for each in manifest.tables
    ]


def _evidence(chosen: BackupSet, kind: str) -> list[dict[str, Any]]:
    evidence = [
        {"time": each.at.isoformat(), "passed": each.passed, "store": copy.store.name}
        for copy in chosen.copies
        for each in copy.evidence
        if each.kind == kind
    ]
    return sorted(evidence, key=lambda each: str(each["time"]))


@dataclass(frozen=True, kw_only=True)
class ComparedSets:
    """What differs between two sets, by kinds of differences; the older set first."""

    older: Manifest
    newer: Manifest
    equal: bool | None
    differences: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            "older": self.older.backup_id,
            "newer": self.newer.backup_id,
            "equal": self.equal,
            **self.differences,
        }


def compare_sets(
    run: Run, request: BackupsRequest, wanted: Sequence[str]
) -> Outcome[ComparedSets]:
    """Compare two sets of one kind."""
    with run.recorded("backups") as record:
        source = sources.of_sets(run, database=request.database, files=request.files)
        older, newer = _two(run, source, wanted)
        readers = [_reader(run, each) for each in (older, newer)]
        before, after = (
            each.manifest if reader is None else reader.opened()
            for each, reader in zip((older, newer), readers, strict=True)
        )
        differing = differences(before, after, with_digests=None not in readers)
        if older.manifest.kind == "postgres":
            differing |= _definitions(readers)
        record.result = ComparedSets(
            older=older.manifest,
            newer=newer.manifest,
            equal=is_equal(differing),
            differences=differing,
        )
    return record.outcome


def _two(run: Run, source: str, wanted: Sequence[str]) -> list[BackupSet]:
    """Return the two sets that are meant, the older one first."""
    if len(wanted) != 2:
        raise UsageError(
            "--compare takes two backup sets",
            hint="Write `inv backups --compare ID ID`; `inv backups` lists them.",
        )
    listing = run.listing()
    chosen = [listing.find(each, source=source or None) for each in wanted]
    if chosen[0].manifest.kind != chosen[1].manifest.kind:
        raise UsageError(
            "a set of a database and a set of a folder cannot be compared",
            hint="Name two sets of one source.",
        )
    return sorted(chosen, key=lambda each: each.manifest.snapshot_at)


def _reader(run: Run, chosen: BackupSet) -> SetReader | None:
    """Return what reads a set's objects, None where it cannot be decrypted here."""
    if chosen.manifest.encryption is not None and run.identities is None:
        return None
    return SetReader(
        manifest=chosen.manifest, store=chosen.stores[0], identities=run.identities
    )


def _definitions(readers: Sequence[SetReader | None]) -> dict[str, Any]:
    """Return which objects of the schema came, went and changed, by kind and name."""
    try:
        before, after = (
            {(each.kind, each.name): each for each in reader.read_schema()}
            for reader in readers
            if reader is not None
        )
    except (ClientToolError, ValueError):  # another version's, or encrypted
        return {"definitions_not_compared": True}
    both = parts(before, after)
    return {
        "definitions_added": [f"{each.kind} {each.name}" for each in both.added],
        "definitions_removed": [f"{each.kind} {each.name}" for each in both.removed],
        "definitions_changed": [
            {
                "name": f"{old.kind} {old.name}",
                "before": old.state,
                "after": new.state,
            }
            for old, new in both.both
            if old.state != new.state
        ],
        "definitions_not_compared": False,
    }
