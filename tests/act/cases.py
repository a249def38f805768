"""Cases: each workflow as it is run, what it must do, and how its run must end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.act.machine import Ran
from tests.act.project import Project
from tests.github_server import TOKEN, platform
from tests.releases import versions
from tests.releases.versions import Version
from tests.support import processes_of

_WEEKLY, _MONTHLY = {"schedule": "37 5 * * 0"}, {"schedule": "37 7 1 * *"}
Case = Callable[[Project], list[Ran]]
CASES: dict[str, Case] = {}


def _case(name: str) -> Callable[[Case], Case]:
    def add(act: Case) -> Case:
        CASES[name] = act
        return act

    return add


@_case("backup")
def back_up(project: Project) -> list[Ran]:
    """A set is stored, verified, and kept; the ledger of the job is in the store."""
    ran = project.machine.run("backup.yml", event="schedule")

    assert (ran.code, ran.jobs) == (0, {"Back up service": True, "Prune": True}), (
        ran.log
    )
    assert ran.steps["Verify what was stored"]
    assert [name for name in project.stored("service/") if "manifest" in name]
    assert project.stored("_ledger/github-backup-service/")
    return [ran]


@_case("backup, with a role")
def back_up_with_role(project: Project) -> list[Ran]:
    """Without keys in secrets, those of the role are used."""
    ran = project.machine.with_role().run("backup.yml")

    assert (ran.code, ran.jobs) == (0, {"Back up service": True, "Prune": True}), (
        ran.log
    )
    assert ran.steps["Take the role for the store"]
    return [ran]


@_case("backup, failing")
def back_up_failing(project: Project) -> list[Ran]:
    """Without the database the job fails, and nothing is pruned."""
    with project.site.database_away():
        ran = project.machine.run("backup.yml")

    assert (ran.code, ran.jobs) == (1, {"Back up service": False}), ran.log
    assert "exit status 30" in ran.log, ran.log
    assert not [name for name in project.stored("service/") if "manifest" in name]
    return [ran]


@_case("restore drill")
def drill(project: Project) -> list[Ran]:
    """The set is restored and equal; the evidence is an artifact, and attested."""
    ran = project.machine.run("restore-drill.yml", job="drill")

    assert (ran.code, ran.jobs) == (0, {"Drill": True}), ran.log
    kept = project.machine.artifacts / "restore-drill"
    documents = {path.name for path in kept.rglob("*.json")}
    attested = (project.machine.artifacts / "attested").read_text().split()[1::2]
    assert set(attested) == documents != set()
    return [ran]


@_case("restore drill, failing, then passing")
def drill_failing(project: Project) -> list[Ran]:
    """A damaged set opens an issue, and a whole one closes it, with a pull request."""
    with platform() as served:
        machine = project.machine.with_github(served.address, TOKEN)
        with project.damaged():
            failed = machine.run("restore-drill.yml", event="schedule", payload=_WEEKLY)
        assert (failed.code, failed.jobs) == (
            1, {"Drill": False, "Open or close the issue": True}
        ), failed.log  # fmt: skip
        (issue,) = served.issues
        assert (issue["title"], issue["state"]) == ("Restore drill failed", "open")

        passed = machine.run("restore-drill.yml", event="schedule", payload=_MONTHLY)

        assert (passed.code, [*passed.jobs.values()]) == (0, [True] * 3), passed.log
        assert served.issues[0]["state"] == "closed"
        (pull,) = served.pulls
        kept = {*(project.machine.artifacts / "restore-drill").rglob("*.json")}
        proposed = {*served.files(f"refs/heads/{pull['head']}")}
        assert {path.name for path in kept} <= {Path(each).name for each in proposed}
    return [failed, passed]


@_case("smoke")
def smoke(project: Project) -> list[Ran]:
    """The hourly probes pass."""
    ran = project.machine.run(
        "smoke.yml", event="schedule", payload={"schedule": "23 * * * *"}
    )

    assert (ran.code, ran.jobs) == (0, {"Smoke": True}), ran.log
    return [ran]


@_case("smoke, failing")
def smoke_failing(project: Project) -> list[Ran]:
    """While the service has no database, the job fails."""
    with project.site.database_away():
        ran = project.machine.run(
            "smoke.yml", payload={"inputs": {"profile": "minimal"}}
        )

    assert (ran.code, ran.jobs) == (1, {"Smoke": False}), ran.log
    assert "exit status 61" in ran.log, ran.log
    return [ran]


@_case("release, good")
def release(project: Project) -> list[Ran]:
    """A tag is tested, and released with its migration in both environments."""
    project.check_in(versions.GOOD)
    ran = _release(project, version="2")

    assert (ran.code, ran.jobs) == (0, {"Test": True, "Production": True}), ran.log
    assert project.running == ("2", "0004")
    assert [*project.machine.artifacts.glob("release-production*/evidence-*.tar")]
    return [ran]


@_case("release, a tag, staging before production")
def release_tag(project: Project) -> list[Ran]:
    """A pushed tag is tested, and released to staging, then to production."""
    with project.staging() as staging:
        project.check_in(versions.GOOD)
        ran = project.machine.run(
            "release.yml", event="push", payload={"ref": "refs/tags/v2"}
        )

        assert (ran.code, [*ran.jobs]) == (0, ["Test", "Staging", "Production"]), (
            ran.log
        )
        assert (staging.version, staging.schema) == project.running == ("v2", "0004")
    return [ran]


@_case("release, a tag, without a staging environment")
def release_unstaged(project: Project) -> list[Ran]:
    """With the job `staging` switched off, a tag is released to production at once."""
    path = project.repository / ".github" / "workflows" / "release.yml"
    before = path.read_text()
    staging = re.compile(r"(?m)(^  staging:\n(?:    .*\n)*?    if: ).+$")
    path.write_text(staging.sub(r"\1false", before))
    try:
        project.check_in(versions.GOOD)
        ran = project.machine.run(
            "release.yml", event="push", payload={"ref": "refs/tags/v2"}
        )
    finally:
        path.write_text(before)

    assert (ran.code, ran.jobs) == (0, {"Test": True, "Production": True}), ran.log
    assert project.running == ("v2", "0004")
    return [ran]


@_case("release, bad in staging")
def release_stopped(project: Project) -> list[Ran]:
    """What is taken back in staging never comes to production."""
    with project.staging() as staging:
        project.check_in(versions.ENDING)
        ran = project.machine.run(
            "release.yml", event="push", payload={"ref": "refs/tags/v2"}
        )

        assert (ran.code, ran.jobs) == (1, {"Test": True, "Staging": False}), ran.log
        assert staging.version == project.site.version == "1"
    return [ran]


@_case("release, bad")
def release_bad(project: Project) -> list[Ran]:
    """A version that answers wrong is taken back: the job fails, the old one runs."""
    ran = _rolled_back(project, versions.WRONG)

    assert project.running == ("1", "0004")
    return [ran]


@_case("release, bad, without a migration")
def release_ending(project: Project) -> list[Ran]:
    """A version that ends at once is taken back."""
    before = project.running
    ran = _rolled_back(project, versions.ENDING)

    assert project.running == before
    return [ran]


def _rolled_back(project: Project, version: Version) -> Ran:
    project.check_in(version)
    ran = _release(project, version="bad")

    assert (ran.code, ran.jobs) == (1, {"Test": True, "Production": False}), ran.log
    assert "exit status 60" in ran.log, ran.log
    assert ran.steps["Keep the evidence"]
    return ran


@_case("release, cancelled in the deployment and resumed")
def resume_deployment(project: Project) -> list[Ran]:
    """Nothing answers while a version starts; another machine makes it run."""
    cancelled = _cancelled(project, versions.HANGING_ONCE, project.await_start)
    assert project.site.version == ""

    return [cancelled, _resumed(project, schema="0003")]


def _resumed(project: Project, *, schema: str) -> Ran:
    """Have another machine take the release up, to its end."""
    ran = _release(project, resume="true")

    assert (ran.code, ran.jobs) == (0, {"Production": True}), ran.log
    assert project.running == ("2", schema)
    return ran


@_case("release, cancelled in the deployment, resumed and taken back")
def resume_bad(project: Project) -> list[Ran]:
    """Another machine takes it up, sees the version end, and has the old one run."""
    before = project.running
    cancelled = _cancelled(project, versions.HANGING_AND_ENDING, project.await_start)
    assert project.site.version == ""

    resumed = _release(project, resume="true")

    assert (resumed.code, resumed.jobs) == (1, {"Production": False}), resumed.log
    assert "exit status 60" in resumed.log, resumed.log
    assert resumed.steps["Keep the evidence"]
    assert project.running == before
    return [cancelled, resumed]


@_case("release, interrupted in a migration and resumed")
def resume_interrupted(project: Project) -> list[Ran]:
    """As GitHub cancels, with SIGINT to the step: opskit ends by itself, and tells how."""
    project.check_in(versions.SLOWLY)
    payload = {"inputs": {"version": "2", "only": "production"}}
    with project.machine.started("release.yml", payload=payload) as process:
        project.site.await_migration(process)
        (opskit,) = processes_of(f"{project.machine.python}/bin/opskit")
        os.kill(opskit, signal.SIGINT)
        ran = project.machine.end(process)
    assert (ran.code, ran.jobs) == (1, {"Test": True, "Production": False}), ran.log
    assert "exit status 130" in ran.log, ran.log

    return [ran, _resumed(project, schema="0004")]


@_case("release, cancelled in a migration and resumed")
def resume(project: Project) -> list[Ran]:
    """A run that was cancelled in a migration is taken up by another machine."""
    cancelled = _cancelled(project, versions.SLOWLY, project.site.await_migration)
    assert project.running[0] == "1"

    return [cancelled, _resumed(project, schema="0004")]


@_case("release, cancelled in a migration and rolled back")
def roll_back(project: Project) -> list[Ran]:
    """A run that was cancelled in a migration is taken back by another machine."""
    cancelled = _cancelled(project, versions.SLOWLY, project.site.await_migration)
    assert project.running[0] == "1"

    back = _release(project, rollback_to="1")

    assert (back.code, back.jobs) == (0, {"Production": True}), back.log
    assert project.running[0] == "1"
    return [cancelled, back]


def _cancelled(
    project: Project, version: Version, wait: Callable[[subprocess.Popen[bytes]], None]
) -> Ran:
    project.check_in(version)
    payload = {"inputs": {"version": "2", "only": "production"}}
    with project.machine.started("release.yml", payload=payload) as process:
        wait(process)
        process.send_signal(signal.SIGINT)
        ran = project.machine.end(process)

    assert (ran.code, ran.jobs) == (1, {"Test": True, "Production": False}), ran.log
    assert "this step has been cancelled" in ran.log
    assert "Gather the evidence" not in ran.steps
    return ran


def _release(project: Project, **inputs: str) -> Ran:
    return project.machine.run(
        "release.yml", payload={"inputs": {"only": "production", **inputs}}
    )
