"""What a server of S3 can and cannot do, and what opskit does about it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from opskit.checks import Finding, Health
from opskit.config import StoreSettings
from opskit.errors import OpskitError, StoreError
from opskit.store.s3 import trial
from opskit.store.s3 import trial as conformance
from opskit.store.s3.trial import (
    BATCH_MAX,
    DISTRUST,
    PART_BYTES,
    Answer,
    Scratch,
    aborted_upload,
    denied,
    not_implemented,
    pages,
    unanswered,
)

_LOCK_HINT = "Make a bucket with object lock, or set object_lock_days to 0."
_COST_HINT = "Let a lifecycle rule of the bucket expire noncurrent versions."


def versioning(scratch: Scratch) -> tuple[Health, str, str]:
    """Tell what stays of deleted sets."""
    try:
        state = scratch.store.versioning()
    except StoreError as error:
        if not denied(error):
            raise
        state = "Enabled" if scratch.versioned else ""
    if not state:
        return Health.HEALTHY, "off; what is deleted is gone", ""
    if state == "Suspended":
        return (
            Health.HEALTHY,
            "suspended; earlier versions of objects go on costing",
            _COST_HINT,
        )
    return (
        Health.HEALTHY,
        "on; sets that prune deletes go on costing until a lifecycle rule expires "
        "noncurrent versions",
        _COST_HINT,
    )


def object_lock(
    scratch: Scratch, settings: StoreSettings, *, may_delete: bool
) -> tuple[Health, str, str]:
    """Tell whether the store itself refuses to delete what opskit locks."""
    days = settings.object_lock_days
    try:
        found = scratch.store.lock_configuration()
    except StoreError as error:
        if not denied(error):
            raise
        if not days:
            return Health.HEALTHY, "not told to these credentials, nor used", ""
    else:
        if not found and days:
            return (
                Health.UNHEALTHY,
                f"the bucket has none, but object_lock_days is {days}",
                _LOCK_HINT,
            )
        if not days:
            return Health.HEALTHY, _unused(found or {}), ""
    return _tried(scratch, settings, may_delete=may_delete)


def _unused(found: dict[str, Any]) -> str:
    default = found.get("Rule", {}).get("DefaultRetention", {})
    if default:
        time = f"{default.get('Days') or default.get('Years')} " + (
            "days" if default.get("Days") else "years"
        )
        return (
            f"the bucket locks everything for {time} by itself; prune cannot free "
            "what is younger"
        )
    if found:
        return "the bucket has it, opskit does not use it: object_lock_days is 0"
    return "the bucket has none; whoever may delete can delete every set"


def _tried(
    scratch: Scratch, settings: StoreSettings, *, may_delete: bool
) -> tuple[Health, str, str]:
    mode, days = settings.object_lock_mode, settings.object_lock_days
    kept = trial.lock(scratch, mode.upper())
    if not may_delete and kept.told:
        return (
            Health.HEALTHY,
            f"recorded; each object is locked for {days} days ({mode}); a refusal "
            "cannot be tried, as these credentials may delete nothing",
            "",
        )
    if not may_delete:
        return (
            Health.DEGRADED,
            "a lock is taken, but the server does not tell it to these credentials",
            "Grant s3:GetObjectRetention, or run doctor once with credentials that may "
            "delete.",
        )
    if not kept.plainly:
        return (
            Health.UNHEALTHY,
            "a lock is taken without a word, and the object can still be deleted",
            "Use a provider with object lock, or set object_lock_days to 0.",
        )
    if not kept.with_bypass:
        return (
            Health.DEGRADED,
            f"honoured for {days} days ({mode}), but these very credentials may "
            "lift it",
            "Take s3:BypassGovernanceRetention from them, or set object_lock_mode to "
            '"compliance".',
        )
    return (
        Health.HEALTHY,
        f"honoured; each object is locked for {days} days ({mode})",
        "",
    )


Told = tuple[Health, str, str]
_UPLOADS_HINT = (
    "Let a lifecycle rule of the bucket abort incomplete uploads after some days."
)


class Deletion:
    """What may be deleted, found out once."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self.complete = False

    def told(self) -> Told:
        """Delete something, and tell what came of it."""
        found = trial.deletion(self._scratch)
        self.complete = found.complete
        if not found.objects:
            return (
                Health.HEALTHY,
                "these credentials may not delete: backup works, prune needs others",
                "",
            )
        if found.versions is False:
            return (
                Health.HEALTHY,
                "objects can be deleted, versions of them cannot: what prune deletes "
                "stays as noncurrent versions",
                "",
            )
        return (
            Health.HEALTHY,
            "objects and versions of them can be deleted"
            if found.versions
            else "honoured",
            "",
        )


