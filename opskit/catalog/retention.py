"""Retention: decides which sets stay, marks those that must, deletes the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from opskit.catalog.documents import (
    ANYONE,
    CONFIRMATION_FOLDER,
    PIN_FOLDER,
    REPORTS_FOLDER,
    Proof,
    Trust,
    is_mark,
    mark_name,
    store_document,
)
from opskit.catalog.manifest import MANIFEST_NAME
from opskit.catalog.places import attempt_in
from opskit.catalog.sets import BackupSet, ListedSet, places_of
from opskit.catalog.writer import is_of_a_set
from opskit.config import RetentionSettings
from opskit.crypto import signatures
from opskit.crypto.signatures import Signer
from opskit.ledger import comparison
from opskit.store import Store
from opskit.store import locks as store_locks

# Clocks of two hosts differ; a set this far ahead of us is not from the future.
_CLOCK_TOLERANCE = timedelta(minutes=10)
_CHANGES_SHOWN = 3
# What an unfinished run left is removed after this time.
GRACE = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What retention needs to know of a set.

    `unconfirmed_changes` are the sudden changes that nobody has looked at yet,
    `locked_until` is when the last of the object locks on its copies ends.
    """

    backup_id: str
    started_at: datetime
    proof: Proof
    unconfirmed_changes: tuple[str, ...] = ()
    locked_until: datetime | None = None
    is_pinned: bool = False


@dataclass(frozen=True, kw_only=True)
class RetentionPlan:
    """What stays and why (newest first), what goes, and why nothing may go at all."""

    keep: dict[str, list[str]] = field(default_factory=dict)
    delete: tuple[str, ...] = ()
    refused: str | None = None


def plan(
    sets: Sequence[Candidate], policy: RetentionSettings, *, now: datetime
) -> RetentionPlan:
    """Decide about the sets of one source.

    Only good sets count for the rules that count: a set that failed its proof must not
    take the place of one that may restore. It stays while it is young, to be looked
    into. Always kept: the newest `min_keep` good sets, the newest that a drill has
    passed, pinned sets, sets that carry a time in the future, and what an object lock
    protects. As long as a set, also one that failed, holds a sudden change that nobody
    has confirmed, all are kept.
    """
    newest_first = sorted(sets, key=_order, reverse=True)
    if policy.is_empty:
        return RetentionPlan(
            keep={each.backup_id: ["nothing may be deleted"] for each in newest_first},
            refused="the policy has no rule that keeps anything; "
            "set one in [retention]",
        )
    reasons: dict[str, list[str]] = {each.backup_id: [] for each in newest_first}
    for each, reason in _reasons(newest_first, policy, now):
        reasons[each.backup_id].append(reason)
    # Also of a set that failed its drill: what is gone may be why it failed, and the
    # set after it is compared with it, so that nothing else would show the loss.
    changed = next((each for each in newest_first if each.unconfirmed_changes), None)
    if changed is not None:
        return _keep_all(changed, reasons)
    return RetentionPlan(
        keep={backup_id: why for backup_id, why in reasons.items() if why},
        delete=tuple(backup_id for backup_id, why in reasons.items() if not why),
    )


def _reasons(
    newest_first: Sequence[Candidate], policy: RetentionSettings, now: datetime
) -> Iterator[tuple[Candidate, str]]:
    """Yield every reason that keeps a set."""
    present = []
    for each in newest_first:
        if each.started_at > now + _CLOCK_TOLERANCE:
            yield each, "carries a time in the future"
        else:
            present.append(each)
            if policy.keep_within and now - each.started_at < policy.keep_within:
                yield each, "keep_within"
    good = [each for each in present if each.proof != "failed"]
    drilled = next((each for each in good if each.proof == "drilled"), None)
    yield from _counted(good, policy)
    for each in good[: policy.min_keep]:
        yield each, f"min_keep {policy.min_keep}"
    if drilled is not None:
        yield drilled, "newest that passed a drill"
    # Better a set that failed than none: a part of it may still come back.
    failed = [each for each in present if each.proof == "failed"]
    for each in failed[: max(0, policy.min_keep - len(good))]:
        yield each, f"min_keep {policy.min_keep}, for want of better"
    for each in newest_first:
        if policy.require_drill and (
            drilled is None or _order(each) >= _order(drilled)
        ):
            yield each, "no newer set has passed a drill"
        if each.is_pinned:
            yield each, "pinned"
        if each.locked_until is not None and each.locked_until > now:
            until = each.locked_until.astimezone(UTC)
            yield each, f"object lock until {until:%Y-%m-%d}"


def _counted(
    good: Sequence[Candidate], policy: RetentionSettings
) -> Iterator[tuple[Candidate, str]]:
    for number, each in enumerate(good[: policy.keep_last], start=1):
        yield each, f"keep_last {number}"
    periods = (
        ("keep_daily", policy.keep_daily, "%Y-%m-%d"),
        ("keep_weekly", policy.keep_weekly, "%G-W%V"),
        ("keep_monthly", policy.keep_monthly, "%Y-%m"),
    )
    for rule, count, period_format in periods:
        newest: dict[str, Candidate] = {}
        for each in good:
            period = f"{each.started_at.astimezone(UTC):{period_format}}"
            newest.setdefault(period, each)
        for period, each in list(newest.items())[:count]:
            yield each, f"{rule} {period}"


