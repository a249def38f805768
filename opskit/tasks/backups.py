"""`backups`: which backup sets there are, what is in one, what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opskit.checks import count
from opskit.tasks import format as text
from opskit.tasks.command import BACKUP_HELP, Say, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.catalog.manifest import Manifest
    from opskit.operations.outcome import Outcome
    from opskit.operations.sets import ListedSets


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
    from opskit.errors import UsageError
    from opskit.operations import sets
    from opskit.operations.run import start

    if backup and compare:
        raise UsageError(
            "--backup and --compare do not go together", hint="Give one of them."
        )
    request = sets.BackupsRequest(database=database, files=files)
    if backup:
        shown = sets.show_set(start(), request, backup)
        if shown.result is not None:
            say(*_contents(shown.result.as_json(), shown.result.chosen.manifest))
        return shown
    if compare:
        compared = sets.compare_sets(start(), request, compare)
        if compared.result is not None:
            say(*_differences(compared.result.as_json()))
        return compared
    listed = sets.list_sets(start(), request)
    if listed.result is not None:
        say(*_list(listed.result))
    return listed


def _list(listed: ListedSets) -> Iterator[str]:
    rows = [
        [
            each.summary.backup_id,
            text.moment(each.summary.finished_at),
            f"{text.duration((listed.at - each.summary.finished_at).total_seconds())}"
            " ago",
            text.size(each.summary.size_bytes),
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


def _contents(document: dict[str, Any], manifest: Manifest) -> list[str]:
    size = text.size(document["size_bytes"])
    pairs = [
        ("backup set", document["backup_id"]),
        ("source", f"{document['source']} ({_made_by(manifest)})"),
        ("state of", text.moment(manifest.snapshot_at)),
        (
            "finished",
            f"{text.moment(manifest.finished_at)}, "
            f"{text.duration(document['age_seconds'])} ago",
        ),
        ("size", f"{size} in {count(document['objects'], 'object')}"),
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
        return "a folder of files"
    return f"PostgreSQL {manifest.server_version}, pg_dump {manifest.client_version}"


def _differences(document: dict[str, Any]) -> Iterator[str]:
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
