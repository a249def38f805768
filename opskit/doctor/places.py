"""Whether there is room and permission where bytes are to go."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from opskit.checks import Finding, Health
from opskit.errors import IntegrityError, OpskitError, StoreError
from opskit.store import Store

_PROBE_BYTES = 256 * 1024
# Beside the sources' own prefixes; no source may begin with an underscore.
_PROBE_PREFIX = "_doctor/"


def examine_store(store: Store) -> Finding:
    """Write an object, read it back, find it in the listing, and delete it."""
    name = f"store {store.name}"
    key = f"{_PROBE_PREFIX}{secrets.token_hex(8)}"
    content = os.urandom(_PROBE_BYTES)
    try:
        try:
            store.put(key, [content])
            with store.open(key) as stream:
                if stream.read() != content:
                    raise IntegrityError(
                        "what was read is not what was written",
                        hint="Do not rely on this store before you know why.",
                    )
            if [each.key for each in store.list(key)] != [key]:
                raise StoreError(
                    "an object that was just written is not in the listing",
                    hint="Do not rely on this store before you know why.",
                )
        finally:
            store.delete(key)
    except OpskitError as error:
        return Finding(
            name=name, status=Health.UNHEALTHY, observed=error.message, hint=error.hint
        )
    return Finding(
        name=name,
        status=Health.HEALTHY,
        observed="writes, reads, lists and deletes",
    )


def examine_space(name: str, folder: Path, needed_bytes: int, hint: str) -> Finding:
    """Compare what is free in a folder with what will be needed."""
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            name=name,
            status=Health.UNHEALTHY,
            observed=f"{folder}: {error.strerror}",
            hint=hint,
        )
    enough = free_bytes >= needed_bytes
    return Finding(
        name=name,
        status=Health.HEALTHY if enough else Health.UNHEALTHY,
        observed=f"{free_bytes // 2**20} MiB free in {folder}",
        limit=f"at least {needed_bytes // 2**20} MiB",
        hint="" if enough else hint,
    )


def examine_folder(name: str, folder: Path, hint: str) -> Finding:
    """Look whether files can be made in a folder, or the folder itself."""
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    usable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return Finding(
        name=name,
        status=Health.HEALTHY if usable else Health.UNHEALTHY,
        observed=f"{folder} {'is' if usable else 'is not'} writable for this user",
        hint="" if usable else hint,
    )


def space_for_drills(sizes_bytes: Sequence[int]) -> int:
    """Return how much a drill of the largest database needs: the copy and the dump."""
    return 2 * max(sizes_bytes, default=0)
