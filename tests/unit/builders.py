"""Builds manifests and whole sets, small ones, with whatever a test wants otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from opskit.catalog.documents import EvidenceKind, evidence_name
from opskit.catalog.manifest import (
    MANIFEST_NAME,
    DatabaseManifest,
    FolderManifest,
    Manifest,
    StoredObject,
)
from opskit.catalog.places import set_prefix
from opskit.store import Store

STARTED_AT = datetime(2026, 3, 10, 3, tzinfo=UTC)
CONTENTS: Mapping[str, bytes] = {
    "dump": b"the dump",
    "roles": b"CREATE ROLE app;\n",
    "guide": b"# Restore\n",
}


INVENTORY: dict[str, Any] = {
    "encoding": "UTF8",
    "database": "shop",
    "size_bytes": 1000,
    "locale": {"provider": "libc", "collate": "C", "ctype": "C"},
    "roles": [],
    "extensions": [],
}


def backup_id(
    source: str = "shop", started_at: datetime = STARTED_AT, suffix: str = "a1b2c3"
) -> str:
    """Return the id of a set."""
    return f"{source}-{started_at:%Y%m%dT%H%M%SZ}-{suffix}"


def manifest(
    source: str = "shop",
    started_at: datetime = STARTED_AT,
    suffix: str = "a1b2c3",
    **changes: Any,
) -> DatabaseManifest:
    """Return a manifest; `changes` are fields that are to be otherwise."""
    name = backup_id(source, started_at, suffix)
    prefix = set_prefix(source, name)
    fields: dict[str, Any] = {
        "format_version": 1,
        "backup_id": name,
        "source": source,
        "kind": "postgres",
        "started_at": started_at,
        "finished_at": started_at + timedelta(minutes=5),
        "snapshot": "00000003-0000001B-1",
        "snapshot_at": started_at + timedelta(seconds=1),
        "server_version": "16.4 (Debian 16.4-1)",
        "client_version": "17.1",
        "tool_version": "0.1",
        "dump_bytes": 100,
        "objects": [
            StoredObject(
                key=prefix + role,
                role=role,
                size_bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
            for role, content in CONTENTS.items()
        ],
        "tables": [{"schema": "public", "name": "t", "rows": 3, "digest": "0" * 32}],
        "sequences": [
            {"schema": "public", "name": "s", "last_value": -5, "is_called": True}
        ],
        "large_objects": {"count": 0, "size_bytes": 0, "digest": "0" * 32},
        "inventory": INVENTORY,
    }
    return DatabaseManifest.model_validate(fields | changes)


def folder_manifest(**changes: Any) -> FolderManifest:
    """Return the manifest of a folder; `changes` are fields that are to be otherwise."""
    like = manifest()
    stored = like.objects[0].model_copy(
        update={"role": "files", "key": like.prefix + "files"}
    )
    fields = like.model_dump() | {"kind": "files", "objects": (stored,)}
    return FolderManifest.model_validate(
        fields | {"inventory": {"path": "/a"}} | changes
    )


def store_objects(store: Store, made: DatabaseManifest) -> None:
    """Store the objects of a set, but not its manifest."""
    for each in made.objects:
        store.put(each.key, [CONTENTS[each.role]])


def store_set(
    stores: Iterable[Store],
    source: str = "shop",
    started_at: datetime = STARTED_AT,
    **changes: Any,
) -> DatabaseManifest:
    """Store a whole set, its manifest last, and return that."""
    made = manifest(source, started_at, **changes)
    for store in stores:
        store_objects(store, made)
        store.put(made.prefix + MANIFEST_NAME, [made.to_json()])
    return made


def store_evidence(
    store: Store,
    made: Manifest,
    *,
    kind: EvidenceKind,
    passed: bool,
    days_later: int = 1,
    run_id: str = "abc123",
) -> None:
    """Put evidence beside a set; only its name counts for the catalog."""
    name = evidence_name(
        kind=kind,
        passed=passed,
        finished_at=made.finished_at + timedelta(days=days_later),
        run_id=run_id,
    )
    store.put(made.prefix + name.name(), [b"{}"])
