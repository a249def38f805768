"""The gates that `./inv test` has for workflows and scripts refuse what is bad."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from development.tasks import SECRETS, script_check, workflow_checks
from tests.processes import ROOT

_CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
_GOOD = f"""\
name: good
on:
  workflow_dispatch:
    inputs:
      backup:
        type: string
  schedule:
    - cron: "7 9 * * *"
      timezone: Europe/Berlin
permissions: {{}}
concurrency:
  group: good
  queue: max
jobs:
  drill:
    name: Drill
    runs-on: ubuntu-24.04
    timeout-minutes: 10
    permissions:
      contents: read # the checkout
    environment:
      name: backup
      deployment: false
    steps:
      - name: Check out
        uses: {_CHECKOUT}
        with:
          persist-credentials: false
      - name: Drill
        run: opskit drill --backup "$BACKUP"
        env:
          BACKUP: ${{{{ inputs.backup }}}}
          PGPASSWORD: ${{{{ secrets.PGPASSWORD }}}}
"""
_BAD = {
    "an action that is not pinned": (_CHECKOUT, "actions/checkout@v7", "unpinned-uses"),
    "an input in a script": ('"$BACKUP"', "${{ inputs.backup }}", "template-injection"),
    "no permissions at the top": ("permissions: {}\n", "", "excessive-permissions"),
    "permissions for every job": ("permissions: {}", "permissions: write-all", "excessive-permissions"),
    "credentials that stay": ("false\n      - name: Drill", "true\n      - name: Drill", "artipacked"),
    "a secret outside of an environment": (
        "    environment:\n      name: backup\n      deployment: false\n", "", "secrets-outside-env",
    ),
    "no concurrency": ("concurrency:\n  group: good\n  queue: max\n", "", "concurrency-limits"),
    "a key that GitHub does not know": ("timeout-minutes", "timeout-minuets", "timeout-minuets"),
}  # fmt: skip


def _refusals(commands: Sequence[Sequence[str]], folder: Path | None = None) -> str:
    """Return what those of the commands say that fail."""
    said = ""
    for name, *arguments in commands:
        done = subprocess.run(
            [Path(sys.executable).parent / name, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        said += done.stdout + done.stderr if done.returncode else ""
    return said


def _judged(folder: Path, text: str) -> str:
    (folder / "workflow.yml").write_text(text)
    return _refusals(workflow_checks([folder / "workflow.yml"]))


def test_a_good_workflow_passes(tmp_path: Path) -> None:
    """What the bad ones below are made of is refused by none."""
    assert _judged(tmp_path, _GOOD) == ""


@pytest.mark.parametrize("bad", _BAD)
def test_a_bad_workflow_is_refused(tmp_path: Path, bad: str) -> None:
    """One fault in the good workflow is named by one of the gates."""
    good, changed, named = _BAD[bad]
    assert _GOOD.count(good) == 1

    assert named in _judged(tmp_path, _GOOD.replace(good, changed))


def test_the_matrix_of_the_fleet_guide_passes(tmp_path: Path) -> None:
    """Put into the workflow of backups as the guide says."""
    guide = (ROOT / "docs" / "fleet.md").read_text()
    (shown,) = re.findall(r"```yaml\n(jobs:.*?)```", guide, re.DOTALL)
    new = yaml.safe_load(shown)["jobs"]
    workflow = yaml.safe_load((ROOT / "workflows" / "backup.yml").read_text())
    backup = workflow["jobs"]["backup"]
    common = {key: backup[key] for key in ("runs-on", "environment", "permissions")}
    steps = [*backup["steps"][:4], *new["databases"]["steps"]]
    listing = {"name": "List", **common, **new["databases"], "steps": steps}
    workflow["jobs"] = {
        "databases": listing, "backup": backup | new["backup"], "prune": workflow["jobs"]["prune"]
    }  # fmt: skip
    text = yaml.safe_dump(workflow, sort_keys=False).replace("true:", "on:", 1)
    path = tmp_path / "workflow.yml"
    # Without their comments, the other gate does not take them.
    (schema, _zizmor) = workflow_checks([path])

    path.write_text(text)
    assert _refusals([schema]) == ""
    path.write_text(text.replace("outputs:", "results:"))
    assert "results" in _refusals([schema])


def test_a_bad_script_is_refused(tmp_path: Path) -> None:
    """Scripts are found by their first line, wherever they lie."""
    script = tmp_path / "deeper" / "remove"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nrm -rf "$1"\n')
    assert _refusals([script_check(tmp_path)]) == ""

    script.write_text("#!/bin/sh\nrm -rf $1/*\n")

    assert "SC2115" in _refusals([script_check(tmp_path)])


def test_a_link_that_leads_nowhere_is_no_script(tmp_path: Path) -> None:
    """An editor leaves such links beside the files that are open in it."""
    (tmp_path / "remove").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / ".#remove").symlink_to("user@host.4711")

    assert script_check(tmp_path) == ("shellcheck", str(tmp_path / "remove"))


def test_a_secret_in_the_history_is_refused(tmp_path: Path) -> None:
    """A token that was committed and removed is found, an ordinary line is not."""
    _git(tmp_path, "init")
    path = tmp_path / "settings.py"
    path.write_text("limit = 3\n")
    _commit(tmp_path)
    assert _refusals([SECRETS], tmp_path) == ""

    path.write_text(f'token = "{"ghp_" + "a9Bc7De5Fg3H" * 3}"\n')
    _commit(tmp_path)
    path.write_text("limit = 3\n")
    _commit(tmp_path)

    assert "settings.py" in _refusals([SECRETS], tmp_path)


def test_ci_runs_on_what_is_said_to_be_supported() -> None:
    """Each Python of the package, and each major from 14 to the README's newest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    readme = re.search(
        r"dumps of `pg_dump` \d+ to (\d+)", (ROOT / "README.md").read_text()
    )
    assert readme is not None
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    rows = workflow["jobs"]["test"]["strategy"]["matrix"]["include"]
    embedded = {"16", "18"}
    demanded = workflow["jobs"]["test"]["env"]["TEST_OPSKIT_REQUIRE"].split(",")
    on_debian = re.search(
        r"TEST_OPSKIT_REQUIRE-([^}]+)", (ROOT / ".ci/run").read_text()
    )
    assert on_debian is not None

    assert [row["python"] for row in rows] == named
    majors = {row["postgresql"] for row in rows} | embedded
    assert {*on_debian[1].split(",")} - {*demanded} == {
        "chromium", "container", "foreign", "observatory", "postgresql-15-cron"
    }  # fmt: skip
    assert majors == {str(each) for each in range(14, int(readme[1]) + 1)}


def _commit(folder: Path) -> None:
    who = ("-c", "user.name=ops", "-c", "user.email=ops@example.com")
    _git(folder, "add", ".")
    _git(folder, *who, "commit", "--message", "Change the settings")


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, timeout=60
    )
