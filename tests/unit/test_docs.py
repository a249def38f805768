"""The documents: every command, link, key, code and module that they name exists."""

from __future__ import annotations

import ast
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from development.configuration_docs import render
from opskit.config import Settings, load
from opskit.errors import OpskitError, UsageError
from opskit.runbook.text import read
from opskit.tasks.arguments import parse
from tasks import namespace
from tests.unit.documents import (
    COPIED,
    DOCUMENTS,
    FENCE,
    INLINE,
    ROOT,
    calls,
    headings,
    name_of,
    prose,
    quoted_calls,
)

_LINK = re.compile(r"\]\(([^)\s]+)\)")

# What is left to the reader to fill in has three dots.
SHOWN = [
    (name_of(path), body)
    for path in DOCUMENTS
    for language, body in FENCE.findall(path.read_text(encoding="utf-8"))
    if language == "toml" and "…" not in body
]

EXAMPLES = [each for each in COPIED if each.name == "opskit.toml"]
of_each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def tasks_called(arguments: list[str]) -> set[str]:
    """Return the task that a call names; raise UsageError where it is wrong."""
    call = parse(arguments, {str(each.name): each for each in namespace.to_contexts()})
    return {str(call.task.name)} if call.task else set()


def exit_codes() -> set[int]:
    """Return the exit code of each error, and 0."""
    todo: list[type[OpskitError]] = [OpskitError]
    codes = {0}
    while todo:
        kind = todo.pop()
        codes.add(kind.exit_code)
        todo += kind.__subclasses__()
    return codes


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    kept = (re.sub(r"[^\w\- ]", "", each.lower()) for each in headings(text))
    return {each.replace(" ", "-") for each in kept}


def listed_rooms(text: str) -> set[str]:
    """Return what the document's tree of folders lists, by its path below opskit/."""
    tree = next(body for _language, body in FENCE.findall(text) if "opskit/\n" in body)
    found = set()
    folders: list[str] = []
    for line in tree.partition("opskit/\n")[2].splitlines():
        name = line.split()[0]
        folders[(len(line) - len(line.lstrip())) // 4 - 1 :] = [name]
        found.add("".join(folders))
    return found


def test_the_configuration_document_is_what_the_model_says() -> None:
    """docs/configuration.md is the settings model's own words."""
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

    assert render() == written


@pytest.mark.parametrize("name", ["README.md", "docs/configuration.md"])
def test_a_configuration_that_is_shown_can_be_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example configurations hold known keys and possible values only."""
    for variable in [each for each in os.environ if each.startswith("OPSKIT_")]:
        monkeypatch.delenv(variable)
    blocks = FENCE.findall((ROOT / name).read_text(encoding="utf-8"))
    examples = [body for language, body in blocks if language == "toml"]
    path = tmp_path / "opskit.toml"
    path.write_text("".join(examples), encoding="utf-8")

    settings = load(path)

    assert list(settings.databases) == ["shop"]
    assert list(settings.stores) == ["local", "offsite"]


@pytest.mark.parametrize(("name", "block"), SHOWN)
def test_a_part_of_a_configuration_that_is_shown_can_be_loaded(
    name: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block of configuration in a guide or a runbook is one that is accepted."""
    for variable in [each for each in os.environ if each.startswith("OPSKIT_")]:
        monkeypatch.delenv(variable)
    path = tmp_path / "opskit.toml"
    path.write_text(block, encoding="utf-8")

    settings = load(path)

    assert settings != Settings(), name


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_the_configuration_of_an_example_can_be_loaded(path: Path) -> None:
    """Also where its service does not run."""
    assert load(path).smoke.url


@pytest.mark.parametrize("path", [*DOCUMENTS, *COPIED], ids=name_of)
def test_every_call_is_of_a_real_task_with_known_flags(path: Path) -> None:
    """Each command in a document, a workflow or a unit can be typed as it stands."""
    wrong = {}
    for arguments in quoted_calls(path):
        try:
            tasks_called(arguments)
        except UsageError as error:
            wrong[shlex.join(arguments)] = str(error)

    assert wrong == {}


@pytest.mark.parametrize(
    "script",
    [
        "./inv nonsense",
        "cd x && inv backup --nonsense",
        "invoke verify --backup",
        "if ! opskit backups --nonsense; then exit 1; fi",
        'echo "$(/opt/ops/bin/opskit nonsense)"',
    ],
)
def test_a_wrong_call_is_noticed(script: str) -> None:
    """An unknown task, an unknown flag and a missing value are all refused."""
    with pytest.raises(UsageError):
        [tasks_called(arguments) for arguments in calls(script)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.md", "*/5 * * * *  cd /srv && /usr/bin/opskit nonsense"),
        ("a.service", "[Service]\nExecStart=/usr/bin/opskit nonsense"),
        ("a.yml", "jobs: {a: {steps: [{uses: b}, {run: exec opskit nonsense}]}}"),
    ],
)
def test_calls_are_found_in_what_is_copied(
    name: str, content: str, tmp_path: Path
) -> None:
    """What cron, systemd and GitHub run."""
    (tmp_path / name).write_text(content, encoding="utf-8")

    assert quoted_calls(tmp_path / name) == [["nonsense"]]


