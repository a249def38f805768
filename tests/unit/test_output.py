"""Hints name commands as the user calls them, and documents where they lie."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from opskit.tasks import output
from opskit.tasks.help import task_help
from tasks import namespace

ROOT = Path(__file__).resolve().parents[2]
_DOCUMENT = re.compile(r"\b(?:docs|runbooks)/[\w-]+\.md")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a task in a process: Invoke gives a task's help only once in each."""
    return subprocess.run(
        [sys.executable, "-m", "opskit", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    output.program.cache_clear()
    yield
    output.program.cache_clear()


@pytest.mark.parametrize(
    ("wrapper", "shown"),
    [("./inv", "./inv"), ("opskit", "opskit"), ("/srv/my tools/inv", "'/srv/my tools/inv'")],
)  # fmt: skip
def test_commands_are_named_as_the_wrapper_was_called(
    wrapper: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only commands are, not other words that contain the name."""
    monkeypatch.setenv("INV_CALLED_AS", wrapper)

    text = output.as_called("`inv backups` and `invoke verify`, by invoice, inv TASK")

    assert text == f"`{shown} backups` and `{shown} verify`, by invoice, inv TASK"


@pytest.mark.parametrize("name", ["opskit", "invoke"])
def test_a_program_on_the_path_is_named_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not there is named by its path."""
    monkeypatch.delenv("INV_CALLED_AS", raising=False)
    program = tmp_path / name
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert output.program() == str(program)

    output.program.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert output.program() == name


def test_every_document_that_a_hint_names_is_there() -> None:
    """In the clone, and in the wheel, which takes its folders over."""
    named = {
        name
        for path in (ROOT / "opskit").rglob("*.py")
        for name in _DOCUMENT.findall(path.read_text(encoding="utf-8"))
    }
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    packed = wheel["sources"] | wheel["force-include"]

    assert named
    for name in named | {"README.md"}:
        assert Path(output.hint(f"see {name}.")[4:-1]).is_file()
        assert packed[name.partition("/")[0]].startswith("opskit/documents/")


def test_names_of_files_in_a_result_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document's name is replaced in hints alone, and in each of them."""
    monkeypatch.setenv("INV_CALLED_AS", "opskit")
    document = {"files": ["docs/restore.md"], "checks": [{"hint": "Run `inv backup`."}]}

    assert output.with_hints(document) == {
        "files": ["docs/restore.md"],
        "checks": [{"hint": "Run `opskit backup`."}],
    }
    assert output.as_called("docs/restore.md") == "docs/restore.md"


def test_what_is_required_is_marked_in_help() -> None:
    """And it is refused without it, before anything is read."""

    assert "--to=STRING         required: " in run("restore", "--help").stdout
    for words in (["copy"], ["copy", "--from", "a"], ["restore"], ["pin"]):
        finished = run(*words, "--json")
        assert finished.returncode == 2
        assert "needed" in json.loads(finished.stdout)["error"]


@pytest.mark.parametrize("name", sorted(namespace.task_names))
def test_every_task_has_an_example_in_its_help(name: str) -> None:
    """Each task's help shows a call of it."""
    contexts = {str(each.name): each for each in namespace.to_contexts()}

    assert re.search(rf"\nExample: \S.* {name}\b", task_help(namespace, contexts[name]))
