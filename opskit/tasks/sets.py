"""What works on sets: `backups`, `verify`, `pin`, `prune`, `copy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opskit.checks import count, duration, size
from opskit.errors import UsageError
from opskit.tasks import output as text
from opskit.tasks.command import BACKUP_HELP, command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.catalog.copying import CopyResult
    from opskit.catalog.manifest import Manifest
    from opskit.operations.copy import Copied
    from opskit.operations.outcome import Outcome
    from opskit.operations.pin import Pinned
    from opskit.operations.prune import PruneStep
    from opskit.operations.sets import ComparedSets, ListedSets, ShownSet
    from opskit.operations.verify import Verified


@command(
    help={
        "database": "list the sets of this database only",
        "files": "list the sets of this folder only",
        "backup": f"show what is in this set: {BACKUP_HELP}",
        "compare": "show what differs between two sets: --compare ID ID",
    },
    iterable=["compare"],
)
def backups(
    say: Say,
    database: str = "",
    files: str = "",
    backup: str = "",
    compare: list[str] | None = None,
    json: bool = False,
) -> Outcome[Any]:
    """List the backup sets, newest first; or show one, or what differs between two.

    Example: inv backups --database shop
    """
    from opskit.operations import sets
    from opskit.watch.runs import start

    if backup and compare:
        raise UsageError(
            "--backup and --compare cannot be given together", hint="Give one of them."
        )
    request = sets.BackupsRequest(database=database, files=files)
    if backup:
        return say.result(sets.show_set(start(), request, backup), _contents)
    if compare:
        return say.result(sets.compare_sets(start(), request, compare), _differences)
    return say.result(sets.list_sets(start(), request), _list)


def _list(listed: ListedSets) -> Iterator[str]:
    rows = [
        [
            each.backup_id,
            text.moment(each.finished_at),
            f"{duration((listed.at - each.finished_at).total_seconds())} ago",
            size(each.size_bytes),
            f"{each.proof}{', pinned' if each.is_pinned else ''}",
            ", ".join(store.name for store in each.stores),
        ]
        for each in listed.listing.sets
    ]
    if rows:
        yield from text.table(
            ["backup set", "finished", "age", "size", "proof", "stores"], rows
        )
    else:
        yield "no backup set yet: run `inv backup`"
    for bad in listed.listing.unreadable:
        yield f"cannot be used: {bad.store}: {bad.reason}"
    for error in listed.listing.unreachable:
        yield f"cannot be reached: {error.message}"


def _contents(shown: ShownSet) -> list[str]:
    document, manifest = shown.as_json(), shown.chosen.manifest
    stored = size(document["size_bytes"])
    pairs = [
        ("backup set", document["backup_id"]),
        ("source", f"{document['source']} ({_made_by(manifest)})"),
        ("state of", text.moment(manifest.snapshot_at)),
        (
            "finished",
            f"{text.moment(manifest.finished_at)}, "
            f"{duration(document['age_seconds'])} ago",
        ),
        ("size", f"{stored} in {count(document['objects'], 'object')}"),
        ("encrypted", "yes" if document["encrypted"] else "no"),
        ("signed", "yes" if document["signed"] else "no"),
        ("pinned", "yes" if document["pinned"] else "no"),
        ("stores", ", ".join(document["stores"])),
        ("proof", document["proof"]),
    ]
    lines = [f"{name:<12}{value}" for name, value in pairs]
    for kind, label in (("drills", "drilled"), ("verifications", "verified")):
        for each in document[kind]:
            outcome = "passed" if each["passed"] else "FAILED"
            lines.append(f"{label:<12}{each['time']} {outcome}, {each['store']}")
    lines += [f"warning     {each}" for each in document["warnings"]]
    lines += [f"changed     {each}" for each in document["sudden_changes"]]
    if manifest.kind == "files":
        return [*lines, f"files       {document['files']}"]
    rows = [
        [f"{each['schema']}.{each['name']}", str(each["rows"])]
        for each in document["contents"]
    ]
    total = ["all tables", str(document["rows"])]
    return [*lines, "", *text.table(["table", "rows"], [*rows, total])]


def _made_by(manifest: Manifest) -> str:
    if manifest.kind == "files":
        return "a folder"
    return f"PostgreSQL {manifest.server_version}, pg_dump {manifest.client_version}"


def _differences(compared: ComparedSets) -> Iterator[str]:
    document = compared.as_json()
    yield f"from {document['older']} to {document['newer']}:"
    for key, value in document.items():
        what, _, change = key.rpartition("_")
        if change in ("added", "removed", "changed") and isinstance(value, list):
            for each in value:
                yield f"  {change:<8}{what[:-1]} {_difference_text(each)}"
        elif key == "large_objects_changed" and value:
            yield (
                f"  changed large objects: {document['large_objects_before']} before, "
                f"{document['large_objects_after']} after"
            )
        elif key.endswith("_not_compared") and value:
            what = key.removesuffix("_not_compared").replace("_", " ")
            number = f"{len(value)} {what}" if isinstance(value, list) else what
            yield f"  not compared: {number}; that needs an identity of the sets"
        elif change == "unchanged":
            yield f"  unchanged: {value} {what}"
    if document["equal"]:
        yield "  no difference"


def _difference_text(each: Any) -> str:
    """Return one difference: its name, and what was before and is after."""
    if isinstance(each, str):
        return each
    name = ".".join(each[key] for key in ("schema", "name", "path") if key in each)
    amounts = [key.removesuffix("_before") for key in each if key.endswith("_before")]
    moved = [
        f"{what.replace('_', ' ')} {each[f'{what}_before']} -> {each[f'{what}_after']}"
        for what in amounts
        if each[f"{what}_before"] != each[f"{what}_after"]
    ]
    if amounts:
        return f"{name}: {', '.join(moved) or 'as much as before, but not the same'}"
    return f"{name}: {count(each['rows'], 'row')}" if "rows" in each else name


@command(
    help={
        "database": "verify the newest set of this database only",
        "files": "verify the newest set of this folder only",
        "backup": f"verify this set only: {BACKUP_HELP}",
    }
)
def verify(
    say: Say,
    database: str = "",
    files: str = "",
    backup: str = "",
    json: bool = False,
) -> Outcome[Verified]:
    """Read every stored object again and compare its size and digest.

    Example: inv verify --database shop
    """
    from opskit.operations.verify import VerifyRequest
    from opskit.operations.verify import verify as verify_sets
    from opskit.watch.runs import start

    outcome = verify_sets(
        start(),
        VerifyRequest(backup=backup, database=database, files=files),
        on_set=lambda manifest, state: say(
            f"{state}: {manifest.backup_id}, {count(len(manifest.objects), 'object')}"
        ),
    )
    return say.result(
        outcome, lambda verified: (f"  {e.key}: {e.reason}" for e in verified.bad)
    )


@command(
    help={
        "backup": f"the set to keep: {BACKUP_HELP}",
        "remove": "remove the pin; retention decides about the set again",
    },
    required=["backup"],
)
def pin(
    say: Say, backup: str = "", remove: bool = False, json: bool = False
) -> Outcome[Pinned]:
    """Keep a backup set, whatever the retention rules say, until the pin is removed.

    Example: inv pin --backup shop-20260101T030000Z-a1b2c3
    """
    from opskit.operations.pin import PinRequest
    from opskit.operations.pin import pin as pin_set
    from opskit.watch.runs import start

    return say.result(
        pin_set(start(), PinRequest(backup=backup, remove=remove)), _pinned
    )


def _pinned(done: Pinned) -> Iterator[str]:
    state = "pinned" if done.pinned else "not pinned"
    yield f"{done.backup_id} is {state}{'' if done.changed else ' already'}"


@command(
    help={
        "dry-run": "print the plan and delete nothing",
        "confirm": "the set whose sudden change is right; deletes nothing",
    }
)
def prune(
    say: Say, dry_run: bool = False, confirm: str = "", json: bool = False
) -> Outcome[Any]:
    """Delete the backup sets that no retention rule keeps.

    Example: inv prune --dry-run
    """
    from opskit.operations.pin import ConfirmRequest
    from opskit.operations.pin import confirm as confirm_set
    from opskit.operations.prune import PruneRequest
    from opskit.operations.prune import prune as prune_sources
    from opskit.watch.runs import start

    if confirm and dry_run:
        raise UsageError(
            "--confirm and --dry-run cannot be given together", hint="Give one of them."
        )
    if confirm:
        return say.result(
            confirm_set(start(), ConfirmRequest(backup=confirm)),
            lambda done: (f"confirmed of {done.backup_id}: {e}" for e in done.changes),
        )
    outcome = prune_sources(
        start(),
        PruneRequest(dry_run=dry_run),
        on_step=lambda step: say(_pruned_line(step, dry_run=dry_run)),
    )
    return say.result(
        outcome,
        lambda pruned: (
            f"{name} is not pruned: {error.message}" for name, error in pruned.failed
        ),
    )


def _pruned_line(step: PruneStep, *, dry_run: bool) -> str:
    if step.action == "keep":
        return f"keep {step.what}: {', '.join(step.reasons)}"
    if step.action == "remove":
        return f"removed {step.what}: a backup that never finished"
    done = "would delete" if dry_run else "deleted"
    return f"{done} {step.what}: no rule keeps it"


@command(
    help={
        "from": "the store to copy from",
        "to": "the store to bring up to date",
        "backup": f"copy this set only: {BACKUP_HELP}",
    },
    required=["from", "to"],
)
def copy(
    say: Say, from_: str = "", to: str = "", backup: str = "", json: bool = False
) -> Outcome[Copied]:
    """Copy the sets that a store lacks from another one, and verify them there.

    Example: inv copy --from local --to offsite
    """
    from opskit.operations.copy import CopyRequest
    from opskit.operations.copy import copy as copy_sets
    from opskit.watch.runs import start

    outcome = copy_sets(
        start(),
        CopyRequest(from_store=from_, to_store=to, backup=backup),
        on_set=lambda result: say(_copied_line(result, to)),
    )
    return say.result(
        outcome, lambda copied: (f"not copied: {e.message}" for e in copied.locked)
    )


def _copied_line(result: CopyResult, target: str) -> str:
    stored = size(result.verified.size_bytes)
    verified = f"{result.backup_id}: {stored}, verified in {target}"
    if result.copied:
        return f"copied {verified}"
    if result.repaired:
        return f"repaired {verified}; objects stored again: {len(result.repaired)}"
    if result.added:
        return f"completed {verified}; records put beside it: {len(result.added)}"
    return f"there already: {verified}"
