"""Walking through runbooks: real commands and a real ledger, the person is played."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opskit import config, locks
from opskit.operations.run import begin
from opskit.runbook.play import PlayRequest, play
from tests.integration.runbooks import Room, block, ends


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    """A folder for runbooks, without any."""
    monkeypatch.setenv("OPSKIT_CONFIG", str(tmp_path / "opskit.toml"))
    (tmp_path / "runbooks").mkdir()
    return Room(folder=tmp_path)


def is_gone_soon(process: int) -> None:
    """Wait until a process has ended, reaped or not."""
    deadline = time.monotonic() + 60
    status = Path(f"/proc/{process}/stat")
    while time.monotonic() < deadline:
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} goes on")


def test_a_person_runs_skips_and_leaves(room):
    """Each step waits for an answer; what is no answer is asked again."""
    room.write(block("echo 1 >>done"), block("echo 2 >>done"), block("echo 3 >>done"))

    outcome = room.play("yes", "perhaps", "s", "leave")

    assert (outcome.status, outcome.exit_code) == ("left", 130)
    assert ends(outcome) == ["ok", "skipped", "planned", "planned"]
    assert room.done() == ["1"]
    assert len(room.asked) == 4
    assert "`inv runbook --name fix --resume`" in outcome.errors[0].hint
    assert room.records("runbook")[0]["status"] == "left"


def test_the_end_of_input_leaves(room):
    """A terminal that was closed is no yes."""
    room.write(block("echo 1 >>done"))

    outcome = room.play()

    assert (outcome.status, outcome.exit_code, room.done()) == ("left", 130, [])


def test_a_step_that_failed_can_be_tried_again(room):
    """The person corrects what is wrong, and goes on."""
    room.write(block("echo 1 >>done", proof="test $(wc -l <done) -eq 2"))

    outcome = room.play("yes", "yes")

    assert (outcome.status, outcome.exit_code) == ("passed", 0)
    assert room.done() == ["1", "1"]
    failure = next(each for each in room.shown if "failed: 1. Do 1" in each)
    assert "the proof failed: it ended with 1." in failure
    assert "Ask the neighbour." in failure
    assert "Try it again?" in room.asked[1]
    assert "Have a tea." in room.shown[-1]


def test_to_leave_after_a_failure_is_a_failure(room):
    """Nobody takes it for a walk that was only interrupted."""
    room.write(block("exit 3"))

    outcome = room.play("yes", "leave")

    assert (outcome.status, outcome.exit_code) == ("failed", 50)
    assert "Ask the neighbour." in room.shown[-1]
    assert "To change an input, begin anew" in outcome.errors[0].hint
    assert room.records("runbook")[0]["code"] == 50


def test_a_failed_step_ends_a_rehearsal(room):
    """What comes after it is not run."""
    room.write(block("false\necho 1 >>done"), block("echo 2 >>done"))

    outcome = room.rehearse()

    assert (outcome.status, outcome.exit_code) == ("failed", 50)
    assert ends(outcome) == ["failed", "planned", "planned"]
    assert room.done() == []
    assert outcome.errors[0].message.endswith("did not work: 1. Do 1: it ended with 1")
    assert room.records()[-1]["error"] == "it ended with 1"


def test_the_proof_decides(room):
    """All steps may be done, and it did not work."""
    room.write(block("true"), proof="exit 7")

    outcome = room.rehearse()

    assert (outcome.status, outcome.exit_code) == ("failed", 50)
    assert ends(outcome) == ["ok", "failed"]
    assert "the proof failed: it ended with 7" in outcome.errors[0].message


def test_unset_variables_are_errors(room):
    """A typing error must not run `rm -rf /`."""
    room.write(block('echo "1$tabel" >>done'))

    assert room.rehearse().exit_code == 50
    assert room.done() == []


def test_a_step_by_hand_is_asked_for_and_proved(room):
    """Unattended it is recorded as by hand, unless a proof says whether it is done."""
    room.write("Call them.", "Write.\n\nProof:\n\n```sh\ntest -e written\n```\n")

    assert ends(room.rehearse()) == ["by hand", "failed", "planned"]
    (room.folder / "written").touch()
    assert ends(room.play("y", "y")) == ["ok", "ok", "ok"]
    assert "Is it done?" in room.asked[0]


def test_what_is_destroyed_is_typed(room):
    """Another name runs nothing, and a yes alone does not either."""
    room.write(
        f"Destroys: $table\n\n{block('echo $table >>done')}",
        inputs="| `table` | name | the table | |\n",
    )

    outcome = room.play("orders", "yes", "order", "yes", " orders ")

    assert (outcome.status, room.done()) == ("passed", ["orders"])
    assert "That is another name. Nothing was run." in room.shown
    assert "This destroys orders." in room.asked[2]


def test_a_second_person_agrees_and_is_recorded(room):
    """The operator is no second person."""
    room.write(
        f"Destroys: $table\n\n{block('echo $table >>done')}",
        inputs="| `table` | name | the table | orders |\n",
    )
    settings = '[runbooks]\nsecond_person = true\noperator = "anna"'

    outcome = room.play(
        "", "y", "orders", "anna", "y", "orders", "ruth", settings=settings
    )

    assert outcome.result is not None
    assert outcome.result.second == "ruth"
    assert room.records()[-1]["second"] == "ruth"
    assert room.records("runbook")[0]["operator"] == "anna"
    refused = room.rehearse(destroys=["orders"], settings=settings)
    assert (refused.status, refused.exit_code) == ("refused", 62)
    alone = room.rehearse(destroys=["orders"], second="anna", settings=settings)
    assert alone.exit_code == 62
    both = room.rehearse(destroys=["orders"], second="ruth", settings=settings)
    assert both.status == "passed"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"destroys": ["orders"]}, "the input folder is missing"),
        ({"inputs": ["folder=/x"]}, "destroys orders"),
        ({"inputs": ["folder=/x"], "destroys": ["order"]}, "destroys orders"),
        (
            {"inputs": ["folder=/x", "table=a"], "destroys": ["orders"]},
            "destroys a",
        ),
    ],
)
def test_a_rehearsal_is_refused_before_it_begins(room, request_, words):
    """What nobody agreed to is not destroyed, and nothing is on record."""
    room.write(
        block("echo 1 >>done"),
        f"Destroys: $table\n\n{block('echo $table >>done')}",
        inputs="| `folder` | path | where | |\n| `table` | name | what | orders |\n",
    )

    outcome = room.rehearse(**request_)

    assert (outcome.status, outcome.exit_code) == ("refused", 62)
    assert words in outcome.errors[0].message
    assert (room.done(), room.records()) == ([], [])


def test_a_step_that_is_not_needed_is_skipped(room):
    """Only such a step can be; what it destroys needs no name then."""
    room.write(
        block("echo 1 >>done"),
        "Only if: it is raining.\n\nDestroys: $table\n\n" + block("echo 2 >>done"),
        inputs="| `table` | name | what | orders |\n",
    )

    outcome = room.rehearse(skip=[2])

    assert ends(outcome) == ["ok", "skipped", "ok"]
    assert room.done() == ["1"]
    for number in (1, 3):
        assert room.rehearse(skip=[number]).exit_code == 2
    assert ends(room.play("", "no", "skip", "no")) == ["skipped", "skipped", "ok"]
    assert "Only if: it is raining. Run it? [yes, no, leave]" in room.asked[-1]


ODD = [
    "it's",
    'so "called"',
    "$(touch hacked)",
    "`touch hacked`",
    "a; touch hacked",
    "back\\slash %s *",
    "größe",
]


def test_values_reach_commands_as_they_are(room):
    """Quotes, blanks and substitutions are plain characters."""
    rows = "".join(f"| `v{n}` | text | what | |\n" for n in range(len(ODD)))
    echo = "\n".join(f'printf "%s\\n" "$v{n}" >>done' for n in range(len(ODD)))
    room.write(block(echo), inputs=rows)

    outcome = room.rehearse(inputs=[f"v{n}={v}" for n, v in enumerate(ODD)])

    assert outcome.status == "passed"
    assert room.done() == ODD
    assert not (room.folder / "hacked").exists()


def test_a_value_of_another_type_is_asked_for_again(room):
    """On a terminal; on the command line it is a wrong call."""
    room.write(block("echo $number >>done"), inputs="| `number` | number | n | |\n")

    assert room.play("many", "", "3", "y").status == "passed"
    assert room.done() == ["3"]
    assert room.rehearse(inputs=["number=many"]).exit_code == 2
    assert room.rehearse(inputs=["number=1\n2"]).exit_code == 2


def test_defaults_are_taken(room):
    """By Enter, or where nobody is asked."""
    room.write(
        block('echo "$backup" >>done'),
        inputs="| `backup` | backup | which | latest |\n",
    )

    room.play("", "y")
    room.rehearse()

    assert room.done() == ["latest", "latest"]
    assert "[latest]" in room.asked[0]


def test_a_secret_of_the_configuration_is_not_recorded(room, monkeypatch):
    """Neither as an input, nor where a command prints it; a resume needs it again."""
    monkeypatch.setenv("PGPASSWORD", "correct-horse-battery")
    room.write(
        block('echo "$what" >>done; echo "$PGPASSWORD" >&2; exit 1'),
        inputs="| `what` | text | what | |\n| `more` | text | what | |\n",
    )
    given = "what=correct-horse-battery"

    failed = room.rehearse(inputs=[given, "more=x"])
    missing = room.rehearse(resume=True)
    again = room.rehearse(resume=True, inputs=[given])

    assert (failed.exit_code, missing.exit_code, again.exit_code) == (50, 62, 50)
    assert room.done() == ["correct-horse-battery"] * 2
    text = (room.folder / ".opskit" / "ledger.jsonl").read_text()
    assert "correct-horse" not in text


def test_commands_get_no_standard_input(room):
    """One that asks reads the end of it, and does not wait."""
    room.write(block("if read -r line; then exit 1; fi; echo asked >>done"))

    assert room.play("y").status == "passed"
    assert room.done() == ["asked"]


def test_a_command_that_never_ends_is_ended(room):
    """Unattended, with all that it has started, after the limit of the settings."""
    room.write(block("sleep 600 & echo $! >>done; sleep 600"))

    for seconds in (1, 5, 60):  # long enough for it to have begun
        outcome = room.rehearse(settings=f'[runbooks]\nstep_timeout = "{seconds}s"')
        if room.done():
            break

    assert outcome.exit_code == 50
    assert f"took longer than {seconds} seconds" in outcome.errors[0].message
    is_gone_soon(int(room.done()[0]))


def test_what_a_command_starts_goes_on(room):
    """A service that a step starts must outlive it, and the runbook."""
    room.write(block("sleep 600 >/dev/null 2>&1 & echo $! >>done"))

    outcome = room.rehearse()

    process = int(room.done()[0])
    os.kill(process, 9)  # fails if there is no such process
    assert outcome.status == "passed"


def test_a_ledger_that_cannot_be_written_refuses(room):
    """Before the first step."""
    room.write(block("echo 1 >>done"))
    (room.folder / ".opskit" / "ledger.lock").mkdir(parents=True)

    outcome = room.rehearse()

    assert (outcome.status, outcome.exit_code) == ("refused", 62)
    assert room.done() == []


def test_a_dry_run_shows_all_and_runs_nothing(room):
    """With the inputs filled in, and no record."""
    room.write(
        f"Destroys: $table\n\n{block('echo ${table} $table $other >>done')}",
        inputs="| `table` | text | what | |\n| `backup` | backup | which | latest |\n",
        proof="test $backup = $table",
    )

    outcome = room.play(dry_run=True, inputs=["table=orders"])

    text = "\n".join(room.shown)
    assert (outcome.status, outcome.exit_code) == ("planned", 0)
    assert "echo orders orders $other >>done" in text
    assert "test latest = orders" in text
    assert "Have a tea." in text
    assert (room.asked, room.done()) == ([], [])
    assert not (room.folder / ".opskit").exists()
    assert "table=orders  # what" in room.shown
    room.play(dry_run=True, inputs=["table=all orders"])
    assert "table='all orders'  # what" in room.shown  # as a shell takes it
    room.play(dry_run=True)
    assert "table=  # what" in room.shown


def test_one_person_at_a_time(room):
    """A second one is told who the first is; a dry run is free."""
    room.write(block("echo 1 >>done"))

    with locks.exclusive(
        room.folder / ".opskit" / "locks",
        "runbook-fix",
        operation="runbook fix",
        run_id="abc",
        now=datetime.now(UTC),
    ):
        outcome = room.rehearse()
        shown = room.play(dry_run=True)

    assert (outcome.exit_code, shown.exit_code, room.done()) == (11, 0, [])
    assert f"process {os.getpid()}" in outcome.errors[0].message


def test_without_a_terminal_it_says_what_to_do(room):
    """Nothing is asked of a pipe."""
    room.write(block("echo 1 >>done"))
    (room.folder / "opskit.toml").touch()

    run = begin(config.load(room.folder / "opskit.toml"))
    outcome = play(run, PlayRequest(name="fix"), show=print, ask=None)

    assert (outcome.exit_code, room.done()) == (2, [])
    assert "--yes" in outcome.errors[0].hint


def test_an_unknown_name_is_answered_with_one_that_is_close(room):
    """A tired person mistypes."""
    room.write(block("true"), name="database-lost")

    outcome = room.rehearse(name="databse-lost")

    assert outcome.exit_code == 2
    assert "Did you mean database-lost?" in outcome.errors[0].hint
    assert room.rehearse(name="database-lost.md").status == "passed"


def test_the_operator_is_who_logged_in(room, monkeypatch):
    """Before sudo; the settings come first."""
    room.write(block("true"))
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.delenv("SUDO_USER", raising=False)
    plain = room.rehearse()
    monkeypatch.setenv("SUDO_USER", "anna")
    sudo = room.rehearse()
    named = room.rehearse(settings='[runbooks]\noperator = "ruth"')

    operators = [each.result and each.result.operator for each in (plain, sudo, named)]
    assert operators == ["root", "anna", "ruth"]
