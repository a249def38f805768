"""Copies sets: brings one store up to date with another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opskit.catalog.copying import CopyResult, copy_set
from opskit.catalog.reader import BadObject
from opskit.catalog.sets import BackupSet
from opskit.checks import count
from opskit.errors import (
    IntegrityError,
    LockHeld,
    ObjectNotFound,
    ObjectUnreadable,
    StoreError,
    UsageError,
)
from opskit.log import logger
from opskit.operations.outcome import Failure, Outcome, Record, not_recorded
from opskit.operations.run import Run
from opskit.operations.verify import record_verification
from opskit.progress import bar
from opskit.store import Store


@dataclass(frozen=True, kw_only=True)
class CopyRequest:
    """The store to copy from, the one to bring up to date, and one set or all."""

    from_store: str
    to_store: str
    backup: str = ""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What became of each set, what is damaged, and what other runs had locked."""

    from_store: str
    to_store: str
    sets: tuple[CopyResult, ...]
    bad: tuple[BadObject, ...]
    locked: tuple[Failure, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            "from": self.from_store,
            "to": self.to_store,
            "sets": [_set_as_json(each) for each in self.sets],
            "bad": [{"key": each.key, "reason": each.reason} for each in self.bad],
        }


def _set_as_json(result: CopyResult) -> dict[str, Any]:
    document: dict[str, Any] = {
        "backup_id": result.backup_id,
        "copied": result.copied,
        "added": len(result.added),
        "bytes": result.verified.size_bytes,
    }
    return document | ({"repaired": len(result.repaired)} if result.repaired else {})


def copy(
    run: Run,
    request: CopyRequest,
    *,
    on_set: Callable[[CopyResult], None] = lambda _result: None,
) -> Outcome[Copied]:
    """Copy the sets that a store lacks; `on_set` gets each result at once."""
    with run.recorded("copy", watched=True) as record:
        source = _store(run, "--from", request.from_store)
        target = _store(run, "--to", request.to_store)
        if source is target:
            raise UsageError(
                f"--from and --to are both {target.name}",
                hint="Name two different stores.",
            )
        catalog = run.catalog_of(source)
        chosen = (
            [catalog.find(request.backup)] if request.backup else list(catalog.sets)
        )
        if not chosen and not catalog.unreadable:
            raise UsageError(
                f"store {source.name} holds no backup set",
                hint="Check its url; `inv backups` lists what each store holds.",
            )
        copying = _Copying(run=run, source=source, target=target, on_set=on_set)
        if not request.backup:
            copying.bad = [
                BadObject(key=bad.key, reason=bad.reason) for bad in catalog.unreadable
            ]
        record.begin(**{"from": source.name, "to": target.name}, sets=len(chosen))
        try:
            # The oldest first: what is cut short has copied what prune would keep
            # longest.
            for each in reversed(chosen):
                copying.add(each)
        finally:
            record.result = copying.result()
        _conclude(record, copying)
    return record.outcome


def _conclude(record: Record, copying: _Copying) -> None:
    """Say how the copying of all sets ended.

    Raises:
        IntegrityError: something is damaged.
        StoreError: nothing is, but a set could not be read or stored.
        LockHeld: another run works on a source in the target.
    """
    bad = copying.bad
    record.details |= {
        "copied": sum(each.copied for each in copying.sets),
        "failed": len(bad) + len(copying.unable),
    }
    if bad:
        record.status = "failed"
        raise IntegrityError(
            f"{count(len(bad), 'fault')} in the sets; the first: {bad[0].key}: "
            f"{bad[0].reason}",
            hint="What was copied now is whole. What is named is damaged in the store "
            "that its reason names; `inv verify` lists all damage.",
        )
    if copying.unable:
        record.status = "failed"
        raise copying.unable[0]
    if copying.locked:
        raise copying.locked[0]
    record.report(*(not_recorded(each) for each in copying.unstored[:1]))


def _store(run: Run, flag: str, name: str) -> Store:
    for each in run.stores:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in run.stores)
    raise UsageError(
        f"{flag} {name} is not a configured store",
        hint=f"Name one of: {known}.",
    )


@dataclass(kw_only=True)
class _Copying:
    """The copying from one store to another, and what it knows so far."""

    run: Run
    source: Store
    target: Store
    on_set: Callable[[CopyResult], None]
    sets: list[CopyResult] = field(default_factory=list)
    bad: list[BadObject] = field(default_factory=list)
    # Why sets were not copied that may be whole: no space, no permission.
    unable: list[StoreError] = field(default_factory=list)
    locked: list[LockHeld] = field(default_factory=list)
    unstored: list[StoreError] = field(default_factory=list)

    def add(self, each: BackupSet) -> None:
        """Copy one set, read it in the target, and leave evidence of that there.

        Raises:
            StoreError: a store as a whole cannot be used.
        """
        manifest, run, target = each.manifest, self.run, self.target
        try:
            with (
                run.lock(manifest.source, "copy"),
                run.store_lock(target, manifest.source, "copy") as require_held,
            ):
                self._copy(each, require_held)
        except LockHeld as error:
            self.locked.append(error)

    def _copy(self, each: BackupSet, require_held: Callable[[], None]) -> None:
        manifest, started_at = each.manifest, self.run.now()
        try:
            # Each object is read twice: here, and back from the target.
            with bar(f"copying {manifest.backup_id}", 2 * manifest.size_bytes):
                result = copy_set(
                    manifest, self.source, self.target, require_held=require_held
                )
        except (IntegrityError, StoreError) as error:
            self._note(each, error)
            return
        if result.copied or result.repaired:
            error_of_evidence = record_verification(
                self.run, each, self.target, result.verified, started_at
            )
            self.unstored += [] if error_of_evidence is None else [error_of_evidence]
        self.sets.append(result)
        self.on_set(result)

    def _note(self, each: BackupSet, error: IntegrityError | StoreError) -> None:
        """Note why a set was not copied.

        Raises:
            StoreError: a store as a whole cannot be used.
        """
        prefix = each.manifest.prefix
        if isinstance(error, StoreError):
            for store in (self.source, self.target):
                any(store.list(prefix))  # raises if all of it fails
        if isinstance(error, IntegrityError | ObjectNotFound | ObjectUnreadable):
            self.bad.append(BadObject(key=prefix, reason=error.message))
            return
        logger().error(
            "a set was not copied",
            backup_id=each.manifest.backup_id,
            reason=error.message,
        )
        self.unable.append(error)

    def result(self) -> Copied:
        """Return what is known so far."""
        return Copied(
            from_store=self.source.name,
            to_store=self.target.name,
            sets=tuple(self.sets),
            bad=tuple(self.bad),
            locked=tuple(Failure.of(each) for each in self.locked),
        )
