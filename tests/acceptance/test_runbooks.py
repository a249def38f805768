"""Runbooks as people and programs walk through them: processes, terminals, signals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opskit import __version__
from tests import processes
from tests.acceptance.runbooks import SAMPLE, Desk

STEPS = [
    "1. Stop the writers",
    "2. Remove what is left",
    "3. Bring the rows back",
    "4. Tell the users",
    "Proof that it worked",
]
BRING = 'echo rows > "$folder/$table"\n'
# It says that it has begun and who it is, and waits for a file; asked to end, it does.
WAIT = (
    'echo $$ > "$folder/began.new"; mv "$folder/began.new" "$folder/began"\n'
    'while [ ! -e "$folder/go" ]; do sleep 0.05; done\n'
)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder with the sample runbook."""
    made = Desk(folder=tmp_path / "desk", url="")
    made.store.mkdir(parents=True)
    (made.folder / "runbooks").mkdir()
    shutil.copy(SAMPLE, made.folder / "runbooks")
    made.configure()
    return made


def began(desk: Desk) -> int:
    """Wait until the command that waits has begun; return its process."""
    deadline = time.monotonic() + 60
    while not (desk.folder / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int((desk.folder / "began").read_text())


def is_gone(process: int) -> bool:
    """Return whether a process has ended, within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            status = Path(f"/proc/{process}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        if status.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_rehearsal_does_every_step_and_is_listed(desk: Desk) -> None:
    """Each step is on record before and after, and the list names who and when."""
    before = desk.json("runbook", "--list")["runbooks"]

    done = desk.rehearse("--input", f"folder={desk.folder}", "--second", "ruth")

    assert [(each["last"], each["overdue"]) for each in before] == [(None, True)]
    assert done["status"] == "passed"
    assert (done["runbook"], done["rehearsal"]) == (SAMPLE.stem, True)
    assert [each["name"] for each in done["steps"]] == STEPS
    ends = [each["status"] for each in done["steps"]]
    assert ends == ["ok", "ok", "ok", "by hand", "ok"]
    assert (desk.folder / "orders").read_text() == "rows\n"
    assert desk.states() == [(0, "begun")] + [
        (number, state)
        for number in range(1, 6)
        for state in ("begun", "by hand" if number == 4 else "done")
    ]
    (listed,) = desk.json("runbook")["runbooks"]
    assert listed["overdue"] is False
    assert listed["last"]["result"] == "passed"
    assert listed["last"]["rehearsal"] is True
    assert listed["last"]["second"] == "ruth"
    assert listed["last"]["operator"] == done["operator"] != ""
    assert "passed, rehearsal" in desk.run("runbook")
    shown = re.findall(r"runbook-step +(\S+ \d) +(\w+)", desk.run("ledger"))
    assert shown[:2] == [(f"{SAMPLE.stem} 1", "begun"), (f"{SAMPLE.stem} 1", "done")]


def test_what_commands_print_is_not_in_the_document(desk: Desk) -> None:
    """Not even a flood of it; and none of it is recorded."""
    flood = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo more >&2\n"
    desk.change(BRING, BRING + flood)

    done = desk.rehearse("--input", f"folder={desk.folder}")

    assert done["status"] == "passed"
    assert len(desk.errors) > 3_000_000
    assert (desk.folder / ".opskit" / "ledger.jsonl").stat().st_size < 20_000


def test_opskit_in_a_step_is_this_very_opskit(desk: Desk) -> None:
    """From another folder, with a configuration named relative to that."""
    desk.change(
        BRING,
        f'{BRING}test "$(opskit --version)" = "opskit {__version__}"\n'
        "opskit ledger | grep -q runbook-step\n"
        'test "$PWD" = "$folder"\n',
    )
    elsewhere = desk.folder.parent / "else" / "where it is"
    elsewhere.mkdir(parents=True)

    code, output, errors = processes.run_inv(
        elsewhere,
        ["runbook", "--config", "../../desk/opskit.toml", SAMPLE.stem, "--yes",
         "--input", f"folder={desk.folder}", "--destroys", "orders"],
        {"PATH": "/usr/bin:/bin", "TMPDIR": str(elsewhere)},
    )  # fmt: skip

    assert code == 0, output + errors
    assert list(elsewhere.iterdir()) == []


def test_a_person_walks_through_on_a_terminal(desk: Desk) -> None:
    """Inputs, a yes for each step, the name of what is destroyed, the proof."""
    desk.change(BRING, f"{BRING}\t: after a tab\n")
    with desk.terminal() as person:
        person.answer("folder: the folder in which everything lies:", "desk")
        person.answer("folder must be an absolute path, not 'desk'.", "")
        person.answer("everything lies:", str(desk.folder))
        person.answer("[orders]:", "")
        shown = person.answer("Run it? [yes, skip, leave]", "yes")
        person.answer("Only if: the table still holds a few rows", "yes")
        person.answer("This destroys orders. To agree, type this name:", "orders")
        bring = person.answer("Run it?", "y")
        person.answer("Is it done?", "y")
        code, rest = person.end()

    assert code == 0
    assert "\n        : after a tab" in bring
    assert f'touch "{desk.folder}/stopped"' in shown
    assert "Start the writers again." in rest
    assert (desk.folder / "orders").read_text() == "rows\n"


def test_a_person_leaves_and_comes_back(desk: Desk) -> None:
    """By the end of input and by Ctrl-C; the message says how to go on."""
    with desk.terminal("--input", f"folder={desk.folder}") as person:
        person.answer("[orders]:", "")
        person.answer("Run it?", "y")
        person.expect("[yes, no, leave]")
        person.type("\x04")
        code, rest = person.end()
    assert code == 130
    assert f"inv runbook --name {SAMPLE.stem} --resume` goes on with it." in rest

    with desk.terminal("--resume") as person:
        shown = person.answer("[yes, no, leave]", "skip")
        person.expect("[yes, skip, leave]")
        person.type("\x03")
        code, _rest = person.end()
    assert code == 130
    assert "done before: 1. Stop the writers" in shown

    ends = [each["status"] for each in desk.rehearse("--resume")["steps"]]
    assert ends == ["done before", "skipped", "ok", "by hand", "ok"]


def test_ctrl_c_ends_the_command_that_runs(desk: Desk) -> None:
    """With all that it has started; the step is on record as interrupted."""
    desk.change(BRING, WAIT)
    with desk.terminal("--input", f"folder={desk.folder}") as person:
        person.answer("[orders]:", "")
        person.answer("Run it?", "y")
        person.answer("Run it?", "skip")
        person.answer("Run it?", "y")
        process = began(desk)
        person.type("\x03")
        code, rest = person.end()

    assert code == 130
    assert "--resume" in rest
    assert is_gone(process)
    assert desk.states()[-2:] == [(3, "begun"), (3, "interrupted")]
    assert [each["outcome"] for each in desk.records()[-1:]] == ["interrupted"]


def test_a_lost_connection_leaves(desk: Desk) -> None:
    """As Ctrl-C does; the command does not go on unseen."""
    desk.change(BRING, WAIT)
    given = ("--input", f"folder={desk.folder}")
    with desk.terminal(*given, is_new=True) as person:
        person.answer("[orders]:", "")
        person.answer("Run it?", "skip")
        person.answer("Run it?", "skip")
        person.answer("Run it?", "y")
        process = began(desk)
        person.hang_up()
        code, _rest = person.end()

    assert code == 130
    assert is_gone(process)
    assert desk.states()[-2:] == [(3, "begun"), (3, "interrupted")]


def test_sigterm_lets_a_step_end_in_order(desk: Desk) -> None:
    """The programs of a step are asked to end, and have the time for it."""
    desk.change(
        BRING,
        f"sh -c 'trap \"sleep 1; touch tidied; exit\" TERM; {WAIT.strip()}'\ntrue\n"
        .replace("\n", ";", 1),
    )  # fmt: skip
    process = subprocess.Popen(
        [Path(__file__).parents[2] / "inv", "runbook", SAMPLE.stem, "--yes",
         "--input", f"folder={desk.folder}", "--destroys", "orders"],
        cwd=desk.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    with process:
        began(desk)
        process.send_signal(signal.SIGTERM)
        _output, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "--resume" in errors
    assert (desk.folder / "tidied").exists()


def test_a_step_that_was_killed_is_named_and_asked_for(desk: Desk) -> None:
    """Its proof does not hold: it was begun and has not ended."""
    desk.change(BRING, WAIT + BRING)
    with desk.terminal("--input", f"folder={desk.folder}") as person:
        person.answer("[orders]:", "")
        person.answer("Run it?", "y")
        person.answer("Run it?", "skip")
        person.answer("Run it?", "y")
        began(desk)
        person.process.send_signal(signal.SIGKILL)
        code, _rest = person.end()
    assert code == -signal.SIGKILL
    (listed,) = desk.json("runbook")["runbooks"]
    assert listed["last"]["result"] == "not ended"

    with desk.terminal("--resume") as person:
        shown = person.answer("Run it?", "y")
        (desk.folder / "go").touch()
        person.answer("Is it done?", "y")
        code, _rest = person.end()

    assert "Step 3 was begun and has not ended:" in shown
    assert code == 0
    assert desk.states()[-6:-4] == [(3, "begun"), (3, "done")]
    assert [each for each in desk.folder.parent.iterdir() if each != desk.folder] == []


def test_two_people_do_not_walk_through_one_runbook(desk: Desk) -> None:
    """The second one is told who the first is."""
    with desk.terminal("--input", f"folder={desk.folder}") as person:
        person.expect("[orders]:")
        refused = desk.rehearse("--input", f"folder={desk.folder}", code=11)
        number = person.process.pid

    assert f"process {number} on" in refused["error"]
    assert refused["holder"]["operation"] == f"runbook {SAMPLE.stem}"
    assert not (desk.folder / "stopped").exists()


def test_without_a_terminal_and_without_yes_nothing_is_run(desk: Desk) -> None:
    """A pipe cannot agree to anything."""
    refused = desk.json("runbook", SAMPLE.stem, code=2)

    assert "--yes" in refused["hint"]
    assert not (desk.folder / "stopped").exists()


def test_a_runbook_can_be_read_without_a_configuration(desk: Desk) -> None:
    """Where everything is lost: one of those that come with opskit."""
    (desk.folder / "opskit.toml").unlink()
    text = desk.run("runbook", "everything-lost", "--dry-run")

    assert text.startswith("# Everything is lost but the store\n")
    assert sorted(each.name for each in desk.folder.iterdir()) == ["runbooks", "store"]
    refused = desk.json("runbook", "everything-lost", "--yes", code=2)
    assert "--dry-run shows the runbook" in refused["hint"]
    assert "everything-lost  never" in desk.run("runbook")


@pytest.mark.parametrize("flags", [("--yes",), ("--list", SAMPLE.stem)])
def test_the_list_takes_nothing_else(desk: Desk, flags: tuple[str, ...]) -> None:
    """Who forgets the name, or means something else, is told so."""
    assert "name it" in desk.json("runbook", *flags, code=2)["hint"]


def test_plain_invoke_lists_runbooks_and_takes_their_names(desk: Desk) -> None:
    """By the flag, as the hints write it: it knows no argument that may be missing."""
    (desk.folder / "tasks.py").write_text("from opskit.tasks import namespace\n")
    invoke = Path(sys.executable).parent / "invoke"
    printed = [
        subprocess.run(
            [invoke, "runbook", *more],
            cwd=desk.folder,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for more in ([], ["--name", SAMPLE.stem, "--dry-run"])
    ]

    assert "A table was emptied\nfolder: " in printed[0]
    assert printed[1].startswith("# A table was emptied\n")


def test_a_refusal_is_a_document(desk: Desk) -> None:
    """With the status and the code of a refusal."""
    refused = desk.json("runbook", SAMPLE.stem, "--yes", code=62)

    assert refused["status"] == "refused"
    assert refused["runbook"] == SAMPLE.stem