def abort(scratch: Scratch) -> Told:
    """Begin an upload, find it, and drop it."""
    try:
        listed, gone = aborted_upload(scratch)
    except StoreError as error:
        if not (denied(error) or not_implemented(error)):
            raise
        return (
            Health.DEGRADED,
            f"{error.message}; uploads of failed runs stay",
            _UPLOADS_HINT,
        )
    if not listed:
        return (
            Health.DEGRADED,
            "uploads under way are not listed: those of killed runs cannot be found",
            _UPLOADS_HINT,
        )
    if not gone:
        return Health.DEGRADED, "an aborted upload is still listed", _UPLOADS_HINT
    return Health.HEALTHY, "honoured; uploads of killed runs are found and dropped", ""


def batch_delete(scratch: Scratch, deletion: Deletion) -> Told:
    """Delete what the listing was tried on, as many as go into one request."""
    if not deletion.complete:
        return Health.HEALTHY, "not tried: not all that is made could be deleted", ""
    names = [name for page in pages(scratch, BATCH_MAX) for name in page]
    try:
        left = trial.delete_batch(scratch, names)
    except StoreError as error:
        if unanswered(error):
            raise
        return (
            Health.HEALTHY,
            "refused; opskit deletes one by one, which takes longer",
            "",
        )
    if left:
        raise StoreError(
            f"{len(left)} objects are still listed after they were deleted",
            hint=DISTRUST,
        )
    return (
        Health.HEALTHY,
        f"{min(len(names), BATCH_MAX)} keys deleted by one request",
        "",
    )


def remove(scratch: Scratch) -> Finding | None:
    """Remove what was tried on; return what is left, and where, if it cannot be."""
    try:
        scratch.remove()
    except StoreError as error:
        where = f"{scratch.bucket.name}/{scratch.bucket.full_key(scratch.prefix)}"
        left = "something may be left"
        if not unanswered(error):
            with contextlib.suppress(StoreError):
                left = f"{scratch.left()} objects or versions of them are left"
        return Finding(
            name=f"store {scratch.store.name}: clean-up",
            status=Health.HEALTHY if denied(error) else Health.DEGRADED,
            observed=f"{left} in {where}: {error.message}",
            hint="Delete them with other credentials, or let a lifecycle rule expire "
            "what is below _doctor/.",
        )
    return None


_SECONDS_MAX = 25.0
_FILL_SECONDS = 15.0
# One more than a page holds; few where they could not be deleted again.
_KEYS, _KEYS_LEFT_BEHIND = 1001, 3
_SKEW_DEGRADED, _SKEW_UNHEALTHY = timedelta(minutes=5), timedelta(minutes=15)


def clock(scratch: Scratch, now: Callable[[], datetime]) -> Finding | StoreError:
    """Compare this machine's clock with the server's; an error if none answers."""
    before = now()
    try:
        theirs = scratch.server_time()
    except StoreError as error:
        return error
    name = f"store {scratch.store.name}: clock"
    if theirs is None:
        return Finding(
            name=name,
            status=Health.HEALTHY,
            observed="the server does not tell its own",
        )
    skew = abs(theirs - before - (now() - before) / 2)
    status = Health.HEALTHY
    if skew > _SKEW_DEGRADED:
        status = Health.DEGRADED
    if skew > _SKEW_UNHEALTHY:
        status = Health.UNHEALTHY
    return Finding(
        name=name,
        status=status,
        observed=f"differs by {skew.total_seconds():.0f} seconds from the server's",
        limit="at most 5 minutes; S3 refuses requests from 15 on",
        hint="" if status is Health.HEALTHY else "Set this host's clock (NTP).",
    )


