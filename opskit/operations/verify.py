"""Verifies sets and leaves evidence of it beside each copy that was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from opskit.catalog.manifest import MANIFEST_NAME
from opskit.catalog.sets import BackupSet
from opskit.catalog.verify import BadObject, VerifyResult, is_gone, verify_set
from opskit.checks import Check
from opskit.errors import StoreError
from opskit.evidence import Evidence, set_subject, store_evidence
from opskit.operations import keys
from opskit.operations import run as runtime
from opskit.operations.run import Run
from opskit.progress import bar
from opskit.store import Store


@dataclass(kw_only=True)
class Verification:
    """What verifying sets has found, and what could not be found out."""

    objects: int = 0
    size_bytes: int = 0
    bad: list[BadObject] = field(default_factory=list)
    # By the store's name, for whole stores; the rest of their sets is passed over.
    unreachable: dict[str, StoreError] = field(default_factory=dict)
    not_read: list[StoreError] = field(default_factory=list)
    unstored: list[StoreError] = field(default_factory=list)

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
        started_at = runtime.now()
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
            return False
        unstored = record_verification(run, each, store, result, started_at)
        self.unstored += [] if unstored is None else [unstored]
        return False


def unlisted(run: Run) -> list[StoreError]:
    """Return why configured sources cannot be listed, or only in part.

    A listing of a whole store passes over what cannot be read, since that may have
    nothing to do with sets.
    """
    found: list[StoreError] = []
    for store in run.stores:
        for name in (*run.settings.databases, *run.settings.files):
            try:
                parts = [e.key for e in store.list(f"{name}/") if e.key.endswith("/")]
            except StoreError as error:
                found.append(error)
                continue
            found += [
                StoreError(
                    f"store {store.name}: {each} cannot be listed",
                    hint="Let this user read the folder, or run this as its owner.",
                )
                for each in parts
            ]
    return found


def record_verification(
    run: Run,
    each: BackupSet,
    store: Store,
    result: VerifyResult,
    started_at: datetime,
) -> StoreError | None:
    """Put what a verification found beside the copy; return why that failed, if so."""
    reasons = {bad.key: bad.reason for bad in result.bad}
    checks = tuple(
        Check(
            name=stored.key,
            passed=stored.key not in reasons,
            expected=f"{stored.size_bytes} bytes, sha256 {stored.sha256}",
            detail=reasons.get(stored.key, ""),
        )
        for stored in each.manifest.objects
    )
    evidence = Evidence(
        kind="verify",
        run_id=run.run_id,
        subject=set_subject(each.manifest, each.manifest_sha256),
        started_at=started_at,
        finished_at=runtime.now(),
        checks=checks,
        figures=None,
    )
    keys.warn_of_unsigned(run.settings)
    try:
        store_evidence(evidence, None, [store], signer=run.protection.signer)
    except StoreError as error:
        return error
    return None
