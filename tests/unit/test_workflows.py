"""The workflows that users get keep what docs/github.md says of them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from development.tasks import workflow_checks
from opskit.tasks.arguments import parse
from tasks import namespace

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "workflows").glob("*.yml"))
DOCUMENT = (ROOT / "docs" / "github.md").read_text()
LOADED = {path.stem: yaml.safe_load(path.read_text()) for path in FILES}
JOBS = {
    f"{name}: {job}": content
    for name, workflow in LOADED.items()
    for job, content in workflow["jobs"].items()
}
_QUEUED = {"cancel-in-progress": False, "queue": "max"}

of_each_job = pytest.mark.parametrize("job", JOBS)


def steps(job: str, key: str) -> list[Any]:
    return [each[key] for each in JOBS[job]["steps"] if key in each]


def test_there_are_four() -> None:
    """Their names are what people look for."""
    assert list(LOADED) == ["backup", "release", "restore-drill", "smoke"]


@of_each_job
def test_a_job_has_a_limit_and_its_own_permissions(job: str) -> None:
    """Nothing is permitted to a whole workflow, and nothing runs without an end."""
    assert LOADED[job.partition(":")[0]]["permissions"] == {}
    assert JOBS[job]["permissions"]
    assert JOBS[job]["timeout-minutes"] <= 300


@of_each_job
def test_a_step_that_hangs_fails_before_its_job_is_cancelled(job: str) -> None:
    """After a step that failed the evidence is kept, and nothing is released further."""
    limits = {each.get("name", each.get("uses")): each["timeout-minutes"] for each in JOBS[job]["steps"]}  # fmt: skip
    # One of three is run.
    assert limits.pop("Resume", 0) == limits.pop("Roll back", 0)
    assert sum(limits.values()) <= JOBS[job]["timeout-minutes"]


@pytest.mark.parametrize("job", ["staging", "production"])
def test_a_release_does_not_go_on_after_a_job_that_was_cancelled(job: str) -> None:
    """GitHub cancels a job that takes too long, and does not call that a failure."""
    condition = LOADED["release"]["jobs"][job]["if"]
    for word in (
        "!failure()",
        "!cancelled()",
        "!contains(needs.*.result, 'cancelled')",
    ):
        assert f"{word} && " in condition


@of_each_job
def test_nothing_is_cancelled_or_replaced(job: str) -> None:
    """A later run waits for the one before, wherever it waits."""
    groups = [e.get("concurrency") for e in (LOADED[job.partition(":")[0]], JOBS[job])]
    (group,) = filter(None, groups)
    assert group | _QUEUED == group


@of_each_job
def test_a_step_is_one_call_without_anything_put_into_it(job: str) -> None:
    """Values come by the environment; a signal reaches what may be interrupted."""
    for script in steps(job, "run"):
        assert "${{" not in script
        assert "\n" not in script.strip()
        words = shlex.split(script.removeprefix("exec "))
        if words[0] == "opskit":
            tasks = {str(each.name): each for each in namespace.to_contexts()}
            parse([each for each in words[1:] if each[0] != ">"], tasks)
            # The runner sends signals to the shell alone.
            is_short = words[1] in ("github", "evidence")
            assert script.startswith("exec ") is not is_short
        else:
            assert script.strip() in (
                "python -m pip install --requirement requirements-opskit.txt",
                "inv test",
            )


@of_each_job
def test_secrets_lie_in_environments_and_reach_only_one_step(job: str) -> None:
    """Where a job has none, it can ask for none; each is in the document."""
    text = yaml.safe_dump(JOBS[job])
    secrets = set(re.findall(r"secrets\.(\w+)", text))
    assert bool(secrets) is ("environment" in JOBS[job])
    assert "secrets." not in yaml.safe_dump(JOBS[job] | {"steps": []})
    with_secrets = [e for e in JOBS[job]["steps"] if "secrets." in yaml.safe_dump(e)]
    assert [e["run"] for e in with_secrets] == ["opskit github --secrets"] * bool(
        secrets
    )
    for name in secrets:
        assert f"| `{name}` |" in DOCUMENT
    if "OPSKIT_IDENTITY_FILE" in secrets:
        assert not job.startswith("backup")


def test_every_job_with_a_ledger_has_one_of_its_own() -> None:
    """Two that run at once must not go on with the same one."""
    names = [e["env"]["OPSKIT_LEDGER_NAME"] for e in JOBS.values() if "env" in e]
    assert len(names) == len(set(names)) == 6


def test_each_action_is_pinned_once() -> None:
    """The same commit in every file, with its version beside it."""
    used = chain.from_iterable(
        re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40}) # (v[\d.]+)\n", path.read_text())
        for path in FILES
    )
    pins = set(used)
    assert len(pins) == len({action for action, _commit, _version in pins}) == 6
    assert sum(p.read_text().count("uses: ") for p in FILES) == sum(
        len(re.findall(r"uses: \S+@[0-9a-f]{40} # v", p.read_text())) for p in FILES
    )


def test_releases_are_made_the_same_way_everywhere() -> None:
    """What was tried on staging is what is done in production, later and apart from it."""
    staging, production = (
        LOADED["release"]["jobs"][e] for e in ("staging", "production")
    )

    assert staging["steps"] == production["steps"]
    assert production["needs"] == ["test", "staging"]
    assert staging["env"]["OPSKIT_CONFIG"] == "opskit.staging.toml"
    assert "OPSKIT_CONFIG" not in production["env"]
    assert staging["concurrency"]["group"] != production["concurrency"]["group"]


def test_the_job_staging_is_switched_off_as_the_document_says(tmp_path: Path) -> None:
    """The job stays in the file, since `production` takes its steps from there."""
    text = (ROOT / "workflows" / "release.yml").read_text()
    staging = re.compile(r"(?m)(^  staging:\n(?:    .*\n)*?    if: ).+$")
    path = tmp_path / "release.yml"
    path.write_text(staging.sub(r"\1false", text))

    jobs = yaml.safe_load(path.read_text())["jobs"]

    assert "set `if: false` on the job `staging`" in " ".join(DOCUMENT.split())
    assert jobs["staging"]["if"] is False
    assert jobs["production"] == LOADED["release"]["jobs"]["production"]
    for command, *words in workflow_checks([path]):
        program = Path(sys.executable).parent / command
        judged = subprocess.run([program, *words], capture_output=True, text=True)
        assert judged.returncode == 0, judged.stdout + judged.stderr


def test_no_step_after_a_cancellation_takes_a_lock() -> None:
    """`always()` would run it while the runner counts the seconds."""
    for path in FILES:
        assert "always()" not in path.read_text()


def test_times_are_those_of_the_document() -> None:
    """None is on the hour, when GitHub drops runs."""
    crons = [
        each["cron"].split()
        for workflow in LOADED.values()
        # YAML 1.1 reads the key as true.
        for each in workflow[True].get("schedule", ())
    ]
    assert len(crons) == 5
    for minute, hour, *_days in crons:
        assert int(minute) % 5
        said = (
            f"{minute} minutes past" if hour == "*" else f"{int(hour):02}:{minute:0>2}"
        )
        assert said in DOCUMENT
