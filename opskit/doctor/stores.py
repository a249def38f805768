"""Whether stores and folders can be used, and whether locks fit retention."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil
from pathlib import Path

from opskit.catalog.file_record import shown
from opskit.checks import Check, attempt, failure
from opskit.config import StoreSettings
from opskit.config.sources import SourceRetention
from opskit.doctor import s3
from opskit.doctor.s3 import DISTRUST
from opskit.errors import IntegrityError, StoreError
from opskit.folders.lock import ServiceLock
from opskit.store import S3Store, Store, unwrapped
from opskit.store.s3.trial import Scratch, denied, unanswered

_PROBE_BYTES = 256 * 1024
# Beside the sources' own prefixes; no source may begin with an underscore.
_PROBE_PREFIX = "_doctor/"
_SKEW_DEGRADED, _SKEW_UNHEALTHY = timedelta(minutes=5), timedelta(minutes=15)


def examine(store: Store, *, now: Callable[[], datetime]) -> Iterator[Check]:
    """Yield checks of a store, first whether it can be used at all.

    Everything is tried on objects of doctor's own, which are removed again; what cannot
    be removed is said. A server that stops answering is given up after half a minute.
    """
    inner = unwrapped(store)
    prefix = f"{_PROBE_PREFIX}{secrets.token_hex(8)}/"
    if isinstance(inner, S3Store):
        yield from _examine_bucket(Scratch(inner, prefix), inner, now)
    else:
        yield _usable(store, f"{prefix}object")


def _examine_bucket(
    scratch: Scratch, store: S3Store, now: Callable[[], datetime]
) -> Iterator[Check]:
    try:
        skew = clock(scratch, now)
    except StoreError as error:
        # Nothing answers; to put something would only mean to wait again.
        yield _without_name(failure(f"store {store.name}", error))
        return
    usable = _usable(scratch.store, f"{scratch.prefix}object")
    try:
        yield usable
        yield skew
        if usable.passed:
            yield from s3.examine(scratch, store.settings)
    finally:
        # Also where the caller stops half-way.
        left = _remove(scratch)
    if left is not None and usable.passed:
        yield left


def ping(store: Store, *, now: Callable[[], datetime]) -> tuple[float, float | None]:
    """Ask a store for a list; return the seconds that it took, and its clock's offset.

    Nothing is written, and nothing is tried twice. A folder has no clock of its own.

    Raises:
        StoreError: it does not answer.
    """
    inner = unwrapped(store)
    offset = None
    if isinstance(inner, S3Store):
        scratch = Scratch(inner, _PROBE_PREFIX)
        offset = clock_offset(scratch, now)
        inner = scratch.store
    began = time.monotonic()
    next(iter(inner.list(_PROBE_PREFIX)), None)
    return time.monotonic() - began, offset


def clock_offset(scratch: Scratch, now: Callable[[], datetime]) -> float | None:
    """Return how many seconds a server's clock is ahead of this machine's, if it tells.

    Raises:
        StoreError: the server does not answer.
    """
    before = now()
    server_time = scratch.server_time()
    if server_time is None:
        return None
    return (server_time - before - (now() - before) / 2).total_seconds()


def clock(scratch: Scratch, now: Callable[[], datetime]) -> Check:
    """Compare this machine's clock with the server's.

    Raises:
        StoreError: the server does not answer.
    """
    name = f"store {scratch.store.name}: clock"
    offset = clock_offset(scratch, now)
    if offset is None:
        return Check(
            name=name, passed=True, observed="the server does not send its own"
        )
    return compare_clocks(name, offset)


def compare_clocks(name: str, offset_seconds: float) -> Check:
    """Return whether a server's clock is near enough to this machine's."""
    skew = abs(timedelta(seconds=offset_seconds))
    passed = skew <= _SKEW_DEGRADED
    return Check(
        name=name,
        passed=passed,
        advisory=skew <= _SKEW_UNHEALTHY,
        expected="at most 5 minutes; S3 refuses requests from 15 on",
        observed=f"differs by {skew.total_seconds():.0f} seconds from the server's",
        hint="" if passed else "Set this host's clock (NTP).",
    )


def _remove(scratch: Scratch) -> Check | None:
    """Remove what was tried on; return what is left, and where, if it cannot be."""
    try:
        scratch.remove()
    except StoreError as error:
        where = f"{scratch.bucket.name}/{scratch.bucket.full_key(scratch.prefix)}"
        left = "something may be left"
        if not unanswered(error):
            with contextlib.suppress(StoreError):
                left = f"{scratch.left()} objects or versions of them are left"
        return Check(
            name=f"store {scratch.store.name}: clean-up",
            passed=denied(error),
            advisory=True,
            observed=f"{left} in {where}: {error.message}",
            hint="Delete them with other credentials, or let a lifecycle rule expire "
            "what is below _doctor/.",
        )
    return None


def _usable(store: Store, key: str) -> Check:
    return _without_name(attempt(f"store {store.name}", lambda: _use(store, key)))


def _without_name(check: Check) -> Check:
    """Leave out the store's name where the message repeats it."""
    return replace(check, observed=check.observed.removeprefix(f"{check.name}: "))


def _use(store: Store, key: str) -> str:
    try:
        _write_and_read(store, key)
    except BaseException:
        with contextlib.suppress(StoreError):
            store.delete(key)  # the first error is the one to report
        raise
    try:
        store.delete(key)
    except StoreError as error:
        if not denied(error):
            raise
        return "writes, reads and lists"
    return "writes, reads, lists and deletes"


def _write_and_read(store: Store, key: str) -> None:
    content = os.urandom(_PROBE_BYTES)
    store.put(key, [content])
    with store.open(key) as stream:
        if stream.read() != content:
            raise IntegrityError("what was read is not what was written", hint=DISTRUST)
    if [each.key for each in store.list(key)] != [key]:
        raise StoreError(
            "an object that was just written is not in the listing", hint=DISTRUST
        )


