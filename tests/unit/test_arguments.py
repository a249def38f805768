"""The command line is read to the letter: no flag is ignored, no value is guessed."""

from __future__ import annotations

from typing import Any

import pytest

from opskit.errors import UsageError
from opskit.tasks.arguments import Call, parse
from tasks import namespace


def read(line: str | list[str]) -> Call:
    """Parse a command line as the program does."""
    words = line.split() if isinstance(line, str) else line
    return parse(words, {str(each.name): each for each in namespace.to_contexts()})


def refused(line: str | list[str]) -> UsageError:
    """Return the error about a command line."""
    with pytest.raises(UsageError) as caught:
        read(line)
    return caught.value


def flags(call: Call) -> dict[str, Any]:
    """Return what the task is given."""
    assert call.task is not None
    return call.task.as_kwargs


FORMS = ["--dry", "-R", "--dry=yes", "--dry=", "-eR", "-Re", "-qR", "-Rq"]


@pytest.mark.parametrize("flag", FORMS)
@pytest.mark.parametrize("line", ["{} prune", "prune {}", "--quiet {} prune --json"])
def test_a_dry_run_by_another_name_is_refused(line: str, flag: str) -> None:
    """A task that would act all the same does not begin; the right flag is named."""
    error = refused(line.format(flag))

    assert "no flag --dry" in error.message or "no flag -" in error.message
    assert "--dry-run" in error.hint or "-e" in flag


@pytest.mark.parametrize(
    "flag",
    [
        *("--echo", "-e", "--pty", "-p", "--warn-only", "-w", "--debug", "-d"),
        *("--command-timeout=3", "-T3", "-T", "-f", "-fx.toml", "--collection", "-c"),
        *("--hide=out", "--no-dedupe", "--search-root=/", "-r", "--write-pyc"),
        *("--prompt-for-sudo-password", "--list-depth=2", "-D", "-F", "--"),
    ],
)
@pytest.mark.parametrize("line", ["{} backup", "backup {}", "{} restore --to x"])
def test_a_flag_without_a_meaning_is_refused(line: str, flag: str) -> None:
    """Invoke's own flags are unknown here, before the task, after it, and joined."""
    assert "no flag" in refused(line.format(flag)).message


def test_a_dry_run_is_no_value() -> None:
    """`--to --dry` does not restore into a database of that name."""
    assert refused("restore --backup x --to --dry").message == "--to needs a value"


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("bakcup", "no task bakcup", "`inv backup`"),
        ("restore_drill", "no task restore_drill", "`inv restore-drill`"),
        ("backup --databse shop", "no flag --databse", "Did you mean --database?"),
        ("--database shop backup", "stands before its task", "Write backup first"),
        ("backup shop", "takes no argument shop", "one task at a time"),
        ("backup prune", "takes no argument prune", "one task at a time"),
        ("backup --json=true", "--json takes no value", "alone"),
        ("backup --json=", "--json takes no value", "alone"),
        ("backup --database", "--database needs a value", "--database=VALUE"),
        ("backup --database --all", "--database needs a value", "--database="),
        ("backup --database a --database b", "given twice", "once"),
        ("--config", "--config needs a value", "--config=VALUE"),
        ("fleet-worker --capacity x", "takes a whole number", "`--capacity 2`"),
    ],
)
def test_a_wrong_call_is_explained(line: str, message: str, hint: str) -> None:
    """The word that is wrong is named, and what to write in its place."""
    error = refused(line)

    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize("words", [["--database", ""], ["--database="]])
def test_an_empty_value_is_not_no_value(words: list[str]) -> None:
    """`--database "$UNSET"` does not act on every database."""
    assert "empty" in refused(["prune", "--confirm", ""]).message
    assert "empty" in refused(["backup", *words]).message


@pytest.mark.parametrize(
    "line",
    [
        "--config x.toml --quiet --verbose backup --database shop",
        "backup --config=x.toml --database=shop -qv",
        "-vq backup --verbose --database shop --config x.toml",
    ],
)
def test_general_flags_stand_before_or_after_the_task(line: str) -> None:
    """They are the same wherever they stand."""
    call = read(line)

    assert call.value("config") == "x.toml"
    assert call.value("quiet")
    assert call.value("verbose")
    assert flags(call)["database"] == "shop"


def test_values_keep_their_form() -> None:
    """A value may hold `=`, begin with a dash, or be several words in one."""
    assert flags(read(["test", "--args", "-k a=b -x"]))["args"] == "-k a=b -x"
    assert flags(read(["test", "--args=-x"]))["args"] == "-x"
    assert flags(read(["restore-drill", "--mutants=-1"]))["mutants"] == "-1"
    assert flags(read("restore --table a.b --table c.d e.f"))["table"] == [
        *("a.b", "c.d", "e.f")
    ]


def test_help_may_be_asked_of_a_task() -> None:
    """`--help backup` and `backup --help` are the same."""
    for line in ("--help backup", "backup --help", "backup -h"):
        call = read(line)

        assert call.value("help")
        assert call.task is not None
        assert call.task.name == "backup"


def test_a_runbook_is_named_without_a_flag() -> None:
    """Once, before or after flags; a second name is refused."""
    for line in ("runbook a --yes", "runbook --yes a", "runbook --name a --yes"):
        assert (flags(read(line))["name"], flags(read(line))["yes"]) == ("a", True)
    assert flags(read("runbook"))["name"] == ""

    assert "takes no argument b" in refused("runbook a b").message
    assert "takes no argument b" in refused("runbook --name a b").message
