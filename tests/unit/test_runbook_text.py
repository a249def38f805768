"""The form of runbooks: what is read from them, and what breaks the form."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from opskit.errors import UsageError
from opskit.runbook.text import Runbook, read

SAMPLE = Path(__file__).parents[1] / "fixtures" / "runbooks" / "table-emptied.md"
FOLDER = Path(__file__).parents[2] / "runbooks"


@pytest.fixture
def changed(tmp_path):
    """Return what reads the sample after one change of its text."""

    def read_changed(old: str, new: str) -> Runbook:
        text = SAMPLE.read_text()
        assert text.count(old) == 1, f"{text.count(old)} times in the sample: {old}"
        path = tmp_path / "changed.md"
        path.write_text(text.replace(old, new))
        return read(path)

    return read_changed


def test_a_runbook_is_read_whole():
    """Its title, limit, inputs, steps and proof come from the text."""
    made = read(SAMPLE)

    assert (made.name, made.title) == ("table-emptied", "A table was emptied")
    assert made.days == 90
    assert [(each.name, each.kind, each.default) for each in made.inputs] == [
        ("folder", "path", ""),
        ("table", "name", "orders"),
    ]
    assert made.inputs[0].about == "the folder in which everything lies"
    assert [each.name for each in made.steps] == [
        "1. Stop the writers",
        "2. Remove what is left",
        "3. Bring the rows back",
        "4. Tell the users",
    ]
    assert made.proof == 'grep rows "$folder/$table"\n'
    assert made.sections["Afterwards"] == "Start the writers again."


def test_a_step_says_what_it_needs():
    """Command, proof, what is destroyed and the condition, over several lines."""
    stop, remove, _, tell = read(SAMPLE).steps

    assert stop.command == 'touch "$folder/stopped"\n'
    assert stop.proof == 'test -e "$folder/stopped"\n'
    assert (remove.destroys, remove.proof) == ("table", "")
    assert remove.only_if == (
        "the table still holds a few rows, which the backup holds as well."
    )
    assert (tell.command, tell.only_if) == ("", "")
    assert tell.about.endswith("Write what happened and since when.")


def test_a_cell_of_the_inputs_may_hold_a_vertical_line(changed):
    """As Markdown writes it in a table, with a backslash before it."""
    made = changed(
        "| name | the table that was emptied | orders |",
        r"| text | orders \| items | cat rows \| sort \| uniq |",
    )

    assert made.inputs[1].about == "orders | items"
    assert made.inputs[1].default == "cat rows | sort | uniq"


def test_a_mark_and_other_ends_of_lines_are_read(tmp_path):
    """As editors of other systems write them."""
    path = tmp_path / "marked.md"
    text = SAMPLE.read_text().replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())

    assert read(path).steps == read(SAMPLE).steps


def test_another_text_has_another_digest(changed):
    """A change of one word is noticed."""
    assert changed("Ask for help.", "Ask for aid.").digest != read(SAMPLE).digest


def test_what_stands_in_a_block_is_neither_head_nor_label(changed):
    """Commands may hold comments and here-documents."""
    command = "# Title\n## Impact\n### 9. No\nProof:\n~~~\n"
    made = changed('touch "$folder/stopped"\n', command)

    assert made.steps[0].command == command


def test_other_blocks_are_prose(changed):
    """A block that shows a file is not run."""
    made = changed("Write what", "```toml\n[stores]\n```\n\nWrite what")

    assert made.steps[3].command == ""


def test_a_step_by_hand_may_have_a_proof(changed):
    """The person works, the command proves it."""
    made = changed(
        "Write what happened and since when.",
        "Write it.\n\nProof:\n\n```sh\ntest -e told\n```",
    )

    assert (made.steps[3].command, made.steps[3].proof) == ("", "test -e told\n")


def test_a_runbook_may_have_no_inputs(tmp_path):
    """Then its Decide has no table."""
    head, rest = SAMPLE.read_text().split("| input |")
    path = tmp_path / "plain.md"
    path.write_text(
        head + "##" + rest.split("##", 1)[1].replace("Destroys: $table", "")
    )

    assert read(path).inputs == ()


TABLE_ROW = "| `table` | name | the table that was emptied | orders |"
REMOVE = 'rm -f "$folder/$table"\n'
BREAKS = {
    "no title": ("# A table was emptied", "A table", 1, "must be the title"),
    "two titles": (
        "Pages that need",
        "# Pages\n\nPages that need",
        11,
        "and the only one",
    ),
    "no limit": ("Rehearse every 90 days.", "", 1, "`Rehearse every 90 days.`"),
    "limit of no days": ("every 90 days", "every 0 days", 1, "`Rehearse every 90"),
    "section in another place": (
        "## Impact",
        "## Decide",
        9,
        "## Impact must come here, not ## Decide",
    ),
    "unknown section": ("## If it did not", "## Otherwise", 75, "## If it did not"),
    "section too many": (
        "Start the writers again.",
        "## More",
        81,
        "the end of the file must come here",
    ),
    "last section missing": ("## Afterwards\n", "", 80, "## Afterwards is missing"),
    "head of another table": ("| input |", "| Input |", 19, "| input | type |"),
    "unknown type": (
        "| name |",
        "| database |",
        22,
        "database must be one of name, backup",
    ),
    "input in capitals": ("`table`", "`TABLE`", 22, "an input is a row"),
    "input without quotes": ("`table`", "table", 22, "an input is a row"),
    "input twice": (TABLE_ROW, f"{TABLE_ROW}\n{TABLE_ROW}", 23, "is there twice"),
    "text after the inputs": (
        TABLE_ROW,
        f"{TABLE_ROW}\n\nMore words.",
        24,
        "an input is a row",
    ),
    "row of three cells": ("| orders |", "|", 22, "an input is a row"),
    "default of the wrong type": ("| orders |", "| a b |", 22, "default of table"),
    "no step": ("### 1.", "1.", 30, "an `sh` block must stand in a step"),
    "number left out": ("### 2.", "### 3.", 40, "`### 2. Title`"),
    "step without a number": ("### 2. Remove", "### Remove", 40, "`### 2. Title`"),
    "two commands": (
        REMOVE,
        f"{REMOVE}```\n\n```sh\ntrue\n",
        51,
        "a step has one `sh` block",
    ),
    "proof with words": (
        "Proof:\n\n```sh\ntest -s",
        "Proof: it is there\n\n```sh\ntest -s",
        57,
        "`Proof:` stands alone",
    ),
    "proof without a command": (
        "Write what happened and since when.",
        "Proof:",
        65,
        "`Proof:` stands alone",
    ),
    "label twice": ("Only if: the", "Destroys: $table\n\nOnly if: the", 47, "twice"),
    "label below the command": (
        "### 4. Tell",
        "Only if: needed\n\n### 4. Tell",
        63,
        "must stand above",
    ),
    "destroys no input": (
        "Destroys: $table",
        "Destroys: $tabel",
        45,
        "needs an input",
    ),
    "destroys words": ("Destroys: $table", "Destroys: much", 45, "needs an input"),
    "destroys by hand": (
        "Write what happened",
        "Destroys: $table",
        65,
        "needs an input",
    ),
    "condition without words": (
        "Only if: the table still holds a few rows,\nwhich the backup holds as well.",
        "Only if:",
        42,
        "needs words",
    ),
    "block of another shell": (
        "```sh\n" + REMOVE,
        "```bash\n" + REMOVE,
        47,
        "begins with ```sh",
    ),
    "block of no language": (
        "```sh\n" + REMOVE,
        "```\n" + REMOVE,
        47,
        "begins with ```sh",
    ),
    "empty block": (REMOVE, "\n", 47, "is empty"),
    "indented block": ("```sh\n" + REMOVE, "  ```sh\n" + REMOVE, 47, "at the margin"),
    "block without an end": (
        "Start the writers again.",
        "```sh\ntrue",
        81,
        "and end",
    ),
    "no proof at the end": ("```sh\ngrep rows", "```text\ngrep rows", 67, "one `sh`"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_the_form_is_named_with_its_line(name, changed, tmp_path):
    """Each error says where it is and what is expected."""
    old, new, line, words = BREAKS[name]

    with pytest.raises(UsageError) as caught:
        changed(old, new)

    assert caught.value.message.startswith(f"{tmp_path}/changed.md:{line}: ")
    assert words in caught.value.message
    assert "docs/runbooks.md" in caught.value.hint


def test_a_section_of_steps_without_steps_is_refused(tmp_path):
    """There is nothing to walk through."""
    head, rest = SAMPLE.read_text().split("## Steps")
    path = tmp_path / "none.md"
    path.write_text(
        f"{head}## Steps\n\nNothing.\n\n## Proof{rest.split('## Proof')[1]}"
    )

    with pytest.raises(UsageError, match="there is no step"):
        read(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b""])
def test_what_is_no_text_is_refused(content, tmp_path):
    """A missing, a binary and an empty file end in an error that names the file."""
    path = tmp_path / "odd.md"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UsageError, match=r"odd\.md"):
        read(path)


of_each = pytest.mark.parametrize(
    "name", sorted({path.name for path in FOLDER.glob("*.md")} - {"README.md"})
)


def commands(book: Runbook) -> list[str]:
    """Return everything that a runbook runs."""
    blocks = [block for step in book.steps for block in (step.command, step.proof)]
    return [*filter(None, blocks), book.proof]


@of_each
def test_what_comes_with_opskit_has_the_form(name):
    """Each runbook is read, uses every input that it asks for, and is in the index."""
    index = (FOLDER / "README.md").read_text()

    made = read(FOLDER / name)

    run = "".join(commands(made))
    unused = [e.name for e in made.inputs if not re.search(rf"\${{?{e.name}\b", run)]
    assert unused == []
    assert f"[{made.name}]({name})" in index


@of_each
def test_the_commands_of_a_runbook_are_right_for_any_shell(name, tmp_path):
    """Nothing is unquoted, and no variable is used that is not an input."""
    made = read(FOLDER / name)
    known = "".join(f"{each.name}=given\n" for each in made.inputs)
    files = [tmp_path / f"{number}.sh" for number in range(len(commands(made)))]
    for path, block in zip(files, commands(made), strict=True):
        path.write_text(f"#!/bin/sh\nset -eu\n{known}{block}")
    judge = Path(sys.executable).with_name("shellcheck")

    # SC2034: a block does not use every input.
    done = subprocess.run(
        [judge, "--exclude=SC2034", *files], capture_output=True, text=True, check=False
    )

    assert done.stdout + done.stderr == ""


def test_the_steps_of_runbooks_do_not_hide_what_failed(tmp_path):
    """The newest records are those of the runbook itself, and of the one before."""
    program = tmp_path / "opskit"
    program.write_text(
        "#!/bin/sh\necho '1  backup  shop  failed'\n"
        'for n in $(seq 30); do echo "$n  runbook-step  ok"; done\n'
    )
    program.chmod(0o755)

    shown = subprocess.run(
        ["sh", "-euc", read(FOLDER / "backup-failing.md").steps[0].command],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.startswith("1  backup")
