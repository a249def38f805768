"""Steps of a release or a rollback: done on record, and shown in a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opskit.checks import cell, duration
from opskit.errors import OpskitError, ReleaseFailed, ReleaseRefused, machine_faults
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run

STEP = "release-step"
BASELINE = "baseline smoke"
# Steps that change the service or its database.
DOWNGRADE, DEPLOY_BEFORE = "downgrade", "deploy the version before"
SMOKE_BEFORE = "smoke of the version before"
WAY_BACK = frozenset({DOWNGRADE, DEPLOY_BEFORE, SMOKE_BEFORE})
MIGRATES = frozenset({"migrate", "contract"})
CHANGES = MIGRATES | {"deploy", DOWNGRADE, DEPLOY_BEFORE}
DONE_BEFORE = "done before"
# In the details of a step that was to apply migrations and ended before the first one.
UNTOUCHED = "untouched"
_PLANNED = "planned"


@dataclass(kw_only=True)
class Step:
    """A step of a release: how it ended, how long it took, what is known of it."""

    name: str
    status: str = _PLANNED
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def has_begun(self) -> bool:
        """Whether any of it was done."""
        return self.status != _PLANNED

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {"name": self.name, "status": self.status, "seconds": self.seconds}


OnStep = Callable[[Step], None]


@dataclass(kw_only=True)
class Released:
    """What became of a release or a rollback, step by step.

    `pending` are the migrations that it may have applied, `applied` those of them that
    the database has; `migrated` says of each step that began to apply some whether it
    came to its end; `rehearsed` are the digests of their files when they were
    rehearsed. `schema` is the newest migration that the database has, `schema_before`
    the one that it had when the release began. `failed_before` are the probes that
    failed before it began. In `differing` is the configuration that has changed since
    the version before was deployed.
    """

    release_id: str
    version: str
    previous: str
    steps: list[Step] = field(default_factory=list)
    restore_point: str = ""
    kinds: dict[str, str] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    migrated: dict[str, bool] = field(default_factory=dict)
    rehearsed: dict[str, str] = field(default_factory=dict)
    failed_before: list[str] = field(default_factory=list)
    schema: str = ""
    schema_before: str = ""
    verdict: str = ""
    differing: list[str] = field(default_factory=list)
    report: Path | None = None

    def learn(self, name: str, details: Mapping[str, Any]) -> None:
        """Note what a step has found out, in this run or an earlier one."""
        self.restore_point = str(details.get("restore_point") or self.restore_point)
        if "schema_before" in details:
            self.schema_before = str(details["schema_before"])
            self.schema = self.schema or self.schema_before
        self.kinds |= details.get("classes", {})
        self.rehearsed |= details.get("rehearsed", {})
        named = (*details.get("pending", ()), *details.get("applied", ()))
        self.pending += [each for each in named if each not in self.pending]
        if name == BASELINE:
            self.failed_before = list(details.get("failed", ()))

    @property
    def differences(self) -> str:
        """What is said of a configuration that differs."""
        names = ", ".join(map(cell, self.differing))
        return f"configuration that has changed since that version ran: {names}"

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
            "schema": self.schema,
            "schema_before": self.schema_before,
            "verdict": self.verdict,
            "differing": list(self.differing),
            "report": str(self.report) if self.report else "",
        }


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Does steps, each on record before it begins and when it has ended.

    `known` is the last record of each step that an earlier run has begun.
    """

    run: Run
    operation: str
    made: Released
    known: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    on_step: OnStep = lambda _step: None

    @property
    def begun(self) -> set[str]:
        """The names of the steps that this run or an earlier one has begun."""
        names = {each.name for each in self.made.steps if each.has_begun}
        return names | self.known.keys()

    @property
    def have_changed(self) -> bool:
        """Whether anything was changed, in this run or an earlier one."""
        return bool(CHANGES & self.begun)

    def is_done(self, name: str) -> bool:
        """Whether an earlier run has done a step."""
        return bool(self.known.get(name, {}).get("state") == "done")

    @contextmanager
    def step(self, name: str, *, is_way_back: bool = False) -> Iterator[Step]:
        """Surround a step.

        One of the way back is done again, and also where it cannot be recorded.

        Raises:
            ReleaseRefused: it cannot be put on record, and was not begun.
        """
        step = Step(name=name)
        self.made.steps.append(step)
        if not is_way_back and self.is_done(name):
            step.status = DONE_BEFORE
            yield step
            return
        if not self._record(step, "begun") and not is_way_back:
            raise ReleaseRefused(
                f"the step {name} cannot be put on record",
                hint=f"Let this user write to the ledger in {self.run.state_dir}, and "
                "to a store.",
            )
        step.status, began = "begun", time.monotonic()
        try:
            with machine_faults(self.operation):
                yield step
        except BaseException as error:
            step.seconds = round(time.monotonic() - began, 3)
            step.status = "interrupted"
            if isinstance(error, OpskitError):
                step.status = "failed"
                self._record(step, "failed", error=error.summary, code=error.exit_code)
            self.on_step(step)
            raise
        step.status = step.status if step.status != "begun" else "ok"
        step.seconds = round(time.monotonic() - began, 3)
        self.made.learn(name, step.details)
        self._record(step, "done")
        self.on_step(step)

    def _record(self, step: Step, state: str, **more: Any) -> bool:
        details = {
            "operation": self.operation,
            "release": self.made.release_id,
            "version": self.made.version,
            "previous": self.made.previous,
            "step": step.name,
            "state": state,
            "details": dict(step.details),
            **more,
        }
        failed = state == "failed"
        return self.run.ledger.note(self.run.run_id, STEP, details, failed=failed)


@contextmanager
def refusing() -> Iterator[None]:
    """Surround what comes before anything changes: an error is a refusal."""
    try:
        yield
    except OpskitError as error:
        raise ReleaseRefused(error.summary, said=error.said, hint=error.hint) from error


def required(outcome: Outcome[Any]) -> Any:
    """Return the result of an operation; raise what kept it from success.

    The words of a server stay apart: they may hold rows.
    """
    if outcome.errors:
        first = outcome.errors[0]
        summary = first.summary or first.message
        said = first.message.removeprefix(summary).removeprefix(": ")
        raise ReleaseFailed(summary, said=said, hint=first.hint)
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
            *([f"Newest migration: {made.schema}."] if made.schema else []),
            *([f"Verdict: {made.verdict}."] if made.verdict else []),
            *([f"Note: {made.differences}."] if made.differing else []),
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
