"""What an encrypted set does not tell in its manifest, and how it is told again.

The manifest stays readable, because a catalog is made of manifests. But a digest tells
whoever can guess the content of a small table that the guess was right. So digests are
sealed (`opskit.crypto.seal`), what the roles' records say of passwords and settings is
left out, and both stand in an object of their own, encrypted like the dump: `private`.
Names, numbers of rows, sequences and sizes stay visible.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from opskit.catalog.file_record import FileRecord
from opskit.catalog.manifest import LargeObjectsRecord, Manifest, TableRecord
from opskit.crypto import seal
from opskit.errors import IntegrityError

ROLE = "private"
NAME = "private.json"
_PRIVATE_OF_ROLES = ("password", "settings")


def sealed(manifest: Manifest) -> tuple[Manifest, bytes]:
    """Return the manifest as anybody may read it, and what only the owner may."""
    key = seal.new_key()
    roles = list(manifest.inventory.get("roles", ()))
    public_roles = [
        {name: value for name, value in each.items() if name not in _PRIVATE_OF_ROLES}
        for each in roles
    ]
    public = _with_digests(
        manifest, lambda text, what: seal.seal(text, key=key, what=what)
    )
    if roles:
        inventory = manifest.inventory | {"roles": public_roles}
        public = public.model_copy(update={"inventory": inventory})
    document = {"seal_key": key.hex(), "roles": roles}
    text = json.dumps(document, ensure_ascii=False) + "\n"
    return public, text.encode("utf-8", "surrogateescape")


def opened(manifest: Manifest, private: bytes) -> Manifest:
    """Return the manifest as it was before it was sealed.

    Raises:
        IntegrityError: the private object is not one.
    """
    try:
        document = json.loads(private.decode("utf-8", "surrogateescape"))
        key = bytes.fromhex(document["seal_key"])
        roles: list[dict[str, Any]] = document["roles"]
        if not isinstance(roles, list) or not all(isinstance(e, dict) for e in roles):
            raise TypeError("its roles are no list of records")
        plain = _with_digests(
            manifest, lambda text, what: seal.unseal(text, key=key, what=what)
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(
            f"the private object of {manifest.backup_id} cannot be read: {error}",
            hint="Use another set or another store.",
        ) from error
    if not roles:
        return plain
    return plain.model_copy(update={"inventory": manifest.inventory | {"roles": roles}})


def _with_digests(manifest: Manifest, change: Callable[[str, str], str]) -> Manifest:
    """Return the manifest with every digest changed; `change` gets it and its place."""

    def table(each: TableRecord) -> TableRecord:
        what = f"table\0{each.schema_name}\0{each.name}"
        return each.model_copy(update={"digest": change(each.digest, what)})

    def file(each: FileRecord) -> FileRecord:
        if not each.sha256:
            return each
        return each.model_copy(
            update={"sha256": change(each.sha256, f"file\0{each.path}")}
        )

    large = manifest.large_objects
    return manifest.model_copy(
        update={
            "tables": tuple(table(each) for each in manifest.tables),
            "files": tuple(file(each) for each in manifest.files),
            "large_objects": LargeObjectsRecord(
                count=large.count,
                size_bytes=large.size_bytes,
                digest=change(large.digest, "large objects"),
            ),
        }
    )
