"""private.json: what the manifest of an encrypted set keeps from those without a key.

The manifest must be readable on a host that can decrypt nothing. But the digest of a
small table confirms a guess of its rows, and roles have digests of their passwords and
settings. So these stand in an encrypted object.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from opskit.catalog.manifest import (
    PRIVATE_DIGESTS_VERSION,
    DatabaseManifest,
    FolderManifest,
    Manifest,
    TableRecord,
    is_bounded,
)
from opskit.errors import IntegrityError
from opskit.postgres.inventory import Role

ROLE = "private"
NAME = "private.json"
_OF_ROLES = {"password", "settings"}
_LARGE_OBJECTS = ("large objects",)

# The kind of a thing and its name: tables have two.
Place = tuple[str, ...]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Private(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _OfDatabase(_Private):
    roles: tuple[Role, ...]
    tables: list[tuple[str, str, _Digest]]
    large_objects: _Digest


class _OfFolder(_Private):
    files: list[tuple[str, _Sha256]]


class _Sealed(_Private):
    roles: tuple[Role, ...]
    seal_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def split(manifest: Manifest) -> tuple[Manifest, bytes]:
    """Return the manifest that anybody may read, and the content of private.json."""
    public = _with_digests(manifest, lambda _place, _digest: "").model_copy(
        update={"format_version": max(manifest.format_version, PRIVATE_DIGESTS_VERSION)}
    )
    if isinstance(manifest, FolderManifest):
        files = [(each.path, each.sha256) for each in manifest.files if each.sha256]
        return public, _content(_OfFolder(files=files))
    held = _OfDatabase(
        roles=manifest.inventory.roles,
        tables=[(e.schema_name, e.name, e.digest) for e in manifest.tables],
        large_objects=manifest.large_objects.digest,
    )
    roles = tuple(
        Role(**each.model_dump(exclude_unset=True, exclude=_OF_ROLES))
        for each in held.roles
    )
    return _with_roles(public, roles), _content(held)


def _content(held: BaseModel) -> bytes:
    document = held.model_dump(exclude_unset=True)
    text = json.dumps(document, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogateescape")


def join(manifest: Manifest, private: bytes) -> Manifest:
    """Return the manifest with what private.json holds of it.

    Raises:
        IntegrityError: that is not the private object of such a set.
    """
    try:
        if not is_bounded(private):
            raise ValueError("it is too large")
        document = json.loads(private.decode("utf-8", "surrogateescape"))
        return _joined(manifest, document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(manifest, f"{where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise _unreadable(manifest, str(error)) from error


def _joined(manifest: Manifest, document: object) -> Manifest:
    if manifest.format_version < PRIVATE_DIGESTS_VERSION:
        sealed = _Sealed.model_validate(document)
        whole = _with_digests(manifest, _unsealed_with(bytes.fromhex(sealed.seal_key)))
        return _with_roles(whole, sealed.roles)
    if isinstance(manifest, FolderManifest):
        files = _OfFolder.model_validate(document).files
        return _with_digests(
            manifest, _held_in({("file", path): each for path, each in files})
        )
    held = _OfDatabase.model_validate(document)
    digests = {("table", schema, name): each for schema, name, each in held.tables}
    whole = _with_digests(
        manifest, _held_in(digests | {_LARGE_OBJECTS: held.large_objects})
    )
    return _with_roles(whole, held.roles)


def _held_in(digests: Mapping[Place, str]) -> Callable[[Place, str], str]:
    def digest(place: Place, _public: str) -> str:
        if place not in digests:
            raise ValueError(f"it has no digest of {' '.join(place)}")
        return digests[place]

    return digest


def _unsealed_with(key: bytes) -> Callable[[Place, str], str]:
    """Return what reads the digests of formats 1 and 2: covered by a pad each."""

    def digest(place: Place, sealed: str) -> str:
        covered = bytes.fromhex(sealed)
        pad = hashlib.blake2b(
            "\0".join(place).encode("utf-8", "surrogateescape"),
            digest_size=len(covered),
            key=key,
            person=b"opskit-seal",
        ).digest()
        return bytes(a ^ b for a, b in zip(covered, pad, strict=True)).hex()

    return digest


def _with_digests(manifest: Manifest, change: Callable[[Place, str], str]) -> Manifest:
    """Return the manifest with every digest changed; `change` gets its place and it."""
    if isinstance(manifest, FolderManifest):
        files = [
            each.model_copy(update={"sha256": change(("file", each.path), each.sha256)})
            if each.type == "file"
            else each
            for each in manifest.files
        ]
        return manifest.model_copy(update={"files": tuple(files)})

    def table(each: TableRecord) -> TableRecord:
        digest = change(("table", each.schema_name, each.name), each.digest)
        return each.model_copy(update={"digest": digest})

    large = manifest.large_objects
    digest = change(_LARGE_OBJECTS, large.digest)
    return manifest.model_copy(
        update={
            "tables": tuple(table(each) for each in manifest.tables),
            "large_objects": large.model_copy(update={"digest": digest}),
        }
    )


def _with_roles(manifest: Manifest, roles: tuple[Role, ...]) -> Manifest:
    if not roles or not isinstance(manifest, DatabaseManifest):
        return manifest
    inventory = manifest.inventory.model_copy(update={"roles": roles})
    return manifest.model_copy(update={"inventory": inventory})


def _unreadable(manifest: Manifest, reason: str) -> IntegrityError:
    return IntegrityError(
        f"the private object of {manifest.backup_id} cannot be read: {reason}",
        hint="Use another set or another store.",
    )
