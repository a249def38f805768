"""`backups --backup` and `--compare`: what is in a set, what differs between two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opskit.checks import count
from opskit.tasks import format as text
from opskit.tasks.command import Document, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opskit.catalog.manifest import Manifest
    from opskit.catalog.reader import SetReader
    from opskit.catalog.sets import BackupSet
    from opskit.operations.run import Run


def show(run: Run, wanted: str, source: str, *, as_json: bool) -> Document:
    """Print what is in a set, and return it."""
    from opskit.operations import run as runtime

    chosen = run.listing().find(wanted, source=source or None)
    manifest = chosen.manifest
    finished = manifest.finished_at
    document: Document = {
        "status": "ok",
        "backup_id": manifest.backup_id,
        "source": manifest.source,
        "kind": manifest.kind,
        "started_at": manifest.started_at.isoformat(),
        "snapshot_at": manifest.snapshot_at.isoformat(),
        "finished_at": finished.isoformat(),
        "age_seconds": round((runtime.now() - finished).total_seconds()),
        "server_version": manifest.server_version,
        "client_version": manifest.client_version,
        "tool_version": manifest.tool_version,
        "size_bytes": manifest.size_bytes,
        "dump_bytes": manifest.dump_bytes,
        "encrypted": manifest.encryption is not None,
        "signed": manifest.signature is not None,
        "pinned": chosen.is_pinned,
        "proof": chosen.proof,
        "stores": [store.name for store in chosen.stores],
        "tables": len(manifest.tables),
        "rows": manifest.rows,
        "files": len(manifest.files),
        "objects": len(manifest.objects),
        "large_objects": manifest.large_objects.count,
        "contents": _contents(manifest),
        "stored": [
            {"key": each.key, "size_bytes": each.size_bytes}
            for each in manifest.objects
        ],
        "drills": _evidence(chosen, "drill"),
        "verifications": _evidence(chosen, "verify"),
        "warnings": list(manifest.warnings),
        "sudden_changes": list(manifest.sudden_changes),
    }
    for line in _lines(document, manifest):
        say(line, as_json=as_json)
    return document


def _contents(manifest: Manifest) -> list[Document]:
    if manifest.kind == "files":
        return [
            {"path": each.path, "type": each.type, "size_bytes": each.size_bytes}
            for each in manifest.files
        ]
    return [
        {"schema": each.schema_name, "name": each.name, "rows": each.rows}
        for each in manifest.tables
    ]


def _evidence(chosen: BackupSet, kind: str) -> list[Document]:
    found = [
        {"time": each.at.isoformat(), "passed": each.passed, "store": copy.store.name}
        for copy in chosen.copies
        for each in copy.evidence
        if each.kind == kind
    ]
    return sorted(found, key=lambda each: str(each["time"]))


def _lines(document: Document, manifest: Manifest) -> list[str]:
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


def compare(run: Run, wanted: list[str], source: str, *, as_json: bool) -> Document:
    """Print what differs between two sets, the older one first, and return it.

    Raises:
        UsageError: they are not two sets of one kind.
    """
    from opskit.catalog.differences import differences, is_equal
    from opskit.errors import UsageError

    if len(wanted) != 2:
        raise UsageError(
            "--compare takes two backup sets",
            hint="Write `inv backups --compare ID ID`; `inv backups` lists them.",
        )
    listing = run.listing()
    found = [listing.find(each, source=source or None) for each in wanted]
    older, newer = sorted(found, key=lambda each: each.manifest.snapshot_at)
    if older.manifest.kind != newer.manifest.kind:
        raise UsageError(
            "a set of a database and one of files have nothing to compare",
            hint="Name two sets of one source.",
        )
    readers = [_reader(run, each) for each in (older, newer)]
    before, after = (
        each.manifest if reader is None else reader.opened()
        for each, reader in zip((older, newer), readers, strict=True)
    )
    found_differences = differences(before, after, with_digests=None not in readers)
    if older.manifest.kind == "postgres":
        found_differences |= _definitions(readers)
    document: Document = {
        "status": "ok",
        "older": older.manifest.backup_id,
        "newer": newer.manifest.backup_id,
        "equal": is_equal(found_differences),
        **found_differences,
    }
    for line in _difference_lines(document):
        say(line, as_json=as_json)
    return document


def _reader(run: Run, chosen: BackupSet) -> SetReader | None:
    """Return what reads a set's objects, None where it cannot be decrypted here."""
    from opskit.catalog.reader import SetReader

    if chosen.manifest.encryption is not None and run.identities is None:
        return None
    return SetReader(
        manifest=chosen.manifest, store=chosen.stores[0], identities=run.identities
    )


def _definitions(readers: Sequence[SetReader | None]) -> Document:
    """Return which objects of the schema came, went and changed, by kind and name."""
    from opskit.catalog.differences import parts
    from opskit.errors import ClientToolError

    try:
        before, after = (
            {(each.kind, each.name): each for each in reader.read_schema()}
            for reader in readers
            if reader is not None
        )
    except (ClientToolError, ValueError):  # another version's, or encrypted
        return {"definitions_not_compared": True}
    found = parts(before, after)
    return {
        "definitions_added": [f"{each.kind} {each.name}" for each in found.added],
        "definitions_removed": [f"{each.kind} {each.name}" for each in found.removed],
        "definitions_changed": [
            {
                "name": f"{old.kind} {old.name}",
                "before": old.state,
                "after": new.state,
            }
            for old, new in found.both
            if old.state != new.state
        ],
        "definitions_not_compared": False,
    }


def _difference_lines(document: Document) -> Iterator[str]:
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
