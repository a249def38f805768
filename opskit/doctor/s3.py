"""What an S3 server can and cannot do, and what opskit does about it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from opskit.checks import Check, count, failure
from opskit.config import StoreSettings
from opskit.errors import OpskitError, StoreError
from opskit.store.s3 import trial
from opskit.store.s3.trial import BATCH_MAX, DISTRUST, PART_BYTES, Answer, Scratch

_SECONDS_MAX = 25.0
_FILL_SECONDS = 15.0
# One more than a page holds; few where they could not be deleted again.
_KEYS, _KEYS_LEFT_BEHIND = 1001, 3
_SKEW_DEGRADED, _SKEW_UNHEALTHY = timedelta(minutes=5), timedelta(minutes=15)
_LOCK_HINT = "Make a bucket with object lock, or set object_lock_days to 0."
_COST_HINT = "Let a lifecycle rule of the bucket expire noncurrent versions."
_UPLOADS_HINT = (
    "Let a lifecycle rule of the bucket abort incomplete uploads after some days."
)


def clock(scratch: Scratch, now: Callable[[], datetime]) -> Check:
    """Compare this machine's clock with the server's.

    Raises:
        StoreError: the server does not answer.
    """
    before = now()
    server_time = scratch.server_time()
    name = f"store {scratch.store.name}: clock"
    if server_time is None:
        return Check(
            name=name, passed=True, observed="the server does not send its own"
        )
    skew = abs(server_time - before - (now() - before) / 2)
    passed = skew <= _SKEW_DEGRADED
    return Check(
        name=name,
        passed=passed,
        advisory=skew <= _SKEW_UNHEALTHY,
        expected="at most 5 minutes; S3 refuses requests from 15 on",
        observed=f"differs by {skew.total_seconds():.0f} seconds from the server's",
        hint="" if passed else "Set this host's clock (NTP).",
    )


def remove(scratch: Scratch) -> Check | None:
    """Remove what was tried on; return what is left, and where, if it cannot be."""
    try:
        scratch.remove()
    except StoreError as error:
        where = f"{scratch.bucket.name}/{scratch.bucket.full_key(scratch.prefix)}"
        left = "something may be left"
        if not trial.unanswered(error):
            with contextlib.suppress(StoreError):
                left = f"{scratch.left()} objects or versions of them are left"
        return Check(
            name=f"store {scratch.store.name}: clean-up",
            passed=trial.denied(error),
            advisory=True,
            observed=f"{left} in {where}: {error.message}",
            hint="Delete them with other credentials, or let a lifecycle rule expire "
            "what is below _doctor/.",
        )
    return None


def examine(scratch: Scratch, settings: StoreSettings) -> Iterator[Check]:
    """Yield a check of each thing that matters, until the server stops answering."""
    examination = _Examination(scratch, settings)
    until = time.monotonic() + _SECONDS_MAX
    unexamined = ""
    for title, step in examination.steps().items():
        name = f"store {scratch.store.name}: {title}"
        if not unexamined and time.monotonic() > until:
            unexamined = f"the others took longer than {_SECONDS_MAX:.0f} seconds"
        if unexamined:
            check = Check(
                name=name,
                passed=None,
                observed=f"not examined: {unexamined}",
                hint="Run doctor again.",
            )
        else:
            try:
                check = step()
            except OpskitError as error:
                check = failure(name, error)
                prefix = f"store {scratch.store.name}: "
                check = replace(check, observed=check.observed.removeprefix(prefix))
                if isinstance(error, StoreError) and trial.unanswered(error):
                    unexamined = "the server stopped answering"
        yield replace(check, name=name)


def _good(observed: str, hint: str = "") -> Check:
    return Check(name="", passed=True, observed=observed, hint=hint)


def _poor(observed: str, hint: str) -> Check:
    return Check(name="", passed=False, advisory=True, observed=observed, hint=hint)


def _bad(observed: str, hint: str) -> Check:
    return Check(name="", passed=False, observed=observed, hint=hint)


@dataclass
class _Examination:
    """The trials, in their order: what may be deleted decides how the others go."""

    scratch: Scratch
    settings: StoreSettings
    may_delete: bool = False

    def steps(self) -> dict[str, Callable[[], Check]]:
        return {
            "delete": self.delete,
            "multipart": self.multipart,
            "conditional put": self.conditional_put,
            "range read": self.range_read,
            "checksums": self.checksums,
            "abort": self.abort,
            "listing": self.listing,
            "batch delete": self.batch_delete,
            "versioning": self.versioning,
            "object lock": self.object_lock,
        }

    def delete(self) -> Check:
        deletion = trial.deletion(self.scratch)
        self.may_delete = deletion.complete
        if not deletion.objects:
            return _good(
                "these credentials may not delete: backup works, prune needs others"
            )
        if deletion.versions is False:
            return _good(
                "objects can be deleted, versions of them cannot: what prune deletes "
                "stays as noncurrent versions"
            )
        if deletion.versions:
            return _good("objects and versions of them can be deleted")
        return _good("honoured")

    def multipart(self) -> Check:
        if not self.may_delete:
            trial.small_upload(self.scratch)
            return _good("honoured, tried with one small part")
        key = f"{self.scratch.prefix}parts"
        content = bytes(PART_BYTES) + b"end"
        self.scratch.store.put(key, [content])
        with self.scratch.store.open(key, PART_BYTES - 1) as file:
            tail = file.read()
        if tail != content[PART_BYTES - 1 :]:
            raise StoreError("an object in parts came back otherwise", hint=DISTRUST)
        return _good("honoured; large objects are streamed in parts")

    def conditional_put(self) -> Check:
        whole = trial.conditional_put(self.scratch)
        parts = trial.conditional_completion(self.scratch)
        if whole is parts is Answer.HONOURED:
            return _good("honoured; of two hosts that write one key one wins")
        if whole is Answer.HONOURED:
            # Manifests are small, so that they are never put in parts.
            return _good(
                "honoured for whole objects, such as manifests, not for uploads in "
                "parts; opskit looks before it writes those"
            )
        answer = "not honoured" if whole is Answer.IGNORED else "refused"
        return _poor(
            f"{answer}; opskit looks before it writes, but cannot notice that another "
            "host writes the same key at the same instant",
            "Let only one host back up each source into this store.",
        )

    def range_read(self) -> Check:
        if trial.range_read(self.scratch) is Answer.HONOURED:
            return _good("honoured; an interrupted read continues where it stopped")
        return _good(
            "not honoured; opskit reads from the beginning and drops what it has, so "
            "that an interrupted read costs more"
        )

    def checksums(self) -> Check:
        damaged = trial.damaged_part(self.scratch)
        if damaged.refused:
            return _good("a part that arrives damaged is refused")
        if damaged.told_by_etag:
            return _good(
                "a part that arrives damaged is taken; opskit sees it by its ETag and "
                "stores nothing"
            )
        return _poor(
            "a part that arrives damaged is taken, and ETags are no digests; only "
            "verify and drills would notice",
            "Verify every set after its backup.",
        )

    def abort(self) -> Check:
        try:
            listed, gone = trial.aborted_upload(self.scratch)
        except StoreError as error:
            if not (trial.denied(error) or trial.not_implemented(error)):
                raise
            return _poor(f"{error.message}; uploads of failed runs stay", _UPLOADS_HINT)
        if not listed:
            return _poor(
                "uploads under way are not listed: those of killed runs cannot be "
                "found",
                _UPLOADS_HINT,
            )
        if not gone:
            return _poor("an aborted upload is still listed", _UPLOADS_HINT)
        return _good("honoured; uploads of killed runs are listed and dropped")

    def listing(self) -> Check:
        wanted = _KEYS if self.may_delete else _KEYS_LEFT_BEHIND
        until = time.monotonic() + _FILL_SECONDS
        number = trial.fill(self.scratch, wanted, until)
        pages = trial.pages(self.scratch, max(1, min(BATCH_MAX, number - 1)))
        names = [name for page in pages for name in page]
        if sorted(names) != [f"{each:04}" for each in range(number)]:
            raise StoreError(
                f"{len(set(names))} of {number} keys are listed, in "
                f"{count(len(names), 'entry', 'entries')}",
                hint=DISTRUST,
            )
        few = "" if number == _KEYS else ", in small pages"
        why = "" if self.may_delete else ", since they cannot be deleted again"
        return _good(f"{number} keys in {len(pages)} pages{few}{why}")

    def batch_delete(self) -> Check:
        """Delete what the listing was tried on, as many as go into one request."""
        if not self.may_delete:
            return _good("not tried: not all that is made could be deleted")
        names = [n for page in trial.pages(self.scratch, BATCH_MAX) for n in page]
        try:
            left = trial.delete_batch(self.scratch, names)
        except StoreError as error:
            if trial.unanswered(error):
                raise
            return _good("refused; opskit deletes one by one, which takes longer")
        if left:
            raise StoreError(
                f"{len(left)} objects are still listed after they were deleted",
                hint=DISTRUST,
            )
        return _good(f"{min(len(names), BATCH_MAX)} keys deleted by one request")

    def versioning(self) -> Check:
        try:
            state = self.scratch.store.versioning()
        except StoreError as error:
            if not trial.denied(error):
                raise
            state = "Enabled" if self.scratch.versioned else ""
        if not state:
            return _good("off; what is deleted is gone")
        if state == "Suspended":
            return _good(
                "suspended; earlier versions of objects go on costing", _COST_HINT
            )
        return _good(
            "on; sets that prune deletes go on costing until a lifecycle rule expires "
            "noncurrent versions",
            _COST_HINT,
        )

    def object_lock(self) -> Check:
        days = self.settings.object_lock_days
        try:
            bucket = self.scratch.store.lock_configuration()
        except StoreError as error:
            if not trial.denied(error):
                raise
            if not days:
                return _good("not shown to these credentials, and not used")
        else:
            if not days:
                return _good(_unused_lock(bucket or {}))
            if not bucket:
                return _bad(
                    f"the bucket has none, but object_lock_days is {days}", _LOCK_HINT
                )
        return self._try_lock(f"{days} days ({self.settings.object_lock_mode})")

    def _try_lock(self, period: str) -> Check:
        lock = trial.lock(self.scratch, self.settings.object_lock_mode.upper())
        if not self.may_delete and lock.shown:
            return _good(
                f"recorded; each object is locked for {period}; a refusal cannot be "
                "tried, as these credentials may delete nothing"
            )
        if not self.may_delete:
            return _poor(
                "a lock is taken, but the server does not show it to these credentials",
                "Grant s3:GetObjectRetention, or run doctor once with credentials that "
                "may delete.",
            )
        if not lock.plainly:
            return _bad(
                "the server accepts a lock, but the object can still be deleted",
                "Use a provider with object lock, or set object_lock_days to 0.",
            )
        if not lock.with_bypass:
            return _poor(
                f"honoured for {period}, but these very credentials may lift it",
                "Take s3:BypassGovernanceRetention from them, or set object_lock_mode "
                'to "compliance".',
            )
        return _good(f"honoured; each object is locked for {period}")


def _unused_lock(bucket: dict[str, Any]) -> str:
    default = bucket.get("Rule", {}).get("DefaultRetention", {})
    if default:
        period = (
            f"{default['Days']} days"
            if default.get("Days")
            else f"{default.get('Years')} years"
        )
        return (
            f"the bucket locks everything for {period} by itself; prune cannot free "
            "what is younger"
        )
    if bucket:
        return "the bucket has it, opskit does not use it: object_lock_days is 0"
    return "the bucket has none; whoever may delete can delete every set"
