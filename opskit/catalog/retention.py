"""Retention: decides which sets stay, from what is given to it and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from opskit.catalog.proof import Proof
from opskit.config import RetentionSettings

# Clocks of two hosts differ; a set this far ahead of us is not from the future.
_CLOCK_TOLERANCE = timedelta(minutes=10)
_CHANGES_TOLD = 3


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
    protects. As long as a set, be it a failed one, holds a sudden change that nobody
    has confirmed, all is kept.
    """
    newest_first = sorted(sets, key=_order, reverse=True)
    if policy.is_empty:
        return RetentionPlan(
            keep={each.backup_id: ["nothing may be deleted"] for each in newest_first},
            refused="the policy has no rule that keeps anything; "
            "set one in [retention]",
        )
    reasons: dict[str, list[str]] = {each.backup_id: [] for each in newest_first}
    present = []
    for each in newest_first:
        if each.started_at > now + _CLOCK_TOLERANCE:
            reasons[each.backup_id].append("carries a time in the future")
        else:
            present.append(each)
    _keep_young(present, policy, now, reasons)
    good = [each for each in present if each.proof != "failed"]
    _keep_counted(good, policy, reasons)
    _keep_always(good, policy, reasons)
    # Better a set that failed than none: a part of it may still come back.
    failed = [each for each in present if each.proof == "failed"]
    for each in failed[: max(0, policy.min_keep - len(good))]:
        reasons[each.backup_id].append(
            f"min_keep {policy.min_keep}, for want of better"
        )
    _keep_undrilled(newest_first, good, policy, reasons)
    for each in newest_first:
        if each.is_pinned:
            reasons[each.backup_id].append("pinned")
        if each.locked_until is not None and each.locked_until > now:
            until = each.locked_until.astimezone(UTC)
            reasons[each.backup_id].append(f"object lock until {until:%Y-%m-%d}")
    changed = next((e for e in newest_first if _is_changed(e)), None)
    if changed is not None:
        return _held(changed, reasons)
    return RetentionPlan(
        keep={backup_id: why for backup_id, why in reasons.items() if why},
        delete=tuple(backup_id for backup_id, why in reasons.items() if not why),
    )


def _is_changed(each: Candidate) -> bool:
    # Also of a set that failed its drill: what is gone may be why it failed, and the
    # set after it is compared with it, so that nothing else tells of the loss.
    return bool(each.unconfirmed_changes)


def _held(changed: Candidate, reasons: dict[str, list[str]]) -> RetentionPlan:
    """Return the plan that deletes nothing, for the sake of what may be gone."""
    told = "; ".join(changed.unconfirmed_changes[:_CHANGES_TOLD])
    more = len(changed.unconfirmed_changes) - _CHANGES_TOLD
    if more > 0:
        told += f"; and {more} more"
    return RetentionPlan(
        keep={
            backup_id: why or [f"held: {changed.backup_id} changed suddenly"]
            for backup_id, why in reasons.items()
        },
        refused=f"{changed.backup_id} changed suddenly: {told}; if that is right, run "
        f"`inv prune --confirm {changed.backup_id}`",
    )


def _order(each: Candidate) -> tuple[datetime, str]:
    return (each.started_at, each.backup_id)


def _keep_young(
    present: Sequence[Candidate],
    policy: RetentionSettings,
    now: datetime,
    reasons: dict[str, list[str]],
) -> None:
    for each in present:
        if policy.keep_within and now - each.started_at < policy.keep_within:
            reasons[each.backup_id].append("keep_within")


def _keep_counted(
    good: Sequence[Candidate], policy: RetentionSettings, reasons: dict[str, list[str]]
) -> None:
    for number, each in enumerate(good[: policy.keep_last], start=1):
        reasons[each.backup_id].append(f"keep_last {number}")
    periods: tuple[tuple[str, int, Callable[[datetime], str]], ...] = (
        ("keep_daily", policy.keep_daily, lambda time: f"{time:%Y-%m-%d}"),
        ("keep_weekly", policy.keep_weekly, lambda time: f"{time:%G-W%V}"),
        ("keep_monthly", policy.keep_monthly, lambda time: f"{time:%Y-%m}"),
    )
    for rule, count, period_of in periods:
        newest: dict[str, Candidate] = {}
        for each in good:
            newest.setdefault(period_of(each.started_at.astimezone(UTC)), each)
        for period, each in list(newest.items())[:count]:
            reasons[each.backup_id].append(f"{rule} {period}")


def _keep_always(
    good: Sequence[Candidate], policy: RetentionSettings, reasons: dict[str, list[str]]
) -> None:
    for each in good[: policy.min_keep]:
        reasons[each.backup_id].append(f"min_keep {policy.min_keep}")
    for each in good:
        if each.proof == "drilled":
            reasons[each.backup_id].append("newest that passed a drill")
            break


def _keep_undrilled(
    newest_first: Sequence[Candidate],
    good: Sequence[Candidate],
    policy: RetentionSettings,
    reasons: dict[str, list[str]],
) -> None:
    if not policy.require_drill:
        return
    drilled = next((each for each in good if each.proof == "drilled"), None)
    for each in newest_first:
        if drilled is None or _order(each) >= _order(drilled):
            reasons[each.backup_id].append("no newer set has passed a drill")