def examine(scratch: Scratch, settings: StoreSettings) -> Iterator[Finding]:
    """Yield a finding for each thing that matters, until the server stops answering."""
    deletion = Deletion(scratch)
    steps: dict[str, Callable[[], Told]] = {
        "delete": deletion.told,
        "multipart": lambda: _multipart(scratch, deletion),
        "conditional put": lambda: _conditional_put(scratch),
        "range read": lambda: _range_read(scratch),
        "checksums": lambda: _checksums(scratch),
        "abort": lambda: abort(scratch),
        "listing": lambda: _listing(scratch, deletion),
        "batch delete": lambda: batch_delete(scratch, deletion),
        "versioning": lambda: versioning(scratch),
        "object lock": lambda: object_lock(
            scratch, settings, may_delete=deletion.complete
        ),
    }
    until = time.monotonic() + _SECONDS_MAX
    silent = ""
    for title, step in steps.items():
        if silent or time.monotonic() > until:
            status, observed, hint = _unexamined(silent)
        else:
            try:
                status, observed, hint = step()
            except OpskitError as error:
                status, hint = Health.UNHEALTHY, error.hint
                observed = error.message.removeprefix(f"store {scratch.store.name}: ")
                if isinstance(error, StoreError) and unanswered(error):
                    silent = "the server stopped answering"
        yield Finding(
            name=f"store {scratch.store.name}: {title}",
            status=status,
            observed=observed,
            hint=hint,
        )


def _unexamined(silent: str) -> Told:
    why = silent or f"the others took longer than {_SECONDS_MAX:.0f} seconds"
    return Health.DEGRADED, f"not examined: {why}", "Run doctor again."


def _multipart(scratch: Scratch, deletion: Deletion) -> Told:
    if not deletion.complete:
        conformance.small_upload(scratch)
        return Health.HEALTHY, "honoured, tried with one small part", ""
    key = f"{scratch.prefix}parts"
    content = bytes(PART_BYTES) + b"end"
    scratch.store.put(key, [content])
    with scratch.store.open(key, PART_BYTES - 1) as file:
        tail = file.read()
    if tail != content[PART_BYTES - 1 :]:
        raise StoreError(
            "an object in parts came back otherwise", hint=conformance.DISTRUST
        )
    return Health.HEALTHY, "honoured; large objects are streamed in parts", ""


def _conditional_put(scratch: Scratch) -> Told:
    whole = conformance.conditional_put(scratch)
    parts = conformance.conditional_completion(scratch)
    if whole is parts is Answer.HONOURED:
        return Health.HEALTHY, "honoured; of two hosts that write one key one wins", ""
    if whole is Answer.HONOURED:
        # Manifests are small, so that they are never put in parts.
        return (
            Health.HEALTHY,
            "honoured for whole objects, such as manifests, not for uploads in parts; "
            "opskit looks before it writes those",
            "",
        )
    said = "not honoured" if whole is Answer.IGNORED else "refused"
    return (
        Health.DEGRADED,
        f"{said}; opskit looks before it writes, two hosts writing one key at the same "
        "instant are not told apart",
        "Let only one host back up each source into this store.",
    )


def _range_read(scratch: Scratch) -> Told:
    if conformance.range_read(scratch) is Answer.HONOURED:
        return Health.HEALTHY, "honoured; a read that breaks off goes on from there", ""
    return (
        Health.HEALTHY,
        "not honoured; opskit reads from the beginning and drops what it has, so "
        "that a read that breaks off costs more",
        "",
    )


def _checksums(scratch: Scratch) -> Told:
    found = conformance.damaged_part(scratch)
    if found.refused:
        return Health.HEALTHY, "a part that arrives damaged is refused", ""
    if found.told_by_etag:
        return (
            Health.HEALTHY,
            "a part that arrives damaged is taken; opskit sees it by its ETag and "
            "stores nothing",
            "",
        )
    return (
        Health.DEGRADED,
        "a part that arrives damaged is taken, and ETags are no digests; only verify "
        "and drills would tell",
        "Verify every set after its backup.",
    )


def _listing(scratch: Scratch, deletion: Deletion) -> Told:
    wanted = _KEYS if deletion.complete else _KEYS_LEFT_BEHIND
    count = conformance.fill(scratch, wanted, time.monotonic() + _FILL_SECONDS)
    pages = conformance.pages(scratch, max(1, min(conformance.BATCH_MAX, count - 1)))
    names = [name for page in pages for name in page]
    if sorted(names) != [f"{number:04}" for number in range(count)]:
        raise StoreError(
            f"{len(set(names))} of {count} keys are listed, {len(names)} times in all",
            hint=conformance.DISTRUST,
        )
    few = "" if count == _KEYS else ", in small pages"
    why = "" if deletion.complete else ", since they cannot be deleted again"
    return Health.HEALTHY, f"{count} keys in {len(pages)} pages{few}{why}", ""
