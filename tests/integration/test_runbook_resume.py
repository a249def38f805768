"""Taking a runbook up again, and the list of what was rehearsed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opskit import config
from opskit.operations.run import begin
from opskit.runbook.attempts import list_runbooks
from tests.integration.runbooks import Room, block, ends


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    """A folder for runbooks, without any."""
    monkeypatch.setenv("OPSKIT_CONFIG", str(tmp_path / "opskit.toml"))
    (tmp_path / "runbooks").mkdir()
    return Room(folder=tmp_path)


def test_a_resume_goes_on_where_it_was_left(room):
    """With the inputs of then; earlier proofs are checked again."""
    room.write(
        block('echo "1 $table" >>done', proof="echo proved >>done"),
        "By hand.",
        block('echo "3 $table" >>done'),
        inputs="| `table` | name | what | |\n",
    )

    left = room.play("orders", "y", "y", "leave")
    outcome = room.play("y", resume=True)

    assert ends(left) == ["ok", "ok", "planned", "planned"]
    assert ends(outcome) == ["done before", "done before", "ok", "ok"]
    assert room.done() == ["1 orders", "proved", "proved", "3 orders"]
    first, second = room.records("runbook")
    assert first["attempt"] == second["attempt"]
    assert room.rehearse(resume=True).exit_code == 62  # it has passed


def test_a_step_whose_proof_fails_now_is_done_again(room):
    """Somebody has undone it meanwhile."""
    room.write(block("touch there; echo 1 >>done", proof="test -e there"), "By hand.")

    room.play("y", "leave")
    (room.folder / "there").unlink()
    outcome = room.play("y", "y", resume=True)

    assert outcome.status == "passed"
    assert room.done() == ["1", "1"]
    assert "Step 1 was done, but its proof does not hold now." in room.shown


def test_what_nobody_did_by_hand_is_asked_for(room):
    """A rehearsal has only said that it is done by hand."""
    room.write("By hand.", block("test -e fixed"))

    rehearsed = room.rehearse()
    (room.folder / "fixed").touch()
    outcome = room.play("y", "y", resume=True)

    assert ends(rehearsed) == ["by hand", "failed", "planned"]
    assert ends(outcome) == ["ok", "ok", "ok"]
    assert "Is it done?" in room.asked[0]


def test_a_default_is_not_taken_for_a_value_that_was_masked(room, monkeypatch):
    """The record lacks the value: the steps that are left would work with another."""
    monkeypatch.setenv("PGPASSWORD", "correct-horse-battery")
    room.write(
        block('echo "$what" >>done; exit 1'),
        inputs="| `what` | text | what | other |\n",
    )

    room.rehearse(inputs=["what=correct-horse-battery"])
    missing = room.rehearse(resume=True)
    asked = room.play("", "correct-horse-battery", "y", "leave", resume=True)

    assert (missing.exit_code, asked.exit_code) == (62, 50)
    assert room.done() == ["correct-horse-battery"] * 2


def test_a_skipped_step_stays_skipped(room):
    """The person has decided that it is not needed."""
    room.write("Only if: so.\n\n" + block("echo 1 >>done"), block("echo 2 >>done"))

    room.play("skip", "leave")
    outcome = room.rehearse(resume=True)

    assert ends(outcome) == ["skipped", "ok", "ok"]


def test_a_failed_run_can_be_resumed(room):
    """It begins with the step that failed; a proof may hold meanwhile."""
    room.write(block("echo 1 >>done"), block("echo 2 >>done", proof="test -e mended"))

    assert room.rehearse().status == "failed"
    assert ends(room.rehearse(resume=True))[:2] == ["done before", "failed"]
    assert "Step 2 was not proved the last time, and is not now." in room.shown
    (room.folder / "mended").touch()
    assert ends(room.rehearse(resume=True)) == ["done before", "done before", "ok"]
    assert room.done() == ["1", "2", "2"]


@pytest.mark.parametrize("fault", ["exit 1", "kill -INT $OPSKIT; sleep 60"])
def test_a_proof_does_not_stand_for_a_command_that_did_not_end_well(
    room, monkeypatch, fault
):
    """A database answers a query also before it is replaced."""
    monkeypatch.setenv("OPSKIT", str(os.getpid()))
    room.write(block(f"echo 1 >>done; test -e fixed || {{ {fault}; }}", proof="true"))

    assert room.rehearse().exit_code in (50, 130)
    (room.folder / "fixed").touch()

    assert ends(room.rehearse(resume=True)) == ["ok", "ok"]
    assert room.done() == ["1", "1"]
    assert [each for each in room.shown if "its proof holds now." in each]


def test_a_changed_runbook_is_not_resumed(room):
    """Its steps may mean something else now."""
    room.write(block("echo 1 >>done"), "By hand.")
    room.play("y", "leave")
    room.write(block("echo 1 >>done"), block("echo 2 >>done"))

    outcome = room.rehearse(resume=True)

    assert (outcome.status, outcome.exit_code) == ("refused", 62)
    assert "has changed" in outcome.errors[0].message
    assert room.done() == ["1"]
    assert "`inv runbook --name fix --resume` goes on" not in " ".join(room.shown)
    assert room.rehearse().status == "passed"
    assert "`inv runbook --name fix --resume` goes on" in " ".join(room.shown)


def test_a_resume_takes_no_inputs_and_needs_something_to_resume(room):
    """Both are refused, and nothing is run."""
    room.write(block("echo 1 >>done"), inputs="| `table` | name | what | a |\n")

    assert room.rehearse(resume=True).exit_code == 62
    room.play("a", "leave")
    refused = room.rehearse(resume=True, inputs=["table=b"])
    assert refused.exit_code == 2
    assert "begin anew without it" in refused.errors[0].hint
    assert room.done() == []


def test_a_dry_run_shows_what_would_be_resumed(room, monkeypatch):
    """With the inputs of that run, but what was masked; without one it is refused."""
    monkeypatch.setenv("PGPASSWORD", "correct-horse-battery")
    room.write(
        block('echo "$table" "$word" >>done'),
        inputs="| `table` | name | what | a |\n| `word` | text | word | none |\n",
    )

    assert room.play(dry_run=True, resume=True).status == "refused"
    room.play("b", "correct-horse-battery", "leave")
    outcome = room.play(dry_run=True, resume=True)

    assert (outcome.status, room.done()) == ("planned", [])
    assert "table=b  # what" in room.shown
    assert "word=  # word" in room.shown


def test_the_list_knows_the_last_run_of_each(room):
    """A failed run is no rehearsal; a file of another form is named, and no fault."""
    room.write(block("true"), name="good")
    room.write(block("false"), name="bad")
    (room.folder / "runbooks" / "README.md").write_text("# The runbooks\n")
    room.rehearse(name="good")
    room.rehearse(name="bad")
    (room.folder / "runbooks" / "odd.md").write_text("# Odd\n")

    outcome = list_runbooks(begin(config.load(room.folder / "opskit.toml")))

    assert outcome.result is not None
    rows = {each["name"]: each for each in outcome.result.as_json()["runbooks"]}
    assert rows.keys() == {"good", "bad", "odd"}
    assert (rows["good"]["last"]["result"], rows["good"]["overdue"]) == (
        "passed",
        False,
    )
    assert (rows["bad"]["last"]["result"], rows["bad"]["overdue"]) == ("failed", True)
    assert "odd.md:" in rows["odd"]["error"]
    assert outcome.exit_code == 0


def test_a_failure_is_reported_once_and_no_step_is(room):
    """Receivers learn of the runbook as a whole, each apart from the others."""
    room.write(block("false"))
    room.write(block("true"), name="other")
    hook = room.folder / "hook"
    hook.write_text(
        "#!/bin/sh\npython3 -c 'import json, sys; d = json.load(sys.stdin); "
        'print(d["operation"], d["outcome"], d["runbook"])\' '
        f">>{room.folder}/heard\n"
    )
    hook.chmod(0o700)
    settings = f'[hooks]\nfailed = [["{hook}"]]\nafter = [["{hook}"]]'

    room.rehearse(settings=settings)
    room.rehearse(name="other", settings=settings)

    heard = (room.folder / "heard").read_text().splitlines()
    assert heard == ["runbook failed fix", "runbook ok other"]


def test_the_folder_is_the_one_that_is_meant(room):
    """The configured one, else that beside the configuration, else opskit's own."""
    path = room.folder / "opskit.toml"
    path.write_text("")
    beside = config.load(path).runbooks.place
    path.write_text('[runbooks]\nfolder = "ours"')
    named = config.load(path).runbooks.place
    (room.folder / "runbooks").rmdir()
    path.write_text("")
    shipped = config.load(path).runbooks.place

    assert (beside, named) == (room.folder / "runbooks", room.folder / "ours")
    assert shipped == Path(__file__).parents[2] / "runbooks"
