"""Pipeline: the steps of a release in their order, and the way back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from opskit.checks import cell, count, duration
from opskit.config import configuration_path
from opskit.errors import (
    OpskitError,
    ReleaseFailed,
    ReleaseRefused,
    RollbackFailed,
    SmokeFailed,
)
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.drill import RestoreDrillRequest, drill
from opskit.operations.migrate import (
    MigrateRequest,
    RehearseRequest,
    bounds,
    drilled_sets,
    migrate,
    rehearse,
)
from opskit.operations.outcome import Outcome, Record
from opskit.operations.run import Run
from opskit.operations.smoke import SmokeRequest, smoke
from opskit.postgres.parameters import for_tools
from opskit.release.classes import Kind
from opskit.release.deployers import Deployer, deployer_of
from opskit.release.revisions import tool_of

STEP = "release-step"
Verdict = Literal["image-safe", "downgrade-first", "restore-only"]


@dataclass(kw_only=True)
class Step:
    """A step of a release: how it ended, how long it took, what is known of it."""

    name: str
    status: str = "planned"
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {"name": self.name, "status": self.status, "seconds": self.seconds}


@dataclass(kw_only=True)
class Released:
    """What became of a release or a rollback, step by step."""

    release_id: str
    version: str
    previous: str
    steps: list[Step] = field(default_factory=list)
    restore_point: str = ""
    kinds: dict[str, str] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    verdict: str = ""
    report: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            "release_id": self.release_id,
            "version": self.version,
            "previous": self.previous,
            "steps": [each.as_json() for each in self.steps],
            "restore_point": self.restore_point,
            "revisions": [
                {"id": each, "class": self.kinds.get(each)} for each in self.applied
            ],
            "verdict": self.verdict,
            "report": str(self.report) if self.report else "",
        }


OnStep = Callable[[Step], None]


def deployer(run: Run) -> Deployer:
    """Return what deploys versions, by the settings."""
    base = configuration_path().resolve().parent
    return deployer_of(run.settings.release, base)


class Pipeline:
    """The steps of a release in their order."""

    def __init__(
        self,
        run: Run,
        made: Released,
        known: Mapping[str, Mapping[str, Any]],
        on_step: OnStep,
    ) -> None:
        self._run, self._made, self._known, self._on_step = run, made, known, on_step
        self._settings = run.settings.release
        self._migrates = bool(self._settings.migrations.tool)
        self._deployer = deployer(run)

    def plan(self) -> list[str]:
        """Return the names of the steps."""
        before = ["restore point", "rehearse"] if self._migrates else []
        changes = ["migrate", "deploy"] if self._migrates else ["deploy"]
        if self._settings.order == "deploy-first":
            changes.reverse()
        after = ["contract"] if self._migrates else []
        return [*before, "baseline smoke", *changes, "smoke", *after]

    def release(self) -> str:
        """Do all steps; return the status of the release.

        Raises:
            ReleaseRefused: before anything changed.
            ReleaseFailed: it was rolled back.
            RollbackFailed: that failed too.
            SmokeFailed: the service gives no answer that says how it is.
        """
        steps: dict[str, Callable[[Step], None]] = {
            "restore point": self._restore_point,
            "rehearse": self._rehearse,
            "baseline smoke": self._baseline,
            "migrate": lambda step: self._migrate(step, expand_only=True),
            "deploy": lambda step: self._deploy(step, self._made.version),
            "smoke": self._smoke,
            "contract": lambda step: self._migrate(step, expand_only=False),
        }
        changed = False
        try:
            for name in self.plan():
                changed = changed or name in ("migrate", "deploy")
                with self._step(name) as step:
                    if step.status != "done before":
                        steps[name](step)
        except SmokeFailed:
            raise
        except OpskitError as error:
            if not changed:
                raise ReleaseRefused(error.message, hint=error.hint) from error
            self._roll_back(error)
        return "released"

    @contextmanager
    def _step(self, name: str) -> Iterator[Step]:
        """Surround a step: it is in the ledger before it begins and when it ended."""
        step = Step(name=name)
        self._made.steps.append(step)
        if name in self._known:
            step.status = "done before"
            step.details = dict(self._known[name].get("details", {}))
            self._learn(step)
            yield step
            return
        self._on_record(step, "begun")
        began = time.monotonic()
        try:
            yield step
        except OpskitError as error:
            step.status, step.seconds = "failed", round(time.monotonic() - began, 3)
            self._on_record(step, "failed", error=error.summary)
            self._on_step(step)
            raise
        step.status = step.status if step.status != "planned" else "ok"
        step.seconds = round(time.monotonic() - began, 3)
        self._learn(step)
        self._on_record(step, "done")
        self._on_step(step)

    def _learn(self, step: Step) -> None:
        made = self._made
        made.restore_point = step.details.get("restore_point", made.restore_point)
        made.kinds |= step.details.get("classes", {})
        made.applied += step.details.get("applied", [])

    def _on_record(self, step: Step, state: str, **more: Any) -> None:
        made = self._made
        record = Record(
            operation=STEP,
            run_id=self._run.run_id,
            started_at=self._run.now(),
            ended="failed" if state == "failed" else "ok",
            require_ledger=lambda: self._run.ledger,
            details={
                "release": made.release_id,
                "version": made.version,
                "previous": made.previous,
                "step": step.name,
                "state": state,
                "details": dict(step.details),
                **more,
            },
        )
        record.end()
        self._run.ledger.append(record)

    def _restore_point(self, step: Step) -> None:
        source = self._settings.migrations.database
        sets = drilled_sets(self._run, source)
        newest = max(sets, key=lambda each: each.manifest.snapshot_at, default=None)
        oldest_at = self._run.now() - self._settings.restore_point_age
        if newest is None or newest.manifest.snapshot_at < oldest_at:
            age = "no drilled set" if newest is None else "no drilled set that is new"
            raise ReleaseRefused(
                f"{source} has {age} enough to return to",
                hint=f"`inv backup --database {source}`, then "
                f"`inv restore-drill --database {source}`.",
            )
        step.details["restore_point"] = newest.manifest.backup_id

    def _rehearse(self, step: Step) -> None:
        pending = _required(migrate(self._run, MigrateRequest(dry_run=True)))
        if not pending.revisions:
            step.status = "nothing to migrate"
            return
        done = _required(
            rehearse(self._run, RehearseRequest(backup=self._made.restore_point))
        )
        kinds = {name: str(kind) for name, kind in done.rehearsal.kinds.items()}
        step.details["classes"] = kinds
        if Kind.DESTRUCTIVE in kinds.values():
            source = self._settings.migrations.database
            made = _required(backup(self._run, BackupRequest(database=source)))
            (one,) = made.sources
            backup_id = _required(one).manifest.backup_id
            _required(drill(self._run, RestoreDrillRequest(backup=backup_id)))
            step.details["restore_point"] = backup_id

    def _baseline(self, step: Step) -> None:
        if not self._run.settings.smoke.url:
            step.status = "not configured"
            return
        outcome = smoke(self._run, SmokeRequest())
        if outcome.result is None:
            _required(outcome)
            return
        failed = [each.name for each in outcome.result.gating if each.failed]
        step.details["failed"] = failed
        step.status = outcome.result.status

    def _smoke(self, step: Step) -> None:
        self._probe(step, self._made.version)

    def _probe(self, step: Step, version: str) -> None:
        """Ask the service; only what fails now and did not before is a failure."""
        if not self._run.settings.smoke.url:
            step.status = "not configured"
            return
        outcome = smoke(self._run, SmokeRequest(version=version))
        if outcome.result is None:
            _required(outcome)
            return
        before = self._failed_before()
        failed = [each.name for each in outcome.result.gating if each.failed]
        step.details["failed"] = failed
        if new := [each for each in failed if each not in before]:
            raise ReleaseFailed(
                f"the service newly fails {count(len(new), 'probe')}: {new[0]}",
                hint=f"`inv smoke --explain {new[0]}`",
            )
        if outcome.result.status == "inconclusive":
            raise SmokeFailed(
                f"{version} is deployed, and nothing says whether it works",
                hint="Look at the service, then probe it again with `inv smoke`, or "
                "take the release back with `inv rollback`.",
            )
        step.status = outcome.result.status

    def _failed_before(self) -> Sequence[str]:
        for step in self._made.steps:
            if step.name == "baseline smoke":
                failed: Sequence[str] = step.details.get("failed", ())
                return failed
        return ()

    def _migrate(self, step: Step, *, expand_only: bool) -> None:
        outcome = migrate(self._run, MigrateRequest(expand_only=expand_only))
        if outcome.result is not None:
            step.details["applied"] = list(outcome.result.seconds)
            if not outcome.result.revisions:
                step.status = "nothing to migrate"
        if outcome.errors:
            self._learn(step)  # what came before the failure is applied
        _required(outcome)

    def _deploy(self, step: Step, version: str) -> None:
        step.details["deployment"] = self._deployer.deploy(version)
        current = self._deployer.current()
        if current != version:
            raise ReleaseFailed(
                f"{version} was deployed, and {current or 'nothing'} is current",
                hint="See what the deployment tool says.",
            )

    def _roll_back(self, error: OpskitError) -> None:
        made = self._made
        deployed = any(each.name == "deploy" for each in made.steps)
        try:
            if deployed:
                self.take_back({"applied": made.applied}, version=made.previous)
        except OpskitError as second:
            raise RollbackFailed(
                f"{error.message}; and the rollback failed: {second.message}",
                hint=second.hint,
            ) from error
        back = f"{made.previous} runs again" if deployed else "nothing was deployed"
        raise ReleaseFailed(f"{error.message}; {back}", hint=error.hint) from error

    def take_back(
        self, before: Mapping[str, Any], *, version: str | None = None
    ) -> str:
        """Deploy the version before, if the schema allows it, and probe it.

        Raises:
            RollbackFailed: only a restore would do; or the old version fails.
        """
        version = self._made.version if version is None else version
        applied = list(before["applied"])
        verdict, reason = self._verdict(applied)
        self._made.verdict = f"{verdict}: {reason}"
        if not version or verdict == "restore-only":
            point = self._made.restore_point or "ID"
            raise RollbackFailed(
                f"the version before cannot run on this schema: {reason}"
                if version
                else "there is no version before",
                hint=f"A restore loses what was written since {point}: "
                f"`inv restore --backup {point} --to TARGET --replace`.",
            )
        if verdict == "downgrade-first":
            with self._step("downgrade") as step:
                self._downgrade(step, applied)
        with self._step("deploy the version before") as step:
            self._deploy(step, version)
        with self._step("smoke of the version before") as step:
            self._probe(step, version)
        return "rolled-back"

    def _verdict(self, applied: Sequence[str]) -> tuple[Verdict, str]:
        """Return what a rollback has to do, and why, by what was migrated."""
        kinds = {each: self._made.kinds.get(each, Kind.DESTRUCTIVE) for each in applied}
        heavy = [each for each, kind in kinds.items() if kind != Kind.ADDITIVE]
        if not heavy:
            return "image-safe", "nothing that the version before needs was changed"
        tool = tool_of(self._settings.migrations, configuration_path().resolve().parent)
        ways = {each.id for each in tool.revisions() if each.has_way_back}
        lost = [each for each in heavy if kinds[each] == Kind.DESTRUCTIVE]
        if lost:
            return "restore-only", f"migration {lost[0]} is destructive"
        if all(each in ways for each in applied):
            return "downgrade-first", f"migration {heavy[0]} has a way back"
        return "restore-only", f"migration {heavy[0]} has no way back"

    def _downgrade(self, step: Step, applied: Sequence[str]) -> None:
        settings = self._settings.migrations
        tool = tool_of(settings, configuration_path().resolve().parent)
        known = {each.id: each for each in tool.revisions()}
        url = for_tools(self._run.database(settings.database).resolve_url())
        for name in reversed(applied):
            tool.undo(url, known[name], bounds(settings))
        step.details["undone"] = list(reversed(applied))


def _required(outcome: Outcome[Any]) -> Any:
    """Return the result of an operation; raise what kept it from success."""
    if outcome.errors:
        first = outcome.errors[0]
        raise ReleaseFailed(first.message, hint=first.hint)
    return outcome.result


def render(made: Released, status: str) -> str:
    """Return the evidence of a release, in Markdown."""
    rows = (
        f"| {each.name} | {each.status} | {duration(each.seconds)} |"
        for each in made.steps
    )
    revisions = (
        f"| {cell(each)} | {made.kinds.get(each, 'unknown')} |" for each in made.applied
    )
    return "\n".join(
        [
            f"# {made.version}: {status}",
            "",
            f"Release {made.release_id}, before it {made.previous or 'nothing'}. "
            f"Restore point: {made.restore_point or 'none'}.",
            *([f"Verdict: {made.verdict}."] if made.verdict else []),
            "",
            "| step | outcome | time |",
            "|---|---|---|",
            *rows,
            "",
            "| migration | class |",
            "|---|---|",
            *revisions,
            "",
        ]
    )
