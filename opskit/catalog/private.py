"""private.json: what the manifest of an encrypted set keeps from those without a key.

The manifest must be readable on a host that can decrypt nothing. But the digest of a
small table tells whoever guesses its rows that the guess was right, and roles have
digests of their passwords and settings. So these stand in an encrypted object.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from opskit.catalog.manifest import PRIVATE_DIGESTS_VERSION, Manifest, is_bounded
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

    roles: tuple[Role, ...]


class _Digests(_Private):
    tables: list[tuple[str, str, _Digest]]
    large_objects: _Digest
    files: list[tuple[str, _Sha256]]


class _Sealed(_Private):
    seal_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def split(manifest: Manifest) -> tuple[Manifest, bytes]:
    """Return the manifest that anybody may read, and the content of private.json."""
    digests = _Digests(
        roles=manifest.inventory.roles,
        tables=[(e.schema_name, e.name, e.digest) for e in manifest.tables],
        large_objects=manifest.large_objects.digest,
        files=[(e.path, e.sha256) for e in manifest.files if e.sha256],
    )
    public = _with_digests(manifest, lambda _place, _digest: "").model_copy(
        update={"format_version": PRIVATE_DIGESTS_VERSION}
    )
    public = _with_roles(
        public,
        tuple(
            Role(**each.model_dump(exclude_unset=True, exclude=_OF_ROLES))
            for each in digests.roles
        ),
    )
    document = digests.model_dump(exclude_unset=True)
    text = json.dumps(document, ensure_ascii=False) + "\n"
    return public, text.encode("utf-8", "surrogateescape")


def join(manifest: Manifest, private: bytes) -> Manifest:
    """Return the manifest with what private.json holds of it.

    Raises:
        IntegrityError: that is not the private object of such a set.
    """
    try:
        if not is_bounded(private):
            raise ValueError("it is too large")
        document = json.loads(private.decode("utf-8", "surrogateescape"))
        if manifest.format_version < PRIVATE_DIGESTS_VERSION:
            sealed = _Sealed.model_validate(document)
            digest, roles = _unsealed_with(bytes.fromhex(sealed.seal_key)), sealed.roles
        else:
            held = _Digests.model_validate(document)
            digest, roles = _held_in(held), held.roles
        whole = _with_digests(manifest, digest)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(manifest, f"{where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise _unreadable(manifest, str(error)) from error
    return _with_roles(whole, roles)


def _held_in(digests: _Digests) -> Callable[[Place, str], str]:
    held: dict[Place, str] = {
        _LARGE_OBJECTS: digests.large_objects,
        **{("table", schema, name): each for schema, name, each in digests.tables},
        **{("file", path): each for path, each in digests.files},
    }

    def digest(place: Place, _public: str) -> str:
        if place not in held:
            raise ValueError(f"it has no digest of {' '.join(place)}")
        return held[place]

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
    tables = [
        each.model_copy(
            update={
                "digest": change(("table", each.schema_name, each.name), each.digest)
            }
        )
        for each in manifest.tables
    ]
    files = [
        each.model_copy(update={"sha256": change(("file", each.path), each.sha256)})
        if each.type == "file"
        else each
        for each in manifest.files
    ]
    large = manifest.large_objects
    return manifest.model_copy(
        update={
            "tables": tuple(tables),
            "files": tuple(files),
            "large_objects": large.model_copy(
                update={"digest": change(_LARGE_OBJECTS, large.digest)}
            ),
        }
    )


def _with_roles(manifest: Manifest, roles: tuple[Role, ...]) -> Manifest:
    if not roles:
        return manifest
    inventory = manifest.inventory.model_copy(update={"roles": roles})
    return manifest.model_copy(update={"inventory": inventory})


def _unreadable(manifest: Manifest, reason: str) -> IntegrityError:
    return IntegrityError(
        f"the private object of {manifest.backup_id} cannot be read: {reason}",
        hint="Use another set or another store.",
    )
