"""What an S3 server can and cannot do, and what opskit does about it.

Each trial raises a `StoreError` where the server refuses what must work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from opskit.checks import Check, count, failure
from opskit.config import StoreSettings
from opskit.errors import ObjectExists, OpskitError, StoreError
from opskit.store.s3 import errors, trial
from opskit.store.s3.trial import BATCH_MAX, PART_BYTES, Scratch
from opskit.store.s3.upload import etag_differs, md5
from opskit.threads import Pool

DISTRUST = "Do not rely on this store before you know why."
_SECONDS_MAX = 25.0
_FILL_SECONDS = 15.0
_FILL_THREADS = 8
# A short lock may end while this machine pauses; a long one has to be waited for.
_LOCK_SECONDS = (4, 30)
# One more than a page holds; few where they could not be deleted again.
_KEYS, _KEYS_LEFT_BEHIND = 1001, 3
_MANY = "many/"
_LOCK_HINT = "Make a bucket with object lock, or set object_lock_days to 0."
_COST_HINT = "Let a lifecycle rule of the bucket expire noncurrent versions."
_UPLOADS_HINT = (
    "Let a lifecycle rule of the bucket abort incomplete uploads after some days."
)


def examine(place: Scratch, settings: StoreSettings) -> Iterator[Check]:
    """Yield a check of each thing that matters, until the server stops answering."""
    store = f"store {place.store.name}: "
    until = time.monotonic() + _SECONDS_MAX
    unexamined = ""
    for title, step in _Examination(place, settings).steps().items():
        if not unexamined and time.monotonic() > until:
            unexamined = f"the others took longer than {_SECONDS_MAX:.0f} seconds"
        if unexamined:
            check = Check(
                name="",
                passed=None,
                observed=f"not examined: {unexamined}",
                hint="Run doctor again.",
            )
        else:
            try:
                check = step()
            except OpskitError as error:
                check = failure("", error)
                check = replace(check, observed=check.observed.removeprefix(store))
                if isinstance(error, StoreError) and trial.unanswered(error):
                    unexamined = "the server stopped answering"
        yield replace(check, name=f"{store}{title}")


def _good(observed: str, hint: str = "") -> Check:
    return Check(name="", passed=True, observed=observed, hint=hint)


def _poor(observed: str, hint: str) -> Check:
    return Check(name="", passed=False, advisory=True, observed=observed, hint=hint)


def _bad(observed: str, hint: str) -> Check:
    return Check(name="", passed=False, observed=observed, hint=hint)


@dataclass
class _Examination:
    """The trials, in their order: what may be deleted decides how the others go."""

    place: Scratch
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
        """Delete an object, and the version that is left of it."""
        version = self.place.put("delete").get("VersionId")
        objects = self._may_delete("delete")
        versions = version is None or self._may_delete("delete", VersionId=version)
        self.may_delete = objects and versions
        if not objects:
            return _good(
                "these credentials may not delete: backup works, prune needs others"
            )
        if not versions:
            return _good(
                "objects can be deleted, versions of them cannot: what prune deletes "
                "stays as noncurrent versions"
            )
        if version is not None:
            return _good("objects and versions of them can be deleted")
        return _good("honoured")

    def _may_delete(self, name: str, **options: object) -> bool:
        try:
            self.place.on("delete_object", name, **options)
        except StoreError as error:
            if not trial.denied(error):
                raise
            return False
        return True

    def multipart(self) -> Check:
        if not self.may_delete:
            self._upload("part")
            self._require("part", 0, b"part")
            return _good("honoured, tried with one small part")
        content = bytes(PART_BYTES) + b"end"
        self.place.store.put(f"{self.place.prefix}parts", [content])
        self._require("parts", PART_BYTES - 1, content[PART_BYTES - 1 :])
        return _good("honoured; large objects are streamed in parts")

    def _upload(self, name: str, **options: object) -> None:
        with self.place.upload(name) as upload_id:
            part = self.place.part(name, upload_id, b"part")
            self.place.complete(name, upload_id, part, **options)

    def _require(self, name: str, start: int, content: bytes) -> None:
        with self.place.store.open(f"{self.place.prefix}{name}", start) as file:
            if file.read() != content:
                raise StoreError(
                    "an object in parts came back with other bytes", hint=DISTRUST
                )

    def conditional_put(self) -> Check:
        """Put objects where one is, under the condition that there is none."""
        self.place.put("condition")
        whole = _condition(lambda: self.place.put("condition", IfNoneMatch="*"))
        self.place.put("condition-parts")
        parts = _condition(lambda: self._upload("condition-parts", IfNoneMatch="*"))
        if not whole and not parts:
            return _good("honoured; of two hosts that write one key one wins")
        if not whole:
            # Manifests are small, so that they are never put in parts.
            return _good(
                "honoured for whole objects, such as manifests, not for uploads in "
                "parts; opskit looks before it writes those"
            )
        return _poor(
            f"{whole}; opskit looks before it writes, but cannot notice that another "
            "host writes the same key at the same instant",
            "Let only one host back up each source into this store.",
        )

    def range_read(self) -> Check:
        self.place.put("range", b"0123456789")
        content = self.place.read("range", Range="bytes=4-")
        if content == b"456789":
            return _good("honoured; an interrupted read continues where it stopped")
        if content == b"0123456789":
            return _good(
                "not honoured; opskit reads from the beginning and drops what it has, "
                "so that an interrupted read costs more"
            )
        raise StoreError(
            "a read from the middle of an object brought other bytes", hint=DISTRUST
        )

    def checksums(self) -> Check:
        """Send a part with the MD5 of other bytes."""
        sent = md5(b"sent")
        try:
            with self.place.upload("damaged") as upload_id:
                answer = self.place.part("damaged", upload_id, b"arrived", digest=sent)
        except StoreError as error:
            if not errors.is_refused(error.__cause__):
                raise
            return _good("a part that arrives damaged is refused")
        # An ETag that is made of no MD5 never differs, so it would show nothing.
        if etag_differs(answer, sent.hex()):
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
            upload_id = self.place.begin("abort")
            try:
                self.place.part("abort", upload_id, b"x")
                listed = self.place.lists_upload("abort")
            finally:
                self.place.abort("abort", upload_id)
            left = self.place.lists_upload("abort")
        except StoreError as error:
            if not (trial.denied(error) or trial.not_implemented(error)):
                raise
            return _poor(f"{error.message}; uploads of failed runs stay", _UPLOADS_HINT)
        if not listed:
            return _poor(
                "uploads under way are not listed: those of killed runs cannot be "
                "removed",
                _UPLOADS_HINT,
            )
        if left:
            return _poor("an aborted upload is still listed", _UPLOADS_HINT)
        return _good("honoured; uploads of killed runs are listed and dropped")

    def listing(self) -> Check:
        number = self._fill(_KEYS if self.may_delete else _KEYS_LEFT_BEHIND)
        pages = self.place.pages(_MANY, max(1, min(BATCH_MAX, number - 1)))
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

    def _fill(self, number: int) -> int:
        """Put so many objects, or as many as time allows; return how many."""
        until = time.monotonic() + _FILL_SECONDS
        failed: list[int] = []

        def put(each: int) -> bool:
            if time.monotonic() > until or failed:
                return False
            try:
                self.place.put(f"{_MANY}{each:04}")
            except StoreError:
                failed.append(each)  # the others need not wait for as long
                raise
            return True

        with Pool(_FILL_THREADS, thread_name_prefix="doctor") as pool:
            return sum(pool.map(put, range(number)))

    def batch_delete(self) -> Check:
        """Delete what the listing was tried on, as many as go into one request."""
        if not self.may_delete:
            return _good("not tried: not all that is made could be deleted")
        names = [n for page in self.place.pages(_MANY, BATCH_MAX) for n in page]
        names = names[:BATCH_MAX]
        keys = [{"Key": self.place.full(f"{_MANY}{name}")} for name in names]
        try:
            self.place.call("delete_objects", Delete={"Objects": keys, "Quiet": True})
            listed = {n for page in self.place.pages(_MANY, BATCH_MAX) for n in page}
        except StoreError as error:
            if trial.unanswered(error):
                raise
            return _good("refused; opskit deletes one by one, which takes longer")
        if left := listed & set(names):
            raise StoreError(
                f"{len(left)} objects are still listed after they were deleted",
                hint=DISTRUST,
            )
        return _good(f"{len(names)} keys deleted by one request")

    def versioning(self) -> Check:
        try:
            state = self.place.store.versioning()
        except StoreError as error:
            if not trial.denied(error):
                raise
            state = "Enabled" if self.place.versioned else ""
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
            bucket = self.place.store.lock_configuration()
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
        """Lock an object for seconds, and try to delete it.

        One that went when its lock may have ended by itself says nothing of the server.
        """
        for seconds in _LOCK_SECONDS:
            until = time.monotonic() + seconds - 1  # its time has whole seconds
            version, is_shown = self._lock(seconds)
            is_kept = self._is_kept(version)
            may_lift = is_kept and not self._is_kept(
                version, BypassGovernanceRetention=True
            )
            if is_kept and not may_lift:
                return self._judged(period, is_shown, is_kept, may_lift)
            self.place.locked_until = 0.0  # it is gone: nothing has to be waited for
            if time.monotonic() < until:
                return self._judged(period, is_shown, is_kept, may_lift)
        return Check(
            name="",
            passed=None,
            observed=f"not examined: it took longer than a lock of {seconds} seconds",
            hint="Run doctor again.",
        )

    def _judged(
        self, period: str, is_shown: bool, is_kept: bool, may_lift: bool
    ) -> Check:
        if not self.may_delete and is_shown:
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
        if not is_kept:
            return _bad(
                "the server accepts a lock, but the object can still be deleted",
                "Use a provider with object lock, or set object_lock_days to 0.",
            )
        if may_lift:
            return _poor(
                f"honoured for {period}, but these very credentials may lift it",
                "Take s3:BypassGovernanceRetention from them, or set object_lock_mode "
                'to "compliance".',
            )
        return _good(f"honoured; each object is locked for {period}")

    def _lock(self, seconds: int) -> tuple[dict[str, str], bool]:
        """Lock an object; return its version, and whether the lock is shown."""
        mode = self.settings.object_lock_mode.upper()
        begin = self.place.server_time() or datetime.now(UTC)
        self.place.locked_until = time.monotonic() + seconds + 1
        put = self.place.put(
            "locked",
            ObjectLockMode=mode,
            ObjectLockRetainUntilDate=begin + timedelta(seconds=seconds),
        )
        version = {"VersionId": put["VersionId"]} if "VersionId" in put else {}
        head = self.place.on("head_object", "locked", **version)
        return version, head.get("ObjectLockMode") == mode

    def _is_kept(self, version: dict[str, str], **options: object) -> bool:
        """Try to delete the locked object; return whether it still exists."""
        try:
            self.place.on("delete_object", "locked", **version, **options)
        except StoreError as error:
            if not errors.is_refused(error.__cause__):
                raise
        try:
            self.place.on("head_object", "locked", **version)
        except StoreError as error:
            if errors.is_missing(error.__cause__):
                return False
            raise
        return True


def _condition(put: Callable[[], object]) -> str:
    """Return "" if a condition is honoured, else what the server does with it."""
    try:
        put()
    except ObjectExists:
        return ""
    except StoreError as error:
        if trial.not_implemented(error):
            return "refused"
        raise
    return "not honoured"


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
