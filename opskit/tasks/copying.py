"""`copy`: bring one store up to date with another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.checks import count
from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from opskit.catalog.copying import CopyResult
    from opskit.catalog.sets import BackupSet
    from opskit.errors import StoreError
    from opskit.operations.run import Run
    from opskit.store import Store


@command(
    help={
        "from": "the store to copy from",
        "to": "the store to bring up to date",
        "backup": "copy this set only: its ID, the beginning of it, or latest",
        "json": "print one JSON document",
    },
    required=["from", "to"],
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
    from opskit.errors import LockHeld, OpskitError, UsageError
    from opskit.operations import run as runtime
    from opskit.tasks.drill import not_recorded

    run = runtime.start()
    source, target = _stores(run, from_, to)
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
    with run.ledgered("copy", details) as record:
        # The oldest first: what is cut short has copied what prune would keep longest.
        locked: list[OpskitError] = []
        try:
            for each in reversed(chosen):
                try:
                    failed += _copy(run, each, source, target, tell, unstored)
                except LockHeld as error:
                    say(f"not copied: {error.message}", as_json=json)
                    locked.append(error)
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
        if locked:
            locked[0].details = locked[0].details | document
            raise locked[0]
    if unstored:
        raise not_recorded(unstored[0], document)
    return document


def _stores(run: Run, from_: str, to: str) -> tuple[Store, Store]:
    from opskit.errors import UsageError

    source, target = _store(run, "--from", from_), _store(run, "--to", to)
    if source is target:
        raise UsageError(
            f"--from and --to are both {to}", hint="Name two different stores."
        )
    return source, target


def _store(run: Run, flag: str, name: str) -> Store:
    from opskit.errors import UsageError

    for each in run.stores:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in run.stores)
    raise UsageError(
        f"{flag} {name} is no configured store",
        hint=f"Name one of: {known}.",
    )


def _copy(
    run: Run,
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
    from opskit.errors import IntegrityError, StoreError
    from opskit.operations import run as runtime
    from opskit.operations.verify import record_verification
    from opskit.progress import bar

    manifest = each.manifest
    started_at = runtime.now()
    with (
        run.lock(manifest.source, "copy"),
        run.store_lock(target, manifest.source, "copy") as require_held,
    ):
        try:
            # Each object is read twice: here, and back from the target.
            with bar(f"copying {manifest.backup_id}", 2 * manifest.size_bytes):
                result = copy_set(manifest, source, target, require_held=require_held)
        except (IntegrityError, StoreError) as error:
            if isinstance(error, StoreError):
                for store in (source, target):  # raises if it is a store as a whole
                    any(store.list(manifest.prefix))
            return [{"key": manifest.prefix, "reason": error.message}]
        if result.copied or result.repaired:
            amiss = record_verification(run, each, target, result.verified, started_at)
            unstored += [] if amiss is None else [amiss]
    tell(result)
    return []


def _describe(result: CopyResult) -> Document:
    document: Document = {
        "backup_id": result.backup_id,
        "copied": result.copied,
        "added": len(result.added),
        "bytes": result.verified.size_bytes,
    }
    if result.repaired:
        document["repaired"] = len(result.repaired)
    return document


def _line(result: CopyResult, target: Store) -> str:
    size = text.size(result.verified.size_bytes)
    verified = f"{result.backup_id}: {size}, verified in {target.name}"
    if result.copied:
        return f"copied {verified}"
    if result.repaired:
        return f"repaired {verified}; objects put anew: {len(result.repaired)}"
    if result.added:
        return f"completed {verified}; records put beside it: {len(result.added)}"
    return f"there already: {verified}"


def _failure(failed: list[Document], document: Document) -> Exception:
    from opskit.errors import IntegrityError

    return IntegrityError(
        f"{count(len(failed), 'fault')} in the sets; the first: {failed[0]['key']}: "
        f"{failed[0]['reason']}",
        hint="What was copied now is whole. What is named is damaged in the store that "
        "its reason names; `inv verify` lists all damage.",
        details=document,
    )
