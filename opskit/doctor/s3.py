"""What a server of S3 can and cannot do, and what opskit does about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from opskit.checks import Finding, Health
from opskit.config import StoreSettings
from opskit.doctor import s3_lock, s3_removal
from opskit.doctor.s3_removal import Deletion
from opskit.errors import OpskitError, StoreError
from opskit.store.s3 import trial as conformance
from opskit.store.s3.trial import Answer
from opskit.store.s3_scratch import (
    PART_BYTES,
    Scratch,
    unanswered,
)

Told = tuple[Health, str, str]
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
        "abort": lambda: s3_removal.abort(scratch),
        "listing": lambda: _listing(scratch, deletion),
        "batch delete": lambda: s3_removal.batch_delete(scratch, deletion),
        "versioning": lambda: s3_lock.versioning(scratch),
        "object lock": lambda: s3_lock.object_lock(
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
