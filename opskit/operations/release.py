"""Releases a version of the service, takes it back, and lists what was released."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from opskit import locks
from opskit.checks import count
from opskit.config import configuration_path
from opskit.errors import (
    DatabaseError,
    DeployFailed,
    Interrupted,
    LockHeld,
    OpskitError,
    ReleaseFailed,
    ReleaseRefused,
    RollbackFailed,
    SmokeFailed,
    UsageError,
    machine_faults,
)
from opskit.log import logger
from opskit.operations import reports
from opskit.operations.history import (
    RELEASE,
    ROLLBACK,
    Attempt,
    history,
    taken_back,
    to_take_back,
)
from opskit.operations.migration_lock import release_lock
from opskit.operations.outcome import Outcome, Record
from opskit.operations.pipeline import Pipeline
from opskit.operations.run import Run
from opskit.operations.steps import OnStep, Released, Step, Steps, render
from opskit.postgres.snapshot import DatabaseLock
from opskit.release.deployers import Deployer, deployer_of
from opskit.release.local import Local

START = "start"
_LOCK_WAIT = timedelta(seconds=10)
_START_SECONDS, _LOOK_SECONDS = 120, 0.2
_GO_ON = "`inv release --resume` goes on with it, `inv rollback` takes it back."


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """Which version; with `dry_run` only the plan is made.

    With `resume` the newest release is taken up again, if it broke off.
    """

    version: str = ""
    dry_run: bool = False
    resume: bool = False


def release(
    run: Run, request: ReleaseRequest, *, on_step: OnStep = lambda _step: None
) -> Outcome[Released]:
    """Take the service to a version; back by itself if it newly fails its probes."""
    with run.recorded(RELEASE, watched=True) as record, _alone(run, RELEASE) as alone:
        deployer = _deployer(run)
        past = history(run.ledger.entries())
        _require_unchanged(run, past[-1:])
        broken = _broken(past, request) if request.resume else None
        made = _taken_up(broken) if broken else _begun(run, request, past, deployer)
        record.result = made
        steps = Steps(
            run=run,
            operation=RELEASE,
            made=made,
            known=broken.steps if broken else {},
            on_step=on_step,
        )
        pipeline = Pipeline(run, steps, deployer, require_alone=alone)
        if request.dry_run:
            made.steps += [Step(name=name) for name in pipeline.plan()]
            record.status = "planned"
            return record.outcome
        failure = broken.failure if broken else ""
        if not failure:
            pipeline.require_as_left()
        record.begin(release=made.release_id, version=made.version)
        _conclude(run, record, made, lambda: pipeline.release(failure=failure))
    return record.outcome


def rollback(
    run: Run, *, to: str = "", on_step: OnStep = lambda _step: None
) -> Outcome[Released]:
    """Take the service back to the version before, or that of a release by its id."""
    with run.recorded(ROLLBACK, watched=True) as record, _alone(run, ROLLBACK) as alone:
        deployer = _deployer(run)
        made, taken = _return(run, to, deployer)
        record.result = made
        steps = Steps(run=run, operation=ROLLBACK, made=made, on_step=on_step)
        pipeline = Pipeline(run, steps, deployer, require_alone=alone)
        record.begin(
            release=made.release_id,
            version=made.version,
            takes_back=[each.release for each in taken],
        )
        deployed = not taken or any(each.has_deployed for each in taken)
        _conclude(run, record, made, lambda: pipeline.take_back(deployed=deployed))
    return record.outcome


@dataclass(frozen=True, kw_only=True)
class Started:
    """The version that is to run, and its process; 0 if it ran already."""

    version: str
    process: int

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {"version": self.version, "process": self.process}


def start(run: Run) -> Outcome[Started]:
    """Start the process of the current version, if it does not run."""
    with run.recorded(START) as record, _alone_here(run, START):
        deployer = _deployer(run)
        if not (isinstance(deployer, Local) and deployer.settings.start):
            raise UsageError(
                "the service is not started by opskit",
                hint='Set deployer = "local" in [release], and start in '
                "[release.local].",
            )
        version, process = _current(deployer), 0
        if not version:
            raise ReleaseRefused(
                "no version is current",
                hint="Release one: `inv release --version REF`.",
            )
        record.status = "running"
        try:
            if not deployer.runs():
                record.begin(version=version)
                process, record.status = deployer.start(), "started"
        except DeployFailed as error:
            raise SmokeFailed(
                error.summary, said=error.said, hint=error.hint
            ) from error
        record.result = Started(version=version, process=process)
    return record.outcome


def _conclude(
    run: Run, record: Record, made: Released, work: Callable[[], str]
) -> None:
    """Do the work; whatever comes of it has its record and its report."""
    try:
        record.status = work()
    except (ReleaseFailed, RollbackFailed, ReleaseRefused, SmokeFailed) as error:
        record.status = {60: "rolled-back", 62: "refused"}.get(
            error.exit_code, "failed"
        )
        record.report(error)
    except Interrupted:
        record.status, record.ended = "failed", "interrupted"
        raise
    record.details |= {
        "previous": made.previous,
        "status": record.status,
        "restore_point": made.restore_point,
        "applied": list(made.applied),
        "classes": dict(made.kinds),
        "schema": made.schema,
        "schema_before": made.schema_before,
        "verdict": made.verdict,
    }
    name = f"{record.operation}-{made.release_id}"
    document = made.as_json() | {"status": record.status}
    text = render(made, record.status)
    try:
        with machine_faults(record.operation):
            made.report = reports.keep(run, name, document, text, record)
    except OpskitError as error:
        record.report(error)


@contextmanager
def _alone(run: Run, operation: str) -> Iterator[Callable[[], None]]:
    """One release or rollback at a time, on this host and with this database.

    The block gets what makes sure of it: a lock that was lost with its connection is
    taken again, and LockHeld says who has it if that is too late. The way back must not
    depend on a database that is down.
    """
    with _alone_here(run, operation), ExitStack() as stack:
        lock: DatabaseLock | None = None

        def require() -> None:
            nonlocal lock
            try:
                if lock is not None:
                    lock.require_held(within=_LOCK_WAIT)
            except DatabaseError:
                lock = stack.enter_context(release_lock(run))

        try:
            lock = stack.enter_context(release_lock(run))
        except DatabaseError as error:
            if operation == RELEASE:
                raise ReleaseRefused(
                    f"the lock of releases cannot be taken: {error.summary}",
                    said=error.said,
                    hint=error.hint,
                ) from error
            logger().warning(
                "the lock of releases in the database cannot be taken",
                reason=error.message,
            )
        yield require


@contextmanager
def _alone_here(run: Run, operation: str) -> Iterator[None]:
    """One of them at a time on this host; whoever starts the service is waited for.

    Cron may do so again and again, just while a version has to be taken back.
    """
    folder = run.state_dir / "locks"
    deadline = time.monotonic() + (0 if operation == START else _START_SECONDS)
    with ExitStack() as stack:
        while True:
            lock = locks.exclusive(
                folder, RELEASE, operation=operation, run_id=run.run_id, now=run.now()
            )
            try:
                stack.enter_context(lock)
                break
            except LockHeld as error:
                # It has no record in its first and its last moment.
                holder = error.details["holder"]
                is_start = not isinstance(holder, dict) or holder["operation"] == START
                if not is_start or time.monotonic() >= deadline:
                    raise
            time.sleep(_LOOK_SECONDS)
        yield


@dataclass(frozen=True, kw_only=True)
class Releases:
    """Releases and rollbacks, the newest first."""

    releases: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {"releases": list(self.releases)}


def list_releases(run: Run) -> Outcome[Releases]:
    """List what the ledger has of releases and rollbacks."""
    with run.recorded("releases") as record:
        record.result = Releases(releases=tuple(releases(run)))
    return record.outcome


def releases(run: Run) -> list[dict[str, Any]]:
    """Return what the ledger has of releases and rollbacks, the newest first."""
    return [
        {"time": each.time, "operation": each.operation, **each.details}
        for each in reversed(run.ledger.entries())
        if each.operation in (RELEASE, ROLLBACK) and "release" in each.details
    ]


def _deployer(run: Run) -> Deployer:
    base = configuration_path().resolve().parent
    return deployer_of(run.settings.release, run.settings.smoke, base)


def _current(deployer: Deployer) -> str:
    """Return the version that is deployed, before anything changes."""
    try:
        return deployer.current()
    except DeployFailed as error:
        raise ReleaseRefused(
            f"the version that runs is not known: {error.summary}",
            said=error.said,
            hint=error.hint or "See what the deployment tool says.",
        ) from error


def _require_unchanged(run: Run, attempts: Sequence[Attempt]) -> None:
    """Refuse to go by records that somebody has changed."""
    for each in attempts:
        if faults := run.ledger.faults_since(each.begins):
            raise ReleaseRefused(
                f"the ledger is not whole: {faults[0]}",
                hint=f"Move {run.state_dir}/ledger.jsonl away: it is then made again "
                "from its copies in the stores.",
            )
    # On machines that exist for one job nobody sees a ledger break, or lag behind.
    if unread := run.ledger.unread:
        raise ReleaseRefused(
            f"the ledger was made from its copies, and {unread[0].message}: what was "
            "released last may be recorded there alone",
            hint="Make every store reachable, or take that one out of the "
            "configuration if you know what was released last.",
        )
    if run.settings.ledger_name and not attempts and (lost := run.ledger.records_lost):
        raise ReleaseRefused(
            f"the ledger has lost {count(lost, 'record')}, and nobody knows what was "
            "released",
            hint="Look at the service and `inv ledger --verify`. Then begin another "
            "ledger: give it another ledger_name.",
        )


def _broken(past: Sequence[Attempt], request: ReleaseRequest) -> Attempt:
    """Return the release that can be taken up again: only the newest one."""
    newest = past[-1] if past else None
    if newest is None or not newest.is_resumable:
        raise ReleaseRefused(
            "no release broke off", hint="Begin one: `inv release --version REF`."
        )
    if newest.operation == ROLLBACK:
        raise ReleaseRefused("a rollback broke off, not a release", hint=_again(newest))
    if request.version not in ("", newest.version):
        raise ReleaseRefused(
            f"the release that broke off is of {newest.version}",
            hint=_GO_ON,
        )
    return newest


def _again(rollback: Attempt) -> str:
    """Return how to go on with a rollback; without its target it is another one."""
    return f"Run it again: `inv rollback --to {rollback.version}`."


def _taken_up(broken: Attempt) -> Released:
    made = Released(
        release_id=broken.release, version=broken.version, previous=broken.previous
    )
    broken.teach(made)
    return made


def _begun(
    run: Run, request: ReleaseRequest, past: Sequence[Attempt], deployer: Deployer
) -> Released:
    if not request.version:
        raise UsageError("release needs a version", hint="`inv release --version REF`.")
    deployer.require(request.version)
    if past and past[-1].is_resumable and past[-1].has_changed:
        raise ReleaseRefused(
            f"the {past[-1].operation} to {past[-1].version} "
            + ("ended without a verdict" if past[-1].status else "broke off"),
            hint=_GO_ON if past[-1].operation == RELEASE else _again(past[-1]),
        )
    current = _current(deployer)
    if current == request.version:
        raise ReleaseRefused(
            f"{request.version} is deployed already",
            hint="Name another version; `inv releases` lists those before.",
        )
    return Released(release_id=run.run_id, version=request.version, previous=current)


def _return(
    run: Run, to: str, deployer: Deployer
) -> tuple[Released, Sequence[Attempt]]:
    """Return a rollback that has not begun, and the releases that it takes back."""
    past = history(run.ledger.entries())
    left = to_take_back(past)
    newest = past[-1] if past else None
    if newest and not (to or newest.status or newest.has_changed):
        raise ReleaseRefused(
            f"the release to {newest.version} broke off before it changed anything",
            hint="There is nothing of it to take back. To have an earlier version run, "
            "name its release: `inv rollback --to RELEASE`; `inv releases` lists them.",
        )
    before = [number for number, each in enumerate(left) if to and each.previous == to]
    if before:
        version, taken = to, left[before[-1] :]
    elif to:
        chosen = _chosen(past, to)
        version, taken = chosen.version, left[left.index(chosen) + 1 :]
    elif left:
        version, taken = left[-1].previous, left[-1:]
    else:
        raise ReleaseRefused(
            "no release is on record that could be taken back",
            hint="`inv releases` lists them.",
        )
    if not version:
        raise ReleaseRefused(
            "there was no version before the first release",
            hint="Release a version that worked: `inv release --version REF`.",
        )
    _require_unchanged(run, taken or past[-1:])
    current = _current(deployer)
    if current == version and past[-1].is_settled:
        raise ReleaseRefused(
            f"{version} is deployed already", hint="`inv releases` lists the others."
        )
    deployer.require(version)
    made = Released(release_id=run.run_id, version=version, previous=current)
    for each in reversed(taken):  # the first one knows what there was before them
        each.teach(made)
    return made, taken


def _chosen(past: Sequence[Attempt], to: str) -> Attempt:
    released = [each for each in past if each.status == "released"]
    # The newest one of a version: what came after it is taken back.
    chosen = [each for each in released if each.version == to][-1:]
    chosen = chosen or [each for each in released if each.release.startswith(to)]
    if len(chosen) != 1:
        raise UsageError(
            f"{'no' if not chosen else 'more than one'} release is called {to}",
            hint="`inv releases` lists them.",
        )
    (one,) = chosen
    if one.release in taken_back(past):
        raise ReleaseRefused(
            f"the release {one.release} was taken back",
            hint=f"Release its version again: `inv release --version {one.version}`.",
        )
    return one