def _keep_all(changed: Candidate, reasons: dict[str, list[str]]) -> RetentionPlan:
    """Return the plan that deletes nothing, because of a sudden change."""
    changes = "; ".join(changed.unconfirmed_changes[:_CHANGES_SHOWN])
    more = len(changed.unconfirmed_changes) - _CHANGES_SHOWN
    if more > 0:
        changes += f"; and {more} more"
    return RetentionPlan(
        keep={
            backup_id: why or [f"held: {changed.backup_id} changed suddenly"]
            for backup_id, why in reasons.items()
        },
        refused=f"{changed.backup_id} changed suddenly: {changes}; if that is right, "
        f"run `inv prune --confirm {changed.backup_id}`",
    )


def _order(each: Candidate) -> tuple[datetime, str]:
    return (each.started_at, each.backup_id)


def candidates(
    sets: Iterable[ListedSet],
    *,
    trust: Trust = ANYONE,
    locked_until: Mapping[str, datetime] | None = None,
) -> list[Candidate]:
    """Return what retention needs to know of sets.

    `locked_until` gives, by backup id, when the last object lock on a set ends. A
    confirmation beside any copy of a set counts; with trusted keys only if one of them
    signed it.

    Raises:
        StoreError: a set holds a sudden change, and a store that has it cannot be
            asked whether somebody confirmed it.
    """
    locks = locked_until or {}
    return [
        Candidate(
            backup_id=each.backup_id,
            started_at=each.started_at,
            proof=each.best_proof,
            unconfirmed_changes=()
            if each.sudden_changes and is_marked(CONFIRMATION_FOLDER, each, trust)
            else each.sudden_changes,
            locked_until=locks.get(each.backup_id),
            is_pinned=each.is_pinned,
        )
        for each in sets
    ]


def confirm(
    each: BackupSet, *, at: datetime, run_id: str, signer: Signer | None
) -> None:
    """Put beside every copy of a set that somebody looked at its sudden change.

    Raises:
        StoreError: a store refused.
    """
    fields = {
        "confirmed_at": at.isoformat(),
        "changes": list(each.manifest.sudden_changes),
    }
    name = mark_name(CONFIRMATION_FOLDER, at=at, run_id=run_id)
    _put_beside(each, name, fields, signer)


def pin(each: BackupSet, *, at: datetime, run_id: str, signer: Signer | None) -> None:
    """Put a pin beside every copy of a set.

    Raises:
        StoreError: a store refused.
    """
    name = mark_name(PIN_FOLDER, at=at, run_id=run_id)
    _put_beside(each, name, {"pinned_at": at.isoformat()}, signer)


def _put_beside(
    each: BackupSet, name: str, fields: Mapping[str, object], signer: Signer | None
) -> None:
    """Put a document about a set beside every copy of it."""
    document = {
        "backup_id": each.manifest.backup_id,
        "manifest_sha256": each.manifest_sha256,
        **fields,
    }
    for store in each.stores:
        store_document(store, each.manifest.prefix + name, document, signer)


def unpin(each: BackupSet) -> bool:
    """Remove the pins beside every copy of a set; return whether there were any.

    Raises:
        StoreError: a store refused.
    """
    pins = [*_marks_beside(PIN_FOLDER, each)]
    for store, key in pins:
        store.delete(key)
        store.delete(key + signatures.SUFFIX)
    return bool(pins)


def is_marked(folder: str, each: ListedSet, trust: Trust) -> bool:
    """Return whether a pin or a confirmation that counts lies beside a set now.

    Raises:
        StoreError: a store cannot be asked.
    """
    return any(
        trust.counts(store, key, manifest_sha256=each.manifest_sha256)
        for store, key in _marks_beside(folder, each)
    )


def _marks_beside(folder: str, each: ListedSet) -> Iterator[tuple[Store, str]]:
    """Yield the pins or the confirmations that lie beside a set now."""
    prefix = each.prefix
    for store in each.stores:
        for stored in store.list(prefix + folder):
            if is_mark(folder, stored.key.removeprefix(prefix)):
                yield store, stored.key


def delete_set(each: BackupSet) -> None:
    """Delete a set from every store that holds it.

    Without its manifest it no longer exists; a crash in between leaves orphans, which
    a later run removes.

    Raises:
        StoreError: a store refused.
    """
    for store in each.stores:
        store.delete(each.manifest.prefix + MANIFEST_NAME)
        store.discard(each.manifest.prefix)


def orphans(store: Store, *, source: str, now: datetime) -> list[str]:
    """Return where sets of a source were begun and never finished.

    In the place of a set that exists, these are the folders of runs that did not make
    it. Nothing was added there for the grace time. The caller holds the lock of the
    source in this store, and `now` is the time by its own clock: what another host
    writes at this moment is no orphan.
    """
    everything = [*store.list(f"{source}/"), *store.unfinished(f"{source}/")]
    found: list[str] = []
    for place in places_of(everything):
        folders = {attempt_in(e.key.removeprefix(place.prefix)) for e in place.objects}
        if not place.has_manifest:
            folders = {""}
        elif len(folders := folders - {""}) < 2:
            continue  # that of the run which made the set
        for left in (place.prefix + each for each in sorted(folders)):
            own = [e.modified_at for e in place.objects if e.key.startswith(left)]
            if max(own) < now - GRACE and not is_of_a_set(store, left):
                found.append(left)
    return found


def sweep(store: Store, *, source: str, now: datetime) -> int:
    """Remove uploads of a source that were never finished; return how many.

    `now` is the time by the store's own clock.

    Raises:
        StoreError: the store refused.
    """
    own = (f"{source}/", f"{store_locks.FOLDER}{source}/")
    places = (*own, comparison.FOLDER, REPORTS_FOLDER)
    return sum(store.sweep(place, before=now - GRACE) for place in places)
