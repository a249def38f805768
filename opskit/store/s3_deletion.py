"""Tries what an S3 server lets these credentials delete, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from opskit.errors import StoreError
from opskit.store.s3 import errors
from opskit.store.s3.trial import BATCH_MAX, pages
from opskit.store.s3_scratch import Scratch, denied, refused

_LOCK_SECONDS = 4


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """What the credentials may delete; `versions` is None where there are none."""

    objects: bool
    versions: bool | None

    @property
    def complete(self) -> bool:
        """Whether nothing is left of what is deleted."""
        return self.objects and self.versions is not False


@dataclass(frozen=True, kw_only=True)
class Lock:
    """Whether an object under a short lock was kept, and is told to be locked."""

    told: bool
    plainly: bool
    with_bypass: bool


def deletion(scratch: Scratch) -> Deletion:
    """Delete an object, and the version that is left of it."""
    version = scratch.put("delete").get("VersionId")
    objects = _allowed(lambda: scratch.on("delete_object", "delete"))
    versions = None
    if version is not None:
        versions = _allowed(
            lambda: scratch.on("delete_object", "delete", VersionId=version)
        )
    return Deletion(objects=objects, versions=versions)


def delete_batch(scratch: Scratch, names: Sequence[str]) -> list[str]:
    """Delete up to 1,000 of them by one request; return those that are still there."""
    wanted = [{"Key": scratch.full(f"many/{name}")} for name in names[:BATCH_MAX]]
    scratch.call("delete_objects", Delete={"Objects": wanted, "Quiet": True})
    left = {name for page in pages(scratch, BATCH_MAX) for name in page}
    return sorted(left & set(names[:BATCH_MAX]))


def lock(scratch: Scratch, mode: str) -> Lock:
    """Lock an object for seconds, and try to delete it.

    Args:
        mode: GOVERNANCE or COMPLIANCE.
    """
    begin = scratch.server_time() or datetime.now(UTC)
    scratch.locked_until = time.monotonic() + _LOCK_SECONDS + 1
    version = scratch.put(
        "locked",
        ObjectLockMode=mode,
        ObjectLockRetainUntilDate=begin + timedelta(seconds=_LOCK_SECONDS),
    ).get("VersionId")
    which = {"VersionId": version} if version is not None else {}
    told = scratch.on("head_object", "locked", **which).get("ObjectLockMode") == mode
    plainly = _stays(scratch, which, {})
    bypass = plainly and _stays(scratch, which, {"BypassGovernanceRetention": True})
    if not bypass:
        scratch.locked_until = 0.0  # it is gone, so nothing has to be waited for
    return Lock(plainly=plainly, with_bypass=bypass, told=told)


def _stays(scratch: Scratch, which: dict[str, str], options: dict[str, object]) -> bool:
    """Try to delete the locked object; return whether it is still there."""
    try:
        scratch.on("delete_object", "locked", **which, **options)
    except StoreError as error:
        if not refused(error):
            raise
    try:
        scratch.on("head_object", "locked", **which)
    except StoreError as error:
        if errors.is_missing(error.__cause__):
            return False
        raise
    return True


def _allowed(call: Callable[[], object]) -> bool:
    try:
        call()
    except StoreError as error:
        if not denied(error):
            raise
        return False
    return True
