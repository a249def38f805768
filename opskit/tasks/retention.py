"""`prune`: what retention lets go."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from opskit import files
from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from opskit.catalog.retention import RetentionPlan
    from opskit.catalog.sets import BackupSet, ListedSet
    from opskit.errors import RetentionRefused
    from opskit.operations.run import Run
    from opskit.store import Store
    from opskit.store.locks import HeldLock

_BEING_READ = "a drill, a restore or a verification is reading it"
_GRACE = timedelta(days=1)


@command(
    help={
        "dry-run": "print the plan and delete nothing",
        "confirm": "the set whose sudden change is right; deletes nothing",
        "json": "print one JSON document",
    }
)
def prune(
    _context: object, dry_run: bool = False, confirm: str = "", json: bool = False
) -> Document:
    """Delete the backup sets that no retention rule keeps.

    Example: inv prune --dry-run
    """
    from opskit.errors import OpskitError, UsageError, worst
    from opskit.operations import run as runtime
    from opskit.operations import sources

    run = runtime.start()
    if confirm:
        if dry_run:
            raise UsageError(
                "--confirm and --dry-run do not go together", hint="Give one of them."
            )
        return _confirm(run, confirm, as_json=json)
    document: Document = {"keep": [], "delete": [], "refused": None}
    errors: list[OpskitError] = []
    failed: list[Document] = []
    refused: list[str] = []
    for name in sources.every(run):
        pruning = _Pruning(run=run, name=name, document=document, as_json=json)
        try:
            why = pruning.show() if dry_run else pruning.carry_out()
        except OpskitError as error:
            say(f"{name} is not pruned: {error.message}", as_json=json)
            failed.append({"source": name, "error": error.message})
            errors.append(error)
        else:
            refused += [f"{name}: {why}"] if why else []
    if not dry_run:
        files.sweep_temporary(run.state_dir, before=runtime.now() - _GRACE)
    document["refused"] = "; ".join(refused) or None
    if refused:
        errors.append(_refusal(document))
    if failed:
        document["failed"] = failed
    if errors:
        decisive = worst(errors)
        decisive.details = decisive.details | document
        raise decisive
    return document


@dataclass(frozen=True, kw_only=True)
class _Pruning:
    """The pruning of one source, and the document that says what was done so far."""

    run: Run
    name: str
    document: Document
    as_json: bool

    def show(self) -> str | None:
        """Plan and delete nothing; return why all is kept, if it is."""
        from opskit.operations import run as runtime

        sets = self.run.listing(self.name, whole=True).of(self.name)
        planned = self._plan(sets, runtime.now())
        for each in reversed(planned.delete):  # in the order that they would go in
            say(f"would delete {each}: no rule keeps it", as_json=self.as_json)
            self.document["delete"].append({"backup_id": each})
        return planned.refused

    def carry_out(self) -> str | None:
        """Delete what no rule keeps, and what killed runs left.

        Hosts whose clocks differ meet in the stores: the lock there is held, and the
        time is that of the store whose clock is the furthest behind.
        """
        from opskit.operations import run as runtime

        run, name = self.run, self.name
        with run.lock(name, "prune"), ExitStack() as stack:
            locks = {
                store.name: stack.enter_context(run.store_lock(store, name, "prune"))
                for store in run.stores
            }
            # What is deleted, and what is left instead, was read in this very run.
            sets = run.catalog(name, whole=True).of(name)
            now = min([runtime.now(), *(each.got_at for each in locks.values())])
            planned = self._plan(sets, now)
            self._delete(sets, planned, locks)
            for store in run.stores:
                self._tidy(store, locks[store.name])
        return planned.refused

    def _plan(self, sets: Sequence[ListedSet], now: datetime) -> RetentionPlan:
        from opskit.catalog import retention
        from opskit.catalog.prune import candidates
        from opskit.operations import keys, sources

        run = self.run
        found = candidates(
            sets, trust=keys.trust(run.settings), locked_until=_locked_until(run, sets)
        )
        planned = retention.plan(found, sources.policy(run, self.name), now=now)
        for key, why in planned.keep.items():
            self._keep(key, why)
        return planned

    def _keep(self, backup_id: str, reasons: list[str]) -> None:
        say(f"keep {backup_id}: {', '.join(reasons)}", as_json=self.as_json)
        self.document["keep"].append({"backup_id": backup_id, "reasons": reasons})

    def _delete(
        self,
        sets: list[BackupSet],
        planned: RetentionPlan,
        locks: Mapping[str, HeldLock],
    ) -> None:
        from opskit.catalog.prune import delete_set, is_pinned_now
        from opskit.errors import RetentionRefused
        from opskit.operations import keys

        trust = keys.trust(self.run.settings)
        by_id = {each.manifest.backup_id: each for each in sets}
        deleted: list[str] = []
        details = {"source": self.name, "deleted": deleted, "kept": len(planned.keep)}
        # A refusal is reported when all sources are done.
        with suppress(RetentionRefused), self.run.ledgered("prune", details):
            for backup_id in reversed(planned.delete):  # the oldest first
                with self.run.unread(backup_id) as unread:
                    if not unread:
                        self._keep(backup_id, [_BEING_READ])
                        continue
                    if is_pinned_now(by_id[backup_id], trust):
                        self._keep(backup_id, ["pinned"])
                        continue
                    for require_held in locks.values():
                        require_held()
                    delete_set(by_id[backup_id])
                say(f"deleted {backup_id}: no rule keeps it", as_json=self.as_json)
                deleted.append(backup_id)
                self.document["delete"].append({"backup_id": backup_id})
            if planned.refused:
                raise RetentionRefused(planned.refused)

    def _tidy(self, store: Store, lock: HeldLock) -> None:
        """Remove what killed runs left of this source in a store."""
        from opskit.catalog import prune as catalog_prune
        from opskit.catalog.prune import sweep

        for orphan in catalog_prune.find([store], source=self.name, now=lock.got_at):
            lock()
            store.discard(orphan.prefix)
            say(
                f"removed {orphan.prefix}: a backup that never finished",
                as_json=self.as_json,
            )
        sweep(store, source=self.name, now=lock.got_at)


def _refusal(document: Document) -> RetentionRefused:
    from opskit.errors import RetentionRefused

    return RetentionRefused(
        str(document["refused"]),
        hint="Nothing of it was deleted. Do what the message says, then run "
        "`inv prune --dry-run`.",
        details=document,
    )


def _locked_until(run: Run, sets: Sequence[ListedSet]) -> dict[str, datetime]:
    """Return when the last object lock on a set ends, where it has one."""
    days = {name: each.object_lock_days for name, each in run.settings.stores.items()}
    return {
        each.summary.backup_id: each.summary.finished_at + timedelta(days=longest)
        for each in sets
        if (longest := max(days[store.name] for store in each.stores))
    }


def _confirm(run: Run, backup_id: str, *, as_json: bool) -> Document:
    """Put on record, beside every copy, that somebody looked at a sudden change."""
    from opskit.catalog.prune import confirm
    from opskit.errors import UsageError
    from opskit.operations import keys
    from opskit.operations import run as runtime

    # A confirmation that does not count must not be told as one.
    keys.require_own_trust(run.settings, what="the confirmation")
    chosen = run.catalog(whole=True).find(backup_id)
    backup_id = chosen.manifest.backup_id
    changes = list(chosen.manifest.sudden_changes)
    if not changes:
        raise UsageError(
            f"{backup_id} holds no sudden change",
            hint="`inv prune --dry-run` says which set has to be confirmed.",
        )
    details = {"source": chosen.manifest.source, "backup_id": backup_id}
    with run.ledgered("confirm", details | {"changes": changes}):
        confirm(
            chosen,
            confirmed_at=runtime.now(),
            run_id=run.run_id,
            signer=run.protection.signer,
        )
    for each in changes:
        say(f"confirmed of {backup_id}: {each}", as_json=as_json)
    return {"status": "ok", "backup_id": backup_id, "confirmed": changes}
