"""What a person says about a set: keep it (a pin), or its change is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opskit.catalog import retention
from opskit.errors import UsageError
from opskit.operations import keys
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run


@dataclass(frozen=True, kw_only=True)
class PinRequest:
    """The set to keep, or whose pin to remove."""

    backup: str
    remove: bool = False


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """Whether the set is pinned now, and whether that is new."""

    backup_id: str
    pinned: bool
    changed: bool
    stores: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return vars(self) | {"stores": list(self.stores)}


def pin(run: Run, request: PinRequest) -> Outcome[Pinned]:
    """Have retention keep a set until its pin is removed, or remove the pin."""
    remove = request.remove
    with run.recorded("unpin" if remove else "pin") as record:
        if not remove:
            # A pin that does not count must not be reported as one.
            keys.require_own_trust(run.settings, what="the pin")
        chosen = run.catalog(whole=True).find(request.backup)
        backup_id = chosen.manifest.backup_id
        record.begin(source=chosen.manifest.source, backup_id=backup_id)
        # Whatever prunes this set now leaves it alone, and looks for pins afterwards.
        with run.reading(backup_id):
            if remove:
                changed = retention.unpin(chosen)
            elif changed := not all(copy.is_pinned for copy in chosen.copies):
                retention.pin(
                    chosen,
                    at=run.now(),
                    run_id=run.run_id,
                    signer=run.protection.signer,
                )
        record.result = Pinned(
            backup_id=backup_id,
            pinned=not remove,
            changed=changed,
            stores=tuple(store.name for store in chosen.stores),
        )
    return record.outcome


@dataclass(frozen=True, kw_only=True)
class ConfirmRequest:
    """The set whose sudden change is right."""

    backup: str


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """The sudden changes of a set that somebody has confirmed."""

    backup_id: str
    changes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {"backup_id": self.backup_id, "confirmed": list(self.changes)}


def confirm(run: Run, request: ConfirmRequest) -> Outcome[Confirmed]:
    """Record beside every copy of a set that somebody looked at its sudden change."""
    with run.recorded("confirm") as record:
        # A confirmation that does not count must not be reported as one.
        keys.require_own_trust(run.settings, what="the confirmation")
        chosen = run.catalog(whole=True).find(request.backup)
        backup_id = chosen.manifest.backup_id
        changes = chosen.manifest.sudden_changes
        if not changes:
            raise UsageError(
                f"{backup_id} holds no sudden change",
                hint="`inv prune --dry-run` says which set has to be confirmed.",
            )
        record.begin(
            source=chosen.manifest.source, backup_id=backup_id, changes=list(changes)
        )
        retention.confirm(
            chosen,
            at=run.now(),
            run_id=run.run_id,
            signer=run.protection.signer,
        )
        record.result = Confirmed(backup_id=backup_id, changes=tuple(changes))
    return record.outcome
