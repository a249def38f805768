"""Verifies sets: reads every object again, and leaves evidence beside each copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from opskit.catalog.catalog import Catalog
from opskit.catalog.manifest import MANIFEST_NAME, Manifest
from opskit.catalog.reader import BadObject, VerifyResult, is_gone, verify_set
from opskit.catalog.sets import BackupSet
from opskit.checks import Check, count
from opskit.errors import (
    IntegrityError,
    ObjectNotFound,
    OpskitError,
    StoreError,
    UsageError,
)
from opskit.evidence import Evidence, set_subject, store_evidence
from opskit.operations import keys, sources
from opskit.operations.outcome import Outcome, not_recorded
from opskit.operations.run import Run
from opskit.progress import bar
from opskit.store import Store


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """Which set to verify, or the newest of which source; else every one."""

    backup: str = ""
    database: str = ""
    files: str = ""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """How much was read, what is damaged, and why anything could not be read."""

    objects: int
    size_bytes: int
    bad: tuple[BadObject, ...]
    not_read: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        document: dict[str, Any] = {
            "objects": self.objects,
            "bytes": self.size_bytes,
            "bad": [{"key": each.key, "reason": each.reason} for each in self.bad],
        }
        return document | ({"not_read": list(self.not_read)} if self.not_read else {})


def verify(
    run: Run,
    request: VerifyRequest,
    *,
    on_set: Callable[[Manifest, str], None] = lambda _manifest, _state: None,
) -> Outcome[Verified]:
    """Verify one set or all; `on_set` gets each at once, and in a word how it is."""
    with run.recorded("verify", watched=True) as record:
        source = sources.of_sets(run, database=request.database, files=request.files)
        catalog = run.catalog(source or None)
        is_one = bool(request.backup or source)
        chosen = list(catalog.sets)
        if is_one:
            wanted = request.backup or "latest"
            chosen = [catalog.find(wanted, source=source or None)]
        reading = _begin(run, catalog, chosen[0] if is_one else None)
        if not chosen and not reading.bad and not reading.not_read:
            raise UsageError(
                "there is no backup set to verify",
                hint="Take one with `inv backup`.",
            )
        record.begin(sets=len(chosen))
        for each in chosen:
            on_set(each.manifest, reading.add(run, each))
        record.details |= {"objects": reading.objects, "bad": len(reading.bad)}
        record.result = reading.result()
        if error := reading.error():
            record.status = "failed"
            raise error
        if not reading.objects:
            raise UsageError(
                "all sets were deleted before they could be verified",
                hint="Nothing was verified: run this again.",
            )
        record.report(*(not_recorded(each) for each in reading.unstored[:1]))
    return record.outcome


def _begin(run: Run, catalog: Catalog[BackupSet], only: BackupSet | None) -> _Reading:
    """Return a verification that knows already what cannot be used or listed."""
    # A store that cannot be reached is not asked again.
    not_read = [*catalog.unreachable] or ([] if only else _unlisted(run))
    bad = [
        BadObject(key=each.key, reason=each.reason)
        for each in catalog.unreadable
        if only is None or f"/{only.manifest.backup_id}/" in each.key
    ]
    return _Reading(bad=bad, not_read=not_read)


@dataclass(kw_only=True)
class _Reading:
    """A verification that goes on, and what it knows so far."""

    objects: int = 0
    size_bytes: int = 0
    bad: list[BadObject] = field(default_factory=list)
    # By the store's name, for whole stores; the rest of their sets is passed over.
    unreachable: dict[str, StoreError] = field(default_factory=dict)
    not_read: list[StoreError] = field(default_factory=list)
    unstored: list[StoreError] = field(default_factory=list)

    def result(self) -> Verified:
        """Return what is known in the end."""
        return Verified(
            objects=self.objects,
            size_bytes=self.size_bytes,
            bad=tuple(self.bad),
            not_read=tuple(dict.fromkeys(each.message for each in self._all_not_read)),
        )

    def error(self) -> OpskitError | None:
        """Return the error about what is damaged, else about what was not read."""
        if not self.bad:
            return next(iter(self._all_not_read), None)
        missing = all(each.missing for each in self.bad)
        kind = ObjectNotFound if missing else IntegrityError
        return kind(
            f"{count(len(self.bad), 'object')} damaged or missing; the first: "
            f"{self.bad[0].key}: {self.bad[0].reason}",
            hint="Do not rely on these sets; take a new backup and check the store.",
        )

    @property
    def _all_not_read(self) -> list[StoreError]:
        return [*self.unreachable.values(), *self.not_read]

    def add(self, run: Run, each: BackupSet) -> str:
        """Verify a set in every store that holds it; return in a word how it is.

        A set that is deleted meanwhile is neither whole nor damaged.
        """
        known = len(self.bad), len(self.not_read), len(self.unreachable)
        gone = 0
        with run.reading(each.manifest.backup_id):
            for store in each.stores:
                gone += self._add(run, each, store)
        if gone == len(each.stores):
            return "deleted meanwhile"
        if len(self.bad) > known[0]:
            return f"{len(self.bad) - known[0]} BAD"
        if (len(self.not_read), len(self.unreachable)) != known[1:]:
            return "NOT READ"
        return "ok"

    def _add(self, run: Run, each: BackupSet, store: Store) -> bool:
        """Verify a set in one store; return whether it is not there any more."""
        if store.name in self.unreachable:
            self.not_read.append(self.unreachable[store.name])
            return False
        started_at = run.now()
        try:
            title = f"verifying {each.manifest.backup_id} in {store.name}"
            with bar(title, each.manifest.size_bytes):
                result = verify_set(each.manifest, store)
        except StoreError as error:
            self.unreachable[store.name] = error
            return False
        if not result.is_whole and is_gone(store, each.manifest.prefix + MANIFEST_NAME):
            return True
        self.objects += result.objects
        self.size_bytes += result.size_bytes
        self.bad += result.bad
        if result.not_read is not None:
            self.not_read.append(result.not_read)
            if not result.bad:
                return False
        unstored = record_verification(run, each, store, result, started_at)
        self.unstored += [] if unstored is None else [unstored]
        return False


def _unlisted(run: Run) -> list[StoreError]:
    """Return why configured sources cannot be listed, or only in part.

    A listing of a whole store passes over what cannot be read, since that may have
    nothing to do with sets.
    """
    errors: list[StoreError] = []
    for store in run.stores:
        for name in (*run.settings.databases, *run.settings.files):
            try:
                parts = [e.key for e in store.list(f"{name}/") if e.key.endswith("/")]
            except StoreError as error:
                errors.append(error)
                continue
            errors += [
                StoreError(
                    f"store {store.name}: {each} cannot be listed",
                    hint="Let this user read the folder, or run this as its owner.",
                )
                for each in parts
            ]
    return errors


def record_verification(
    run: Run,
    each: BackupSet,
    store: Store,
    result: VerifyResult,
    started_at: datetime,
) -> StoreError | None:
    """Store the evidence of a verification beside the copy; return why that failed.

    If the store did not give out the whole set, only what is damaged is known.
    """
    reasons = {bad.key: bad.reason for bad in result.bad}
    others: bool | None = True
    why = ""
    if result.not_read is not None:
        others, why = None, f"not all was read: {result.not_read.message}"
    checks = tuple(
        Check(
            name=stored.key,
            passed=False if stored.key in reasons else others,
            expected=f"{stored.size_bytes} bytes, sha256 {stored.sha256}",
            detail=reasons.get(stored.key, why),
        )
        for stored in each.manifest.objects
    )
    evidence = Evidence(
        kind="verify",
        run_id=run.run_id,
        subject=set_subject(each.manifest, each.manifest_sha256),
        started_at=started_at,
        finished_at=run.now(),
        checks=checks,
        figures=None,
    )
    keys.warn_of_unsigned(run.settings)
    try:
        store_evidence(evidence, None, [store], signer=run.protection.signer)
    except StoreError as error:
        return error
    return None
