"""Brings a set's objects out of the store, each checked against the manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zstandard

from opskit import workspace
from opskit.catalog.manifest import Manifest, StoredObject
from opskit.catalog.verify import checked
from opskit.errors import (
    ClientToolError,
    DatabaseError,
    IntegrityError,
    ObjectNotFound,
)
from opskit.postgres import schema
from opskit.postgres.schema import SchemaObject
from opskit.store import Store

KIND = "restore"


@contextmanager
def folder(base: Path | None) -> Iterator[Path]:
    """Sweep what killed runs left, then yield a private folder for an unpacked dump."""
    workspace.sweep(KIND, base=base, before_removal=lambda _path: None)
    with workspace.throwaway(KIND, base=base) as path:
        yield path


def require_space(path: Path, needed_bytes: int) -> None:
    """Refuse early what would fill the disk half-way.

    Raises:
        DatabaseError: less than `needed_bytes` is free there.
    """
    free_bytes = shutil.disk_usage(path).free
    if free_bytes < needed_bytes:
        raise DatabaseError(
            f"{path} has {free_bytes // 2**20} MiB free, the restore needs about "
            f"{needed_bytes // 2**20} MiB",
            hint="Free some space, or set [drill] work_dir to a larger file system.",
        )


def unpack_dump(manifest: Manifest, store: Store, target: Path) -> None:
    """Write the set's uncompressed archive to a file.

    Raises:
        IntegrityError: the stored object is missing, or not what the manifest says.
    """
    stored = manifest.object("dump")
    with (
        target.open("wb") as file,
        _integrity(stored),
        checked(store, stored) as blocks,
    ):
        writer = zstandard.ZstdDecompressor().stream_writer(file, closefd=False)
        for block in blocks:
            writer.write(block)
        writer.flush()  # type: ignore[no-untyped-call]  # its stub has no types
    size_bytes = target.stat().st_size
    if size_bytes != manifest.dump_bytes:
        raise IntegrityError(
            f"{stored.key} unpacks to {size_bytes} bytes where the manifest says "
            f"{manifest.dump_bytes}",
            hint=_HINT,
        )


def read_others(manifest: Manifest, store: Store) -> int:
    """Read every object but the dump, and return how many there are.

    Raises:
        IntegrityError: one is missing, or not what the manifest says.
    """
    others = [stored for stored in manifest.objects if stored.role != "dump"]
    for stored in others:
        _read(stored, store)
    return len(others)


def read_text(manifest: Manifest, store: Store, role: str) -> str:
    """Return a small text object of the set.

    Raises:
        IntegrityError: the stored object is missing, or not what the manifest says.
    """
    return _read(manifest.object(role), store).decode("utf-8", "surrogateescape")


def read_schema(manifest: Manifest, store: Store) -> list[SchemaObject]:
    """Return the objects that the source had at the snapshot.

    Raises:
        IntegrityError: the stored object is missing, or not what the manifest says.
        ClientToolError: another version of opskit wrote it, in another form.
    """
    stored = manifest.object("schema")
    if manifest.schema_format != schema.FORMAT:
        raise ClientToolError(
            f"{stored.key} is of format {manifest.schema_format}, this opskit compares "
            f"format {schema.FORMAT}",
            hint=f"Drill it with opskit {manifest.tool_version}, which wrote it.",
        )
    content = _read(stored, store)
    with _integrity(stored):
        lines = zstandard.ZstdDecompressor().decompressobj().decompress(content)
        text = lines.decode("utf-8", "surrogateescape")
        return [SchemaObject(*json.loads(line)) for line in text.split("\n") if line]


_HINT = "Use another set or another store; `invoke verify` tells which sets are whole."


def _read(stored: StoredObject, store: Store) -> bytes:
    with _integrity(stored), checked(store, stored) as blocks:
        return b"".join(blocks)


@contextmanager
def _integrity(stored: StoredObject) -> Iterator[None]:
    try:
        yield
    except (IntegrityError, ObjectNotFound) as error:
        reason = "it is missing" if isinstance(error, ObjectNotFound) else error.message
        raise IntegrityError(f"{stored.key}: {reason}", hint=_HINT) from error
    except zstandard.ZstdError as error:
        raise IntegrityError(
            f"{stored.key} cannot be unpacked: {error}", hint=_HINT
        ) from error
