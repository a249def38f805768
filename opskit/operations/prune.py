"""Prunes sources: deletes the backup sets that no retention rule keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from opskit import files
from opskit.catalog import retention
from opskit.catalog.documents import PIN_FOLDER
from opskit.catalog.retention import RetentionPlan
from opskit.catalog.sets import BackupSet, ListedSet
from opskit.errors import RetentionRefused
from opskit.operations import keys, sources
from opskit.operations.outcome import Failure, Outcome, Record, worst
from opskit.operations.run import Run
from opskit.store import Store
from opskit.store.locks import HeldLock

_BEING_READ = "a drill, a restore or a verification is reading it"
_GRACE = timedelta(days=1)
_HINT = (
    "Nothing of these sources was deleted. Do what the message says, then run "
    "`inv prune --dry-run`."
)


@dataclass(frozen=True, kw_only=True)
class PruneRequest:
    """Whether to plan only, and delete nothing."""

    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class PruneStep:
    """A set that is kept or deleted, or what a killed backup left, which is removed."""

    action: Literal["keep", "delete", "remove"]
    what: str
    reasons: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was kept and deleted of one source, and why all was kept, if it was."""

    steps: tuple[PruneStep, ...]
    refused: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            "keep": [
                {"backup_id": each.what, "reasons": list(each.reasons)}
                for each in self.steps
                if each.action == "keep"
            ],
            "delete": [
                {"backup_id": each.what}
                for each in self.steps
                if each.action == "delete"
            ],
            "refused": self.refused,
        }


@dataclass(frozen=True, kw_only=True)
class Prunings:
    """What became of each source."""

    sources: tuple[Outcome[Pruned], ...]

    @property
    def refused(self) -> str | None:
        """Why retention refused to delete, of every source that it refused."""
        refused = [
            f"{each.subject}: {each.result.refused}"
            for each in self.sources
            if each.result and each.result.refused
        ]
        return "; ".join(refused) or None

    @property
    def failed(self) -> list[tuple[str, Failure]]:
        """The sources that could not be pruned, and why."""
        return [
            (each.subject, error)
            for each in self.sources
            for error in each.errors
            if error.exit_code != RetentionRefused.exit_code
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        parts = [each.result.as_json() for each in self.sources if each.result]
        document: dict[str, Any] = {
            "keep": [each for part in parts for each in part["keep"]],
            "delete": [each for part in parts for each in part["delete"]],
            "refused": self.refused,
        }
        failed = [
            {"source": name, "error": error.message} for name, error in self.failed
        ]
        return document | ({"failed": failed} if failed else {})


OnStep = Callable[[PruneStep], None]


def prune(
    run: Run, request: PruneRequest, *, on_step: OnStep = lambda _step: None
) -> Outcome[Prunings]:
    """Prune every configured source; `on_step` gets each step at once."""
    with run.recorded("prune") as record:
        outcomes = [
            _prune_source(run, name, request, on_step) for name in sources.every(run)
        ]
        if not request.dry_run:
            files.sweep_temporary(run.state_dir, before=run.now() - _GRACE)
        record.result = Prunings(sources=tuple(outcomes))
        errors = [error for _name, error in record.result.failed]
        if refused := record.result.refused:
            errors.append(Failure.of(RetentionRefused(refused, hint=_HINT)))
        if errors:
            record.report(worst(errors))
    return record.outcome


def _prune_source(
    run: Run, name: str, request: PruneRequest, on_step: OnStep
) -> Outcome[Pruned]:
    with run.recorded("prune", name, watched=not request.dry_run) as record:
        pruning = _Pruning(run=run, name=name, record=record, on_step=on_step)
        try:
            if request.dry_run:
                pruning.plan_only()
            else:
                with run.lock(name, "prune"):
                    pruning.carry_out()
        finally:
            record.result = Pruned(steps=tuple(pruning.steps), refused=pruning.refused)
        if pruning.refused:
            raise RetentionRefused(pruning.refused, hint=_HINT)
    return record.outcome


@dataclass(kw_only=True)
class _Pruning:
    """The pruning of one source, and what was done so far."""

    run: Run
    name: str
    record: Record
    on_step: OnStep
    refused: str | None = None
    deleted: list[str] = field(default_factory=list)
    steps: list[PruneStep] = field(default_factory=list)

    def plan_only(self) -> None:
        """Plan and delete nothing."""
        sets = self.run.listing(self.name, whole=True).of(self.name)
        plan = self._plan(sets, self.run.now())
        for each in reversed(plan.delete):  # in the order in which they would go
            self._step("delete", each)

    def carry_out(self) -> None:
        """Delete what no rule keeps, and what killed runs left.

        Hosts whose clocks differ meet in the stores: the lock there is held, and the
        time is that of the store whose clock is the furthest behind.
        """
        run, name = self.run, self.name
        with ExitStack() as stack:
            locks = {
                store.name: stack.enter_context(run.store_lock(store, name, "prune"))
                for store in run.stores
            }
            # What is deleted, and what is left instead, was read in this very run.
            sets = run.catalog(name, whole=True).of(name)
            now = min([run.now(), *(each.got_at for each in locks.values())])
            self._delete(sets, self._plan(sets, now), locks)
            for store in run.stores:
                self._tidy(store, locks[store.name])

    def _plan(self, sets: Sequence[ListedSet], now: datetime) -> RetentionPlan:
        run = self.run
        candidates = retention.candidates(
            sets, trust=keys.trust(run.settings), locked_until=_locked_until(run, sets)
        )
        plan = retention.plan(candidates, sources.policy(run, self.name), now=now)
        self.refused = plan.refused
        for backup_id, reasons in plan.keep.items():
            self._step("keep", backup_id, reasons)
        return plan

    def _delete(
        self,
        sets: list[BackupSet],
        plan: RetentionPlan,
        locks: Mapping[str, HeldLock],
    ) -> None:
        trust = keys.trust(self.run.settings)
        by_id = {each.manifest.backup_id: each for each in sets}
        self.record.begin(source=self.name, deleted=self.deleted, kept=len(plan.keep))
        for backup_id in reversed(plan.delete):  # the oldest first
            with self.run.unread(backup_id) as unread:
                if not unread:
                    self._step("keep", backup_id, [_BEING_READ])
                    continue
                if retention.is_marked(PIN_FOLDER, by_id[backup_id], trust):
                    self._step("keep", backup_id, ["pinned"])
                    continue
                for require_held in locks.values():
                    require_held()
                retention.delete_set(by_id[backup_id])
            self.deleted.append(backup_id)
            self._step("delete", backup_id)

    def _tidy(self, store: Store, lock: HeldLock) -> None:
        """Remove what killed runs left of this source in a store."""
        for prefix in retention.orphans(store, source=self.name, now=lock.got_at):
            lock()
            store.discard(prefix)
            self._step("remove", prefix)
        retention.sweep(store, source=self.name, now=lock.got_at)

    def _step(
        self,
        action: Literal["keep", "delete", "remove"],
        what: str,
        reasons: Sequence[str] = (),
    ) -> None:
        self.steps.append(PruneStep(action=action, what=what, reasons=reasons))
        self.on_step(self.steps[-1])


def _locked_until(run: Run, sets: Sequence[ListedSet]) -> dict[str, datetime]:
    """Return when the last object lock on a set ends, where it has one."""
    days = {name: each.object_lock_days for name, each in run.settings.stores.items()}
    return {
        each.backup_id: each.finished_at + timedelta(days=longest)
        for each in sets
        if (longest := max(days[store.name] for store in each.stores))
    }
