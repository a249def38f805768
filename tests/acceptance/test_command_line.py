"""What a call means, however opskit is called: refused is done nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, Project
from tests.acceptance.services import KEEP_ONE


def test_a_dry_run_by_another_name_deletes_nothing(project: Project) -> None:
    """Sets that retention would delete are all there after a call that is refused."""
    project.configure(KEEP_ONE)
    for _ in range(2):
        project.run("backup")
    before = project.files()

    for call in (
        "prune --dry",
        "--dry prune",
        "-R prune",
        "prune -qR",
        "prune --dry=1",
    ):
        project.run(*call.split(), code=2)
        assert "--dry-run" in project.errors
    assert project.files() == before
    assert project.json("prune", "--dry-run")["delete"]


def test_plain_invoke_refuses_its_own_dry_run(project: Project) -> None:
    """Invoke takes `--dry` itself; the task refuses it, in the environment as well."""
    (project.folder / "tasks.py").write_text("from opskit.tasks import namespace\n")
    project.configure(KEEP_ONE)
    for _ in range(2):
        project.run("backup")
    before = project.files()
    invoke = Path(sys.executable).parent / "invoke"

    for words, variable in ((["prune", "--dry"], {}), (["-R", "prune"], {}), (["prune"], {"INVOKE_RUN_DRY": "1"}), (["prune", "-w"], {})):  # fmt: skip
        finished = subprocess.run(
            [invoke, *words],
            cwd=project.folder,
            env={"PATH": os.environ["PATH"], **variable},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 2, finished.stderr
        assert "Invoke's own" in finished.stderr

    assert project.files() == before


@pytest.mark.parametrize(
    "redirection", ["2>&-", "2>/dev/full", ">&- 2>&-", ">/dev/full"]
)
def test_a_stream_that_cannot_be_written_ends_nothing(
    redirection: str, project: Project
) -> None:
    """A backup is taken with its terminal or its log gone, and its files are whole."""
    finished = subprocess.run(
        f'"{ROOT}/inv" backup --verbose {redirection}',
        shell=True,
        cwd=project.folder,
        env={"PATH": os.environ["PATH"], "OPSKIT_LOG_FORMAT": "json"},
        capture_output=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    assert project.json("verify")["bad"] == []


def test_a_name_of_the_other_kind_is_explained(project: Project) -> None:
    """A folder named as a database, or the reverse, gets the flag that is meant."""
    (project.folder / "state").mkdir()
    project.configure(f"[files.state]\npath = '{project.folder}/state'\n")

    for task in ("backup", "restore-drill", "backups"):
        document = project.json(task, "--database", "state", code=2)
        assert document["error"] == "state is a folder, not a database"
        assert "--files state" in document["hint"]
    document = project.json("backup", "--files", "shop", code=2)
    assert "--database shop" in document["hint"]


def test_plain_invoke_shows_no_traceback_of_a_wrong_number(project: Project) -> None:
    """A flag that wants a number says so, whoever parses the command line."""
    (project.folder / "tasks.py").write_text("from opskit.tasks import namespace\n")
    invoke = Path(sys.executable).parent / "invoke"

    finished = subprocess.run(
        [invoke, "restore-drill", "--mutants", "x"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 2
    assert "--mutants needs a whole number" in finished.stderr
    assert "invoke" not in finished.stdout


@pytest.mark.parametrize("form", ["bash"])
def test_completion_offers_tasks_and_flags(form: str, project: Project) -> None:
    """The script that is printed completes `./inv`, `opskit` and `invoke`."""
    script = project.run("--print-completion-script", form)
    asked = f"""{script}
COMP_WORDS=("{ROOT}/inv" $1) COMP_CWORD=$2
_opskit_complete
printf '%s\\n' "${{COMPREPLY[@]}}"
complete -p
"""

    def completed(words: str, at: int) -> str:
        return subprocess.run(
            ["bash", "-c", asked, "bash", words, str(at)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert completed("restore-", 1).splitlines()[0] == "restore-drill"
    assert "--dry-run" in completed("prune --d", 2).splitlines()
    assert "--dry" not in completed("prune --d", 2).splitlines()
    for name in ("inv", "opskit", "invoke"):
        assert f"_opskit_complete {name}\n" in completed("b", 1)


# Each is loaded as the first one after the parser of commands, as by `./inv`.
EACH_FIRST = """
import importlib, os, pathlib, sys
import opskit.__main__
for path in sorted(pathlib.Path(opskit.__main__.__file__).parent.glob("operations/*.py")):
    if not (child := os.fork()):
        importlib.import_module(f"opskit.operations.{path.stem}")
        os._exit(0)
    assert not os.waitpid(child, 0)[1], path
"""


def test_every_operation_can_be_loaded_first() -> None:
    """Other tests run commands in processes that have loaded all of them."""
    finished = subprocess.run(
        [sys.executable, "-P", "-c", EACH_FIRST],
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
