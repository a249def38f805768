"""Whether a store can be used, and what it can and cannot do, by trying it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime

from opskit.checks import Finding, Health
from opskit.doctor import s3
from opskit.errors import IntegrityError, OpskitError, StoreError
from opskit.store import S3Store, Store, unwrapped
from opskit.store.s3.trial import Scratch, denied

_HINT = "Do not rely on this store before you know why."
_PROBE_BYTES = 256 * 1024
# Beside the sources' own prefixes; no source may begin with an underscore.
_PROBE_PREFIX = "_doctor/"


def examine(store: Store, *, now: Callable[[], datetime]) -> Iterator[Finding]:
    """Yield what was found out about a store, first whether it can be used at all.

    Everything is tried on objects of our own, which are removed again; what cannot be
    is told. A server that stops answering is given up after half a minute.
    """
    inner = unwrapped(store)
    prefix = f"{_PROBE_PREFIX}{secrets.token_hex(8)}/"
    if isinstance(inner, S3Store):
        yield from _examine_bucket(Scratch(inner, prefix), inner, now)
    else:
        yield _usable(store, f"{prefix}object")


def _examine_bucket(
    scratch: Scratch, store: S3Store, now: Callable[[], datetime]
) -> Iterator[Finding]:
    clock = s3.clock(scratch, now)
    if isinstance(clock, StoreError):
        # Nothing answers; to put something would only mean to wait again.
        yield _unusable(store, clock)
        return
    usable = _usable(scratch.store, f"{scratch.prefix}object")
    answers = usable.status is Health.HEALTHY
    try:
        yield usable
        yield clock
        if answers:
            yield from s3.examine(scratch, store.settings)
    finally:
        # Also where whoever asks stops half-way.
        left = s3.remove(scratch)
    if left is not None and answers:
        yield left


def _usable(store: Store, key: str) -> Finding:
    """Write an object, read it back, find it in the listing, and delete it."""
    return _finding(store, lambda: _used(store, key))


def _used(store: Store, key: str) -> str:
    try:
        _write_and_read(store, key)
    except BaseException:
        with contextlib.suppress(StoreError):
            store.delete(key)  # what failed first is what must be told
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
            raise IntegrityError("what was read is not what was written", hint=_HINT)
    if [each.key for each in store.list(key)] != [key]:
        raise StoreError(
            "an object that was just written is not in the listing", hint=_HINT
        )


def _finding(store: Store, attempt: Callable[[], str]) -> Finding:
    try:
        observed = attempt()
    except OpskitError as error:
        return _unusable(store, error)
    return Finding(name=f"store {store.name}", status=Health.HEALTHY, observed=observed)


def _unusable(store: Store, error: OpskitError) -> Finding:
    name = f"store {store.name}"
    return Finding(
        name=name,
        status=Health.UNHEALTHY,
        observed=error.message.removeprefix(f"{name}: "),
        hint=error.hint,
    )
