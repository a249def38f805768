"""Backs up sources: one backup set for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from opskit.backup.create import BackupResult, Source, create_backup
from opskit.catalog import catalog
from opskit.catalog.copying import copy_set
from opskit.catalog.differences import newly_excluded, sudden_changes
from opskit.catalog.manifest import Manifest
from opskit.catalog.places import backup_id_of, set_prefix
from opskit.errors import IntegrityError, LockHeld, StoreError
from opskit.log import logger
from opskit.operations import keys, sources
from opskit.operations.outcome import Failure, Outcome
from opskit.operations.run import Run


@dataclass(frozen=True, kw_only=True)
class BackupRequest:
    """Which source to back up; every configured one if none is named."""

    database: str = ""
    files: str = ""


@dataclass(frozen=True, kw_only=True)
class BackedUp:
    """The set that was made of one source, and the stores that hold it."""

    manifest: Manifest
    stores: tuple[str, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract for one set."""
        manifest = self.manifest
        return {
            "backup_id": manifest.backup_id,
            "source": manifest.source,
            "size_bytes": manifest.size_bytes,
            "dump_bytes": manifest.dump_bytes,
            **manifest.counts,
            "duration_seconds": round(self.seconds, 3),
            "stores": list(self.stores),
            "encrypted": manifest.encryption is not None,
            "warnings": list(manifest.warnings),
            "sudden_changes": list(manifest.sudden_changes),
        }


@dataclass(frozen=True, kw_only=True)
class Backups:
    """What became of each source, in the order in which they were backed up."""

    sources: tuple[Outcome[BackedUp], ...]

    @property
    def errors(self) -> list[Failure]:
        """Everything that failed, each error with the name of its source."""
        return [
            replace(error, message=f"{each.subject}: {error.message}")
            for each in self.sources
            for error in each.errors
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        made = [each.result.as_json() for each in self.sources if each.result]
        document: dict[str, Any] = {"backups": made}
        if len(self.errors) > 1:
            document["errors"] = [each.as_json() for each in self.errors]
        return document


def backup(
    run: Run,
    request: BackupRequest,
    *,
    on_done: Callable[[Outcome[BackedUp]], object] = lambda _outcome: None,
) -> Outcome[Backups]:
    """Back up each source that is asked for.

    One that fails does not keep the others from their backup. `on_done` is called
    with the outcome of each at once.
    """
    with run.recorded("backup") as record:
        name = sources.named(run, database=request.database, files=request.files)
        outcomes = []
        for each in [name] if name else sources.every(run):
            outcomes.append(back_up_source(run, each))
            on_done(outcomes[-1])
        record.result = Backups(sources=tuple(outcomes))
        errors = record.result.errors
        if not name:
            errors += map(Failure.of, run.found.faults.values())
        if errors:
            together = "; ".join(each.message for each in errors)
            record.report(replace(errors[0], message=together))
    return record.outcome


def back_up_source(run: Run, name: str) -> Outcome[BackedUp]:
    """Back up one configured source."""
    with run.recorded("backup", name, watched=True) as record:
        keys.require_own_trust(run.settings)
        source = sources.build(run, name)
        record.begin(source=name)
        if run.turn:
            record.details["due"] = run.turn.due.isoformat()
        made = _make(run, source)
        record.details |= {
            "backup_id": made.manifest.backup_id,
            "stores": list(made.stores),
            "failed_stores": sorted(made.failed),
            "rows": made.manifest.counts["rows"],
            "size_bytes": made.manifest.size_bytes,
        }
        if changes := made.manifest.sudden_changes:
            record.details["sudden_changes"] = list(changes)
        record.result = BackedUp(
            manifest=made.manifest, stores=tuple(made.stores), seconds=record.seconds
        )
        record.report(*made.failed.values())
    return record.outcome


def _make(run: Run, source: Source) -> BackupResult:
    """Make a set; in the turn of a fleet the one that is due, unless it is there."""
    name, turn = source.name, run.turn

    def require_turn() -> None:
        if turn:
            turn.require_held(run.settings.fleet)

    require_turn()
    with run.lock(name, "backup"):
        return (turn and _made_before(run, name, turn.due)) or create_backup(
            source,
            run.stores,
            run_id=run.run_id,
            state_dir=run.state_dir,
            clock=run.now,
            protection=run.protection,
            notice=_change_detector(run, name),
            lock=lambda store: run.store_lock(store, name, "backup"),
            due=turn.due if turn else None,
            require_turn=require_turn,
        )


def _made_before(run: Run, name: str, due: datetime) -> BackupResult | None:
    """Return the set that is due, if it was made by a run that could not say so.

    That may have died before all stores had the set: it is copied to the others.

    Raises:
        IntegrityError: its place is taken by something that cannot be used.
    """
    backup_id = backup_id_of(name, due)
    place = set_prefix(name, backup_id)
    found = catalog.read_below(run.stores, place, keys.trust(run.settings))
    if not found.sets:
        for bad in found.unreadable:
            raise IntegrityError(
                f"{backup_id} was made before and cannot be used: {bad.reason}",
                hint=f"See what lies at {place} in store {bad.store}; move it away.",
            )
        return None
    (made,) = found.sets
    logger().warning("the set was made before", backup_id=backup_id)
    holders = [each.name for each in made.stores]
    failed: dict[str, StoreError] = {}
    for store in run.stores:
        if store.name in holders:
            continue
        try:
            with run.store_lock(store, name, "backup") as require_held:
                copy_set(
                    made.manifest, made.stores[0], store, require_held=require_held
                )
            holders.append(store.name)
        except (LockHeld, IntegrityError, StoreError) as error:
            failed[store.name] = StoreError(
                f"{backup_id} was made before, and not in store {store.name}: "
                f"{error.message}",
                hint=f"Copy it: `inv copy --from {holders[0]} --to {store.name}`.",
            )
    return BackupResult(manifest=made.manifest, stores=tuple(holders), failed=failed)


def _change_detector(run: Run, name: str) -> Callable[[Manifest], Sequence[str]]:
    """Return what finds a new set's sudden changes since the newest set that exists.

    A store that cannot be reached hides what it holds, but not what the others do.
    """
    rules = run.settings.retention
    known: list[Manifest] = []
    for store in run.stores:
        try:
            latest = catalog.latest(
                [store], source=name, trust=keys.trust(run.settings)
            )
        except StoreError as error:
            logger().warning(
                "the new set is not compared with those in a store",
                store=store.name,
                reason=error.message,
            )
        else:
            known += [] if latest is None else [latest]
    older = max(known, key=lambda each: each.started_at, default=None)

    def changes(newer: Manifest) -> Sequence[str]:
        if older is None:
            return ()
        for each in newly_excluded(older, newer):
            logger().warning(each, source=name)
        return sudden_changes(
            older, newer, max_drop=rules.max_drop, ignore=rules.ignore_drop
        )

    return changes
