"""Whether there is room and permission where bytes are to go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from opskit.checks import Finding, Health
from opskit.errors import OpskitError


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


def attempted(name: str, attempt: Callable[[], str]) -> Finding:
    """Return what an attempt shows, or why it cannot be made."""
    try:
        return Finding(name=name, status=Health.HEALTHY, observed=attempt())
    except OpskitError as error:
        return Finding(
            name=name,
            status=Health.UNHEALTHY,
            observed=error.message,
            hint=error.hint,
        )


def space_for_drills(sizes_bytes: Sequence[int]) -> int:
    """Return how much a drill of the largest database needs: the copy and the dump."""
    return 2 * max(sizes_bytes, default=0)
