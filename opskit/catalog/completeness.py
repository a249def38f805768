"""What a manifest must say so that its set can be restored and drilled."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from opskit.catalog.naming import CATCH_ALL, ROWS

if TYPE_CHECKING:
    from opskit.catalog.manifest import Manifest

_INVENTORY: dict[str, type] = {
    "database": str,
    "size_bytes": int,
    "locale": dict,
    "roles": list,
    "extensions": list,
}


def untold(manifest: Manifest) -> list[str]:
    """Return what is missing in a manifest, in words; nothing if it is complete."""
    return [*_objects(manifest), *_surroundings(manifest)]


def _objects(manifest: Manifest) -> list[str]:
    told = list(manifest.dump_bytes_of)
    needed = told or ["files"]
    if manifest.encryption is not None:
        needed = [*needed, "private"]
    held = {each.role for each in manifest.objects}
    found = [f"it names no {role} object" for role in needed if role not in held]
    dumps = {role for role in held if role == CATCH_ALL or role.startswith(ROWS)}
    if told and (told[0] != CATCH_ALL or dumps != set(told)):
        found.append("its streams are not the dumps among its objects")
    return found


def _surroundings(manifest: Manifest) -> list[str]:
    if manifest.kind != "postgres":
        return []
    versions = {"server": manifest.server_version, "client": manifest.client_version}
    found = [
        f"{name}_version does not begin with a number"
        for name, version in versions.items()
        if not re.match(r"\d", version)
    ]
    return (
        found
        + [
            f"inventory.{name} is missing or of a wrong type"
            for name, kind in _INVENTORY.items()
            if type(manifest.inventory.get(name)) is not kind
        ]
        + [
            "inventory.size_bytes is no size"
            for size in [manifest.inventory.get("size_bytes")]
            if type(size) is int and not 0 <= size < 2**63
        ]
    )
