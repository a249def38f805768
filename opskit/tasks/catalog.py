"""`backups` and `verify`: what exists, and whether it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.checks import count
from opskit.operations.choosing import BACKUP_HELP
from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from opskit.catalog.sets import ListedSet
    from opskit.errors import OpskitError
    from opskit.operations.run import Run
    from opskit.operations.verify import Verification


@command(
    help={
        "database": "list the sets of this database only",
        "files": "list the sets of this folder of files only",
        "backup": f"show what is in this set: {BACKUP_HELP}",
        "compare": "show what differs between two sets: --compare ID ID",
        "json": "print one JSON document",
    },
    iterable=["compare"],
)
def backups(
    _context: object,
    database: str = "",
    files: str = "",
    backup: str = "",
    compare: list[str] | None = None,
    json: bool = False,
) -> Document:
    """List the backup sets, newest first; or show one, or what differs between two.

    Example: inv backups --database shop
    """
    from opskit.errors import UsageError
    from opskit.operations import run as runtime
    from opskit.operations import sources
    from opskit.tasks import contents

    run = runtime.start()
    source = sources.of_sets(run, database=database, files=files)
    if backup and compare:
        raise UsageError(
            "--backup and --compare do not go together", hint="Give one of them."
        )
    if backup:
        return contents.show(run, backup, source, as_json=json)
    if compare:
        return contents.compare(run, compare, source, as_json=json)
    return _list(run, source, as_json=json)


def _list(run: Run, source: str, *, as_json: bool) -> Document:
    found = run.listing(source or None)
    documents = [_describe(each) for each in found.sets]
    rows = [
        [
            document["backup_id"],
            text.moment(each.summary.finished_at),
            f"{text.duration(document['age_seconds'])} ago",
            text.size(document["size_bytes"]),
            f"{each.proof}{', pinned' if each.is_pinned else ''}",
            ", ".join(document["stores"]),
        ]
        for document, each in zip(documents, found.sets, strict=True)
    ]
    head = ["backup set", "finished", "age", "size", "proof", "stores"]
    for line in (
        text.table(head, rows) if rows else ["no backup set yet: run `inv backup`"]
    ):
        say(line, as_json=as_json)
    for bad in found.unreadable:
        say(f"cannot be used: {bad.store}: {bad.reason}", as_json=as_json)
    for error in found.unreachable:
        say(f"cannot be reached: {error.message}", as_json=as_json)
    return {
        "status": "ok",
        "backups": documents,
        "unreadable": [vars(bad) for bad in found.unreadable],
        "unreachable": [error.message for error in found.unreachable],
    }


def _describe(each: ListedSet) -> Document:
    from opskit.operations import run as runtime

    summary = each.summary
    return {
        "backup_id": summary.backup_id,
        "source": summary.source,
        "finished_at": summary.finished_at.isoformat(),
        "age_seconds": round((runtime.now() - summary.finished_at).total_seconds()),
        "size_bytes": summary.size_bytes,
        "proof": each.proof,
        "pinned": each.is_pinned,
        "stores": [store.name for store in each.stores],
    }


@command(
    help={
        "backup": f"verify this set only: {BACKUP_HELP}",
        "json": "print one JSON document",
    }
)
def verify(_context: object, backup: str = "", json: bool = False) -> Document:
    """Read every stored object again and compare its size and digest.

    Example: inv verify --backup shop-20260101T030000Z-a1b2c3
    """
    from opskit.catalog.verify import BadObject
    from opskit.errors import UsageError
    from opskit.operations import run as runtime
    from opskit.operations.verify import Verification, unlisted
    from opskit.tasks.drill import not_recorded

    run = runtime.start()
    found = run.catalog()
    chosen = [found.find(backup)] if backup else list(found.sets)
    only = chosen[0].manifest.backup_id if backup else ""
    # A store that is away is not asked again.
    not_read = [*found.unreachable] or ([] if backup else unlisted(run))
    if not chosen and not found.unreadable and not not_read:
        raise UsageError(
            "there is no backup set to verify",
            hint="Take one with `inv backup`; a check of nothing is no check.",
        )
    result = Verification(not_read=not_read)
    result.bad += [
        BadObject(key=each.key, reason=each.reason)
        for each in found.unreadable
        if not backup or f"/{only}/" in each.key
    ]
    with run.ledgered("verify", {"sets": len(chosen)}) as details:
        for each in chosen:
            state = result.add(run, each)
            say(
                f"{state}: {each.manifest.backup_id}, "
                f"{count(len(each.manifest.objects), 'object')}",
                as_json=json,
            )
        document = _document(result)
        for bad in result.bad:
            say(f"  {bad.key}: {bad.reason}", as_json=json)
        details |= {"objects": result.objects, "bad": len(result.bad)}
        error = _verify_error(result, document)
        if error is not None:
            raise error
        if not result.objects:
            raise UsageError(
                "the sets were deleted before they could be verified",
                hint="Run this again: nothing was verified.",
            )
    if result.unstored:
        raise not_recorded(result.unstored[0], document)
    return document


def _document(result: Verification) -> Document:
    not_read = [*result.unreachable.values(), *result.not_read]
    document: Document = {
        "status": "failed" if result.bad or not_read else "ok",
        "objects": result.objects,
        "bytes": result.size_bytes,
        "bad": [{"key": each.key, "reason": each.reason} for each in result.bad],
    }
    if not_read:
        document["not_read"] = list(dict.fromkeys(each.message for each in not_read))
    return document


def _verify_error(result: Verification, document: Document) -> OpskitError | None:
    """Return the error of what was found, or of what was not read; None if all is well.

    Damage is worse than a store that did not answer.
    """
    from opskit.errors import IntegrityError, ObjectNotFound

    if not result.bad:
        not_read = [*result.unreachable.values(), *result.not_read]
        if not not_read:
            return None
        not_read[0].details = not_read[0].details | document
        return not_read[0]
    bad = result.bad
    kind = ObjectNotFound if all(each.missing for each in bad) else IntegrityError
    return kind(
        f"{count(len(bad), 'object')} damaged or missing; the first: "
        f"{bad[0].key}: {bad[0].reason}",
        hint="Do not rely on these sets; take a new backup and look after the store.",
        details=document,
    )