_DAY = timedelta(days=1)
_WEEK_DAYS, _MONTH_DAYS = 7, 31


def examine_retention(
    stores: Mapping[str, StoreSettings], rules: SourceRetention
) -> Iterator[Check]:
    """Yield, for each store that locks objects, whether its locks fit retention.

    The days that a rule keeps are counted with one set a day; `keep_last` and
    `min_keep` keep longer where there are fewer.
    """
    days = {
        "keep_last": rules.keep_last,
        "keep_within": ceil(rules.keep_within / _DAY),
        "keep_daily": rules.keep_daily,
        "keep_weekly": rules.keep_weekly * _WEEK_DAYS,
        "keep_monthly": rules.keep_monthly * _MONTH_DAYS,
        "min_keep": rules.min_keep,
    }
    rule = max(days, key=lambda name: days[name])
    for name, settings in stores.items():
        locked = settings.object_lock_days
        if locked:
            check = _compare_days(locked, days[rule], rule, rules.min_keep)
            yield replace(check, name=f"store {name}: lock and retention")


def _compare_days(locked: int, longest: int, rule: str, min_keep: int) -> Check:
    if locked > longest:
        return Check(
            name="",
            passed=False,
            advisory=True,
            expected="object_lock_days at most what retention keeps",
            observed=f"sets are locked for {locked} days, but no rule keeps one longer "
            f"than {longest} ({rule}): prune cannot delete for {locked - longest} "
            "days what retention drops",
            hint=f"Set object_lock_days to {longest} or less, or raise {rule}.",
        )
    if locked < longest:
        return Check(
            name="",
            passed=True,
            observed=f"sets are locked for {locked} days and kept for up to {longest} "
            f"({rule}): between day {locked} and day {longest} only the credentials "
            f"protect them; the newest {min_keep} stay in any case (min_keep), but "
            "only the younger ones are locked",
            hint=f"Raise object_lock_days towards {longest} to protect them longer.",
        )
    return Check(
        name="",
        passed=True,
        observed=f"sets are locked for {locked} days, as long as retention keeps them",
    )


_READ = "Run this as a user who may read all of it, or leave it out with exclude."
_LOCK = "Name the file that the service locks, and run this as a user who may use it."


def examine_files(name: str, path: Path, lock: ServiceLock | None) -> Iterator[Check]:
    """Yield whether everything in a folder can be read, and whether its lock is usable.

    Nothing is locked or made: the service may be at work.
    """
    yield _readable(f"files {name}: folder", path)
    if lock is not None:
        yield _lock(f"files {name}: lock", lock)


def size_bytes(path: Path) -> int:
    total = 0
    for each in _files(path, []):
        with contextlib.suppress(FileNotFoundError):  # it has just been deleted
            total += each.stat(follow_symlinks=False).st_size
    return total


def _readable(name: str, path: Path) -> Check:
    refused: list[str] = []
    number = 0
    for each in _files(path, refused):
        number += 1
        if not os.access(each.path, os.R_OK):
            refused.append(each.path)
    if not refused:
        return Check(name=name, passed=True, observed=f"{number} files can be read")
    return Check(
        name=name,
        passed=False,
        expected="none",
        observed=f"{len(refused)} cannot be read, for instance {shown(refused[0])}",
        hint=_READ,
    )


def _files(path: Path, refused: list[str]) -> Iterator[os.DirEntry[str]]:
    """Yield the regular files below a folder; add to `refused` what is not shown."""
    try:
        with os.scandir(path) as scanned:
            entries = list(scanned)
    except OSError:
        refused.append(str(path))
        return
    for each in entries:
        if each.is_dir(follow_symlinks=False):
            yield from _files(Path(each.path), refused)
        elif each.is_file(follow_symlinks=False):
            yield each


def _lock(name: str, lock: ServiceLock) -> Check:
    if not os.path.exists(lock.path):  # False also where this user may not look
        usable = os.access(lock.path.parent, os.W_OK | os.X_OK)
        observed = f"{lock.path} does not exist; a backup would create it"
    else:
        wanted = os.R_OK if lock.kind == "flock" else os.R_OK | os.W_OK
        usable = lock.path.is_file() and os.access(lock.path, wanted)
        observed = f"{lock.path} can be locked"
    if not usable:
        observed = f"this user can neither open nor create {lock.path}"
    return Check(
        name=name, passed=usable, observed=observed, hint="" if usable else _LOCK
    )


def examine_space(name: str, folder: Path, needed_bytes: int, hint: str) -> Check:
    """Compare what is free in a folder with what will be needed."""
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        observed = f"{folder}: {error.strerror}"
        return Check(name=name, passed=False, observed=observed, hint=hint)
    return compare_space(
        name, folder, free_bytes=free_bytes, needed_bytes=needed_bytes, hint=hint
    )


def compare_space(
    name: str, folder: Path | str, *, free_bytes: int, needed_bytes: int, hint: str
) -> Check:
    """Return whether as much is free in a folder as will be needed."""
    enough = free_bytes >= needed_bytes
    return Check(
        name=name,
        passed=enough,
        expected=f"at least {needed_bytes // 2**20} MiB",
        observed=f"{free_bytes // 2**20} MiB free in {folder}",
        hint="" if enough else hint,
    )


def examine_folder(name: str, folder: Path, hint: str) -> Check:
    """Check that files can be created in a folder, or the folder itself."""
    existing = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    usable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return Check(
        name=name,
        passed=usable,
        observed=f"{folder} {'is' if usable else 'is not'} writable for this user",
        hint="" if usable else hint,
    )
