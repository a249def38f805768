"""Releases a version of the service, takes it back, and lists what was released."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from opskit import locks
from opskit.errors import (
    ReleaseFailed,
    ReleaseRefused,
    RollbackFailed,
    SmokeFailed,
    UsageError,
)
from opskit.operations import reports
from opskit.operations.outcome import Outcome, Record
from opskit.operations.pipeline import (
    STEP,
    OnStep,
    Pipeline,
    Released,
    Step,
    deployer,
    render,
)
from opskit.operations.run import Run

RELEASE, ROLLBACK = "release", "rollback"


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """Which version; with `dry_run` only the plan is made.

    With `resume` the release that broke off last is taken up again.
    """

    version: str = ""
    dry_run: bool = False
    resume: bool = False


def release(
    run: Run, request: ReleaseRequest, *, on_step: OnStep = lambda _step: None
) -> Outcome[Released]:
    """Take the service to a version; back by itself if it newly fails its probes."""
    with run.recorded(RELEASE, watched=True) as record, _alone(run):
        made = _begun(run, request)
        record.result = made
        pipeline = Pipeline(run, made, _known(run, made), on_step)
        if request.dry_run:
            made.steps += [Step(name=name) for name in pipeline.plan()]
            record.status = "planned"
            return record.outcome
        record.begin(release=made.release_id, version=made.version)
        _conclude(run, record, made, pipeline.release)
    return record.outcome


def rollback(
    run: Run, *, to: str = "", on_step: OnStep = lambda _step: None
) -> Outcome[Released]:
    """Take the service back to the version before, or that of a release by its id."""
    with run.recorded(ROLLBACK, watched=True) as record, _alone(run):
        made, before = _return(run, to)
        record.result = made
        pipeline = Pipeline(run, made, {}, on_step)
        record.begin(release=made.release_id, version=made.version)
        _conclude(run, record, made, lambda: pipeline.take_back(before))
    return record.outcome


def _conclude(
    run: Run, record: Record, made: Released, work: Callable[[], str]
) -> None:
    """Do the work; whatever comes of it has its report and its record."""
    try:
        record.status = work()
    except (ReleaseFailed, RollbackFailed, ReleaseRefused, SmokeFailed) as error:
        record.status = {60: "rolled-back", 62: "refused"}.get(
            error.exit_code, "failed"
        )
        record.report(error)
    name = f"{record.operation}-{made.release_id}"
    document = made.as_json() | {"status": record.status}
    made.report = reports.keep(run, name, document, render(made, record.status), record)
    record.details |= {
        "previous": made.previous,
        "status": record.status,
        "restore_point": made.restore_point,
        "applied": list(made.applied),
        "classes": dict(made.kinds),
        "verdict": made.verdict,
    }


def _alone(run: Run) -> AbstractContextManager[None]:
    """One release or rollback at a time on this host."""
    folder = run.state_dir / "locks"
    return locks.exclusive(
        folder, RELEASE, operation=RELEASE, run_id=run.run_id, now=run.now()
    )


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


def _begun(run: Run, request: ReleaseRequest) -> Released:
    if request.resume:
        known = {each["release"] for each in releases(run) if each.get("status")}
        open_ones = [
            each.details
            for each in run.ledger.entries()
            if each.operation == STEP and each.details["release"] not in known
        ]
        if not open_ones:
            raise ReleaseRefused(
                "no release broke off", hint="Begin one: `inv release --version REF`."
            )
        last = open_ones[-1]
        return Released(
            release_id=str(last["release"]),
            version=str(last["version"]),
            previous=str(last["previous"]),
        )
    if not request.version:
        raise UsageError("release needs a version", hint="`inv release --version REF`.")
    current = deployer(run).current()
    if current == request.version:
        raise ReleaseRefused(
            f"{request.version} is deployed already",
            hint="Name another version; `inv releases` lists those before.",
        )
    return Released(release_id=run.run_id, version=request.version, previous=current)


def _return(run: Run, to: str) -> tuple[Released, Mapping[str, Any]]:
    """Return a rollback that has not begun, and the release that it takes back."""
    done = [each for each in releases(run) if each.get("status") == "released"]
    if to:
        chosen = [each for each in done if str(each["release"]).startswith(to)]
        if len(chosen) != 1:
            raise UsageError(
                f"{'no' if not chosen else 'more than one'} release is called {to}",
                hint="`inv releases` lists them.",
            )
        version, taken_back = str(chosen[0]["version"]), done[: done.index(chosen[0])]
    elif done:
        version, taken_back = str(done[0]["previous"]), done[:1]
    else:
        raise ReleaseRefused(
            "no release is on record", hint="`inv releases` lists them."
        )
    if not version:
        raise ReleaseRefused(
            "there was no version before the first release",
            hint="Release a version that worked: `inv release --version REF`.",
        )
    applied = [name for each in taken_back for name in each.get("applied", ())]
    kinds: dict[str, str] = {}
    for each in taken_back:
        kinds |= each.get("classes", {})
    made = Released(
        release_id=run.run_id,
        version=version,
        previous=deployer(run).current(),
        kinds=kinds,
        restore_point=str(taken_back[-1]["restore_point"]) if taken_back else "",
    )
    return made, {"applied": applied}


def _known(run: Run, made: Released) -> dict[str, dict[str, Any]]:
    """Return the steps that this release has done before it broke off."""
    return {
        str(each.details["step"]): dict(each.details)
        for each in run.ledger.entries()
        if each.operation == STEP
        and each.details["release"] == made.release_id
        and each.details["state"] == "done"
    }
