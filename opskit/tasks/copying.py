"""`copy`: bring one store up to date with another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from opskit.catalog.catalog import BackupSet
    from opskit.catalog.copying import CopyResult
    from opskit.errors import StoreError
    from opskit.store import Store
    from opskit.tasks.runtime import Runtime


@command(
    help={
        "from": "the store to copy from",
        "to": "the store to bring up to date",
        "backup": "copy this set only",
        "json": "print one JSON document",
    }
)
def copy(
    _context: object,
    from_: str = "",
    to: str = "",
    backup: str = "",
    json: bool = False,
) -> Document:
    """Copy the sets that a store lacks from another one, and verify them there.

    Example: inv copy --from local --to offsite
    """
    from opskit.errors import OpskitError, UsageError
    from opskit.tasks import runtime
    from opskit.tasks.drill import not_recorded

    run = runtime.start()
    source, target = _store(run, "--from", from_), _store(run, "--to", to)
    if source is target:
        raise UsageError(
            f"--from and --to are both {to}", hint="Name two different stores."
        )
    found = run.catalog_of(source)
    chosen = [found.find(backup)] if backup else list(found.sets)
    if not chosen and not found.unreadable:
        raise UsageError(
            f"store {source.name} holds no backup set",
            hint="Check its url; `inv backups` lists what each store holds.",
        )
    copied: list[Document] = []
    unstored: list[StoreError] = []
    failed: list[Document] = [
        {"key": bad.key, "reason": bad.reason}
        for bad in (() if backup else found.unreadable)
    ]

    def tell(result: CopyResult) -> None:
        copied.append(_describe(result))
        say(_line(result, target), as_json=json)

    details = {"from": source.name, "to": target.name, "sets": len(chosen)}
    with run.recorded("copy", details) as record:
        # The oldest first: what is cut short has copied what prune would keep longest.
        try:
            for each in reversed(chosen):
                failed += _copy(run, each, source, target, tell, unstored)
        except OpskitError as error:
            error.details = error.details | {"sets": copied, "bad": failed}
            raise
        record |= {
            "copied": sum(bool(each["copied"]) for each in copied),
            "failed": len(failed),
        }
        document: Document = {
            "status": "failed" if failed else "ok",
            "from": source.name,
            "to": target.name,
            "sets": copied,
            "bad": failed,
        }
        if failed:
            raise _failure(failed, document)
    if unstored:
        raise not_recorded(unstored[0], document)
    return document


def _store(run: Runtime, flag: str, name: str) -> Store:
    from opskit.errors import UsageError

    for each in run.stores:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in run.stores)
    raise UsageError(
        f"{flag} {name} is no configured store" if name else f"{flag} is needed",
        hint=f"Name one of: {known}.",
    )


def _copy(
    run: Runtime,
    each: BackupSet,
    source: Store,
    target: Store,
    tell: Callable[[CopyResult], None],
    unstored: list[StoreError],
) -> list[Document]:
    """Copy one set, read it in the target, and leave evidence of that there.

    Returns what is damaged. To `unstored` goes why evidence could not be left.
    """
    from opskit.catalog.copying import copy_set
    from opskit.errors import IntegrityError
    from opskit.tasks import runtime
    from opskit.tasks.verifying import record_verification

    manifest = each.manifest
    started_at = runtime.now()
    with (
        run.lock(manifest.source, "copy"),
        run.store_lock(target, manifest.source, "copy") as require_held,
    ):
        try:
            result = copy_set(manifest, source, target, require_held=require_held)
        except IntegrityError as error:
            return [{"key": manifest.prefix, "reason": error.message}]
        verified = result.verified
        if verified is not None and (result.copied or verified.bad):
            amiss = record_verification(run, each, target, verified, started_at)
            unstored += [] if amiss is None else [amiss]
    if verified is not None and verified.bad:
        return [
            {"key": bad.key, "reason": f"in store {target.name}: {bad.reason}"}
            for bad in verified.bad
        ]
    tell(result)
    return []


def _describe(result: CopyResult) -> Document:
    return {
        "backup_id": result.backup_id,
        "copied": result.copied,
        "added": len(result.added),
        "bytes": 0 if result.verified is None else result.verified.size_bytes,
    }


def _line(result: CopyResult, target: Store) -> str:
    if result.copied and result.verified is not None:
        size = text.size(result.verified.size_bytes)
        return f"copied {result.backup_id}: {size}, verified in {target.name}"
    if result.added:
        return f"completed {result.backup_id}: {len(result.added)} records beside it"
    return f"there already: {result.backup_id}"


def _failure(failed: list[Document], document: Document) -> Exception:
    from opskit.errors import IntegrityError

    return IntegrityError(
        f"{len(failed)} things are not right; the first: {failed[0]['key']}: "
        f"{failed[0]['reason']}",
        hint="What was copied now is whole. What is named is damaged in the store that "
        "its reason names; `inv verify` tells all of it.",
        details=document,
    )
