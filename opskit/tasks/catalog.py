"""`backups`, `verify`, `prune`: what exists, whether it is whole, what may go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from opskit.catalog.catalog import BackupSet
    from opskit.catalog.retention import RetentionPlan
    from opskit.catalog.verify import BadObject
    from opskit.config import RetentionSettings
    from opskit.tasks.runtime import Runtime


@command(
    help={
        "database": "list the sets of this database only",
        "json": "print one JSON document",
    }
)
def backups(_context: object, database: str = "", json: bool = False) -> Document:
    """List the backup sets, newest first, with what is proved of each.

    Example: inv backups --database shop
    """
    from opskit.tasks import runtime

    run = runtime.start()
    if database:
        run.database(database)
    found = run.catalog(database or None)
    documents = [_describe(each) for each in found.sets]
    rows = [
        [
            each["backup_id"],
            f"{text.duration(each['age_seconds'])} ago",
            text.size(each["size_bytes"]),
            each["proof"],
            ", ".join(each["stores"]),
        ]
        for each in documents
    ]
    head = ["backup set", "finished", "size", "proof", "stores"]
    for line in (
        text.table(head, rows) if rows else ["no backup set yet: run `inv backup`"]
    ):
        say(line, as_json=json)
    for bad in found.unreadable:
        say(f"cannot be used: {bad.store}: {bad.reason}", as_json=json)
    return {"backups": documents, "unreadable": [vars(bad) for bad in found.unreadable]}


def _describe(each: BackupSet) -> Document:
    from opskit.tasks import runtime

    manifest = each.manifest
    return {
        "backup_id": manifest.backup_id,
        "source": manifest.source,
        "finished_at": manifest.finished_at.isoformat(),
        "age_seconds": round((runtime.now() - manifest.finished_at).total_seconds()),
        "size_bytes": manifest.size_bytes,
        "proof": each.proof,
        "stores": [store.name for store in each.stores],
    }


@command(help={"backup": "verify this set only", "json": "print one JSON document"})
def verify(_context: object, backup: str = "", json: bool = False) -> Document:
    """Read every stored object again and compare its size and digest.

    Example: inv verify --backup shop-20260101T030000Z-a1b2c3
    """
    from opskit.tasks import runtime

    run = runtime.start()
    found = run.catalog()
    chosen = [found.find(backup)] if backup else list(found.sets)
    bad: list[BadObject] = [] if backup else _unreadable(found.unreadable)
    objects = size_bytes = 0
    with run.recorded("verify", {"sets": len(chosen)}) as details:
        for each in chosen:
            result = _verify(run, each)
            objects += result.objects
            size_bytes += result.size_bytes
            bad += result.bad
            state = f"{len(result.bad)} BAD" if result.bad else "ok"
            say(
                f"{state}: {each.manifest.backup_id}, {result.objects} objects",
                as_json=json,
            )
        document = {
            "status": "failed" if bad else "ok",
            "objects": objects,
            "bytes": size_bytes,
            "bad": [{"key": each.key, "reason": each.reason} for each in bad],
        }
        for each_bad in bad:
            say(f"  {each_bad.key}: {each_bad.reason}", as_json=json)
        details |= {"objects": objects, "bad": len(bad)}
        if bad:
            raise _verify_error(bad, document)
    if not chosen:
        say("there is no backup set to verify", as_json=json)
    return document


def _unreadable(found: Any) -> list[BadObject]:
    from opskit.catalog.verify import BadObject

    return [BadObject(key=bad.key, reason=bad.reason) for bad in found]


def _verify(run: Runtime, each: BackupSet) -> Any:
    """Verify a set in every store that holds it, and leave evidence beside it."""
    from opskit.catalog.verify import VerifyResult, verify_set
    from opskit.checks import Check
    from opskit.drill.evidence import Evidence, store_evidence
    from opskit.tasks import runtime

    results = []
    for store in each.stores:
        started_at = runtime.now()
        result = verify_set(each.manifest, store)
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
            manifest=each.manifest,
            started_at=started_at,
            finished_at=runtime.now(),
            checks=checks,
            phases={},
        )
        store_evidence(evidence, None, [store])
        results.append(result)
    return VerifyResult(
        objects=sum(result.objects for result in results),
        size_bytes=sum(result.size_bytes for result in results),
        bad=tuple(bad for result in results for bad in result.bad),
    )


def _verify_error(bad: list[BadObject], document: Document) -> Exception:
    from opskit.errors import IntegrityError, ObjectNotFound

    kind = ObjectNotFound if all(each.missing for each in bad) else IntegrityError
    return kind(
        f"{len(bad)} stored objects are not what was stored; the first: {bad[0].key}: "
        f"{bad[0].reason}",
        hint="Do not rely on these sets; take a new backup and look after the store.",
        details=document,
    )


@command(
    help={
        "dry-run": "print the plan and delete nothing",
        "json": "print one JSON document",
    }
)
def prune(_context: object, dry_run: bool = False, json: bool = False) -> Document:
    """Delete the backup sets that no retention rule keeps.

    Example: inv prune --dry-run
    """
    from opskit.catalog import orphans
    from opskit.catalog.prune import remove_orphans
    from opskit.tasks import runtime

    run = runtime.start()
    keep: list[Document] = []
    delete: list[Document] = []
    refused: list[str] = []
    for name in run.databases(""):
        with run.lock(name, "prune"):
            sets = run.catalog(name).of(name)
            planned = _plan(run, sets)
            keep += [
                {"backup_id": key, "reasons": why} for key, why in planned.keep.items()
            ]
            delete += [{"backup_id": each} for each in planned.delete]
            if planned.refused:
                refused.append(f"{name}: {planned.refused}")
            for line in _plan_lines(planned, dry_run=dry_run):
                say(line, as_json=json)
            if not dry_run:
                _carry_out(run, name, sets, planned)
                found = orphans.find(run.stores, source=name, now=runtime.now())
                remove_orphans(
                    found,
                    told=lambda each: say(
                        f"removed {each.prefix}: a backup that never finished",
                        as_json=json,
                    ),
                )
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
        hint="Nothing was deleted; mend [retention] and run `inv prune --dry-run`.",
        details=document,
    )


def policy(settings: RetentionSettings) -> Any:
    """Return the policy that the settings describe."""
    from opskit.catalog.retention import RetentionPolicy

    return RetentionPolicy(**settings.model_dump())


def _plan(run: Runtime, sets: list[BackupSet]) -> RetentionPlan:
    from opskit.catalog import retention
    from opskit.catalog.prune import candidates
    from opskit.tasks import runtime

    return retention.plan(
        candidates(sets), policy(run.settings.retention), now=runtime.now()
    )


def _plan_lines(planned: RetentionPlan, *, dry_run: bool) -> list[str]:
    verb = "would delete" if dry_run else "deleting"
    return [
        *(f"keep {key}: {', '.join(why)}" for key, why in planned.keep.items()),
        *(f"{verb} {each}: no rule keeps it" for each in planned.delete),
    ]


def _carry_out(
    run: Runtime, name: str, sets: list[BackupSet], planned: RetentionPlan
) -> None:
    from opskit.catalog.prune import delete_set

    by_id = {each.manifest.backup_id: each for each in sets}
    details = {
        "source": name,
        "deleted": list(planned.delete),
        "kept": len(planned.keep),
    }
    with run.recorded("prune", details):
        for backup_id in reversed(planned.delete):  # the oldest first
            delete_set(by_id[backup_id])
