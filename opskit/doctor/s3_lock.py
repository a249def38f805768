"""What becomes of objects that are deleted, and of those that must not be."""

from __future__ import annotations

from typing import Any

from opskit.checks import Health
from opskit.config import StoreSettings
from opskit.errors import StoreError
from opskit.store import s3_deletion
from opskit.store.s3_scratch import Scratch, denied

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
    kept = s3_deletion.lock(scratch, mode.upper())
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
