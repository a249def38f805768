"""`prune`: what retention lets go."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from opskit.catalog.catalog import BackupSet
    from opskit.catalog.retention import RetentionPlan
    from opskit.catalog.sets import KnownSet
    from opskit.tasks.runtime import Runtime

_BEING_READ = "a drill or a restore is reading it"


@command(
    help={
        "dry-run": "print the plan and delete nothing",
        "confirm": "say that a set's sudden change is right, and delete nothing",
        "json": "print one JSON document",
    }
)
def prune(
    _context: object, dry_run: bool = False, confirm: str = "", json: bool = False
) -> Document:
    """Delete the backup sets that no retention rule keeps.

    Example: inv prune --dry-run
    """
    from opskit.catalog import orphans
    from opskit.catalog.prune import remove_orphans
    from opskit.errors import UsageError
    from opskit.tasks import runtime, sources

    run = runtime.start()
    if confirm:
        if dry_run:
            raise UsageError(
                "--confirm and --dry-run do not go together", hint="Give one of them."
            )
        return _confirm(run, confirm, as_json=json)
    keep: list[Document] = []
    delete: list[Document] = []
    refused: list[str] = []
    for name in sources.every(run):
        with run.lock(name, "prune"):
            # What is deleted, and what is left instead, was read in this very run.
            sets = [] if dry_run else run.catalog(name, whole=True).of(name)
            known = run.listing(name, whole=True).of(name) if dry_run else sets
            planned = _plan(run, name, known)
            keep += [
                {"backup_id": key, "reasons": why} for key, why in planned.keep.items()
            ]
            if planned.refused:
                refused.append(f"{name}: {planned.refused}")
            for line in _plan_lines(planned, dry_run=dry_run):
                say(line, as_json=json)
            read: list[str] = []
            if not dry_run:
                read = _carry_out(run, name, sets, planned)
                for each in read:
                    say(f"keep {each}: {_BEING_READ}", as_json=json)
                found = orphans.find(run.stores, source=name, now=runtime.now())
                remove_orphans(
                    found,
                    told=lambda each: say(
                        f"removed {each.prefix}: a backup that never finished",
                        as_json=json,
                    ),
                )
            keep += [{"backup_id": each, "reasons": [_BEING_READ]} for each in read]
            delete += [{"backup_id": e} for e in planned.delete if e not in read]
    document: Document = {
        "keep": keep,
        "delete": delete,
        "refused": "; ".join(refused) or None,
    }
    if refused:
        raise _refusal(document)
    return document


def _refusal(document: Document) -> Exception:
    from opskit.errors import RetentionRefused

    return RetentionRefused(
        str(document["refused"]),
        hint="Nothing of it was deleted. Do what the message says, then run "
        "`inv prune --dry-run`.",
        details=document,
    )


def _plan(run: Runtime, name: str, sets: Sequence[KnownSet]) -> RetentionPlan:
    from opskit.catalog import retention
    from opskit.catalog.prune import candidates
    from opskit.tasks import keys, runtime, sources

    found = candidates(
        sets, trust=keys.trust(run.settings), locked_until=_locked_until(run, sets)
    )
    return retention.plan(found, sources.policy(run, name), now=runtime.now())


def _locked_until(run: Runtime, sets: Sequence[KnownSet]) -> dict[str, datetime]:
    """Return when the last object lock on a set ends, where it has one."""
    days = {name: each.object_lock_days for name, each in run.settings.stores.items()}
    return {
        each.summary.backup_id: each.summary.finished_at + timedelta(days=longest)
        for each in sets
        if (longest := max(days[store.name] for store in each.stores))
    }


def _confirm(run: Runtime, backup_id: str, *, as_json: bool) -> Document:
    """Put on record, beside every copy, that somebody looked at a sudden change."""
    from opskit.catalog.prune import confirm
    from opskit.errors import UsageError
    from opskit.tasks import keys, runtime

    # A confirmation that does not count must not be told as one.
    keys.require_own_trust(run.settings, what="the confirmation")
    chosen = run.catalog(whole=True).find(backup_id)
    changes = list(chosen.manifest.sudden_changes)
    if not changes:
        raise UsageError(
            f"{backup_id} holds no sudden change",
            hint="`inv prune --dry-run` says which set has to be confirmed.",
        )
    details = {"source": chosen.manifest.source, "backup_id": backup_id}
    with run.recorded("confirm", details | {"changes": changes}):
        confirm(
            chosen,
            confirmed_at=runtime.now(),
            run_id=run.run_id,
            signer=run.protection.signer,
        )
    for each in changes:
        say(f"confirmed of {backup_id}: {each}", as_json=as_json)
    return {"status": "ok", "backup_id": backup_id, "confirmed": changes}


def _plan_lines(planned: RetentionPlan, *, dry_run: bool) -> list[str]:
    verb = "would delete" if dry_run else "deleting"
    return [
        *(f"keep {key}: {', '.join(why)}" for key, why in planned.keep.items()),
        *(f"{verb} {each}: no rule keeps it" for each in planned.delete),
    ]


def _carry_out(
    run: Runtime, name: str, sets: list[BackupSet], planned: RetentionPlan
) -> list[str]:
    """Delete what the plan says, and return the sets that are being read instead."""
    from opskit.catalog.prune import delete_set
    from opskit.errors import RetentionRefused

    by_id = {each.manifest.backup_id: each for each in sets}
    deleted: list[str] = []
    read: list[str] = []
    details = {"source": name, "deleted": deleted, "kept": len(planned.keep)}
    # That a source was refused is told when all of them are done.
    with suppress(RetentionRefused), run.recorded("prune", details):
        for backup_id in reversed(planned.delete):  # the oldest first
            with run.unread(backup_id) as unread:
                if unread:
                    delete_set(by_id[backup_id])
                (deleted if unread else read).append(backup_id)
        if planned.refused:
            raise RetentionRefused(planned.refused)
    return read