def messages() -> Iterator[str]:
    """Yield the texts in the sources; what is filled in at run time is in braces."""
    for path in (ROOT / "opskit").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if "`inv" in source else ():
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(each.value) if isinstance(each, ast.Constant) else "{}"
                    for each in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_command_in_a_message_can_be_typed() -> None:
    """In hints, reports and help; those whose task or flags are filled in are left out."""
    commands = {
        code
        for text in messages()
        for code in INLINE.findall(text)
        if re.match(r"inv [a-z]", code) and not re.match(r"inv \S+ \{", code)
    }
    wrong = {}
    for command in commands:
        try:
            tasks_called(calls(command.replace("{}", "value"))[0])
        except UsageError as error:
            wrong[command] = str(error)

    assert len(commands) > 20
    assert wrong == {}


@pytest.mark.parametrize("name", sorted(namespace.task_names))
def test_the_example_in_a_tasks_help_can_be_typed(name: str) -> None:
    """The example that `--help` shows calls the very task that it is about."""
    text = str(namespace[name].__doc__)
    (arguments,) = calls(text.partition("Example: ")[2].strip())

    assert {name} == tasks_called(arguments)


def test_the_readme_begins_with_both_commands() -> None:
    """The first commands of the README are the quickstart and the tests."""
    assert quoted_calls(ROOT / "README.md")[:2] == [["quickstart"], ["test"]]


def test_the_readme_names_the_tasks_without_json() -> None:
    """Who parses the output of a task learns there which have none for programs."""
    text = (ROOT / "README.md").read_text()
    listed = re.search(r"and all but(.+?)have `--json`", text, re.DOTALL)
    without = {
        name
        for name in namespace.task_names
        if "json" not in {each.name for each in namespace[name].get_arguments()}
    }

    assert listed is not None
    assert set(re.findall(r"`([\w-]+)`", listed[1])) == without


def test_a_rehearsal_in_a_guide_is_not_refused() -> None:
    """It gives each input that has no default, and agrees to what is destroyed."""
    text = (ROOT / "docs" / "runbooks.md").read_text().replace("\\\n", "")
    (call,) = re.findall(r"^opskit runbook (\S+) --yes(.+)", text, re.MULTILINE)
    book = read(ROOT / "runbooks" / f"{call[0]}.md")
    given = dict(re.findall(r"--input (\w+)=(\S+)", call[1]))
    destroyed = {given[each.destroys] for each in book.steps if each.destroys}

    assert {each.name for each in book.inputs if not each.default} <= set(given)
    assert destroyed == set(re.findall(r"--destroys (\S+)", call[1]))


def test_every_task_is_documented() -> None:
    """Each task is called by name in the README or a guide."""
    guides = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    documented = {
        name
        for path in guides
        for arguments in quoted_calls(path)
        for name in tasks_called(arguments)
    }

    assert set(namespace.task_names) <= documented


def test_the_flags_in_the_table_of_commands_are_those_of_the_row() -> None:
    """A flag behind a task in the README's table is one that this task takes."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    flags = {str(each.name): {*each.flag_names()} for each in namespace.to_contexts()}
    rows = re.findall(r"^\| `opskit ([\w-]+)` \|(.*)$", readme, re.MULTILINE)
    named = {(task, e) for task, text in rows for e in re.findall(r"`(--[\w-]+)", text)}

    assert len(named) > len(rows) > 0
    assert {each for each in named if each[1] not in flags[each[0]]} == set()


@of_each_document
def test_every_link_inside_leads_somewhere(document: Path) -> None:
    """Each relative link names a file that exists, and a heading in it."""
    text = document.read_text(encoding="utf-8")
    broken = []
    for link in _LINK.findall(prose(text)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (
            anchor and anchor not in anchors(target.read_text(encoding="utf-8"))
        ):
            broken.append(link)

    assert broken == []


def test_the_exit_codes_of_the_readme_are_those_of_the_errors() -> None:
    """The README lists each exit code that an error has, and no other but 0."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}

    assert exit_codes() == listed


def test_the_architecture_names_every_room() -> None:
    """The folder listing names the packages and modules at the top, and no others."""
    root = ROOT / "opskit"
    packages = {
        f"{path.parent.relative_to(root)}/" for path in root.rglob("__init__.py")
    }
    modules = {path.name for path in root.glob("[a-z]*.py")}

    listed = listed_rooms((ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    assert listed == (packages - {"./"}) | modules


def test_every_module_that_the_architecture_names_exists() -> None:
    """The text names modules by their path below opskit/."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+(?:/\w+)*\.py)`", text))

    assert named
    roots = (ROOT, ROOT / "opskit")
    assert [n for n in named if not any((root / n).exists() for root in roots)] == []


def test_the_architecture_shows_the_layers_that_are_checked() -> None:
    """The layers in the document are those of the linter's contract."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    blocks = FENCE.findall((ROOT / "ARCHITECTURE.md").read_text("utf-8"))

    assert "\n".join(layers) + "\n" in [body for _language, body in blocks]
