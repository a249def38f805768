"""Walking through runbooks: real commands and a real ledger, the person is played."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from opskit import config, locks
from opskit.operations.outcome import Outcome
from opskit.operations.run import begin
from opskit.runbook.attempts import list_runbooks
from opskit.runbook.play import PlayRequest, play
from opskit.watch.runs import observed

FORM = """\
# {title}

Rehearse every 30 days.

## Symptom

## Impact

## Decide

{inputs}

## Steps

{steps}

## Proof that it worked

```sh
{proof}
```

## If it did not

Ask the neighbour.

## Afterwards

Have a tea.
"""
HEAD = "| input | type | what it is | default |\n|---|---|---|---|\n"


def block(commands: str, proof: str = "") -> str:
    """Return a step's block of commands, and that of its proof."""
    text = f"```sh\n{commands}\n```\n"
    return text + (f"\nProof:\n\n```sh\n{proof}\n```\n" if proof else "")


@dataclass
class Room:
    """A folder with a configuration and runbooks, and a person to play."""

    folder: Path
    shown: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def write(
        self, *steps: str, inputs: str = "", proof: str = "true", name: str = "fix"
    ) -> None:
        """Write a runbook with these steps, each without its head."""
        text = FORM.format(
            title=f"To {name}",
            inputs=HEAD + inputs if inputs else "",
            steps="\n".join(
                f"### {number}. Do {number}\n\n{each}"
                for number, each in enumerate(steps, start=1)
            ),
            proof=proof,
        )
        (self.folder / "runbooks" / f"{name}.md").write_text(text)

    def play(
        self, *answers: str, name: str = "fix", settings: str = "", **request: Any
    ) -> Outcome[Any]:
        """Walk through a runbook; the person gives these answers, then goes away."""
        (self.folder / "opskit.toml").write_text(settings)
        left = list(answers)

        def ask(question: str) -> str | None:
            self.asked.append(question)
            return left.pop(0) + "\n" if left else None

        run = observed(begin(config.load(self.folder / "opskit.toml")))
        outcome = play(
            run,
            PlayRequest(name=name, **request),
            show=self.shown.append,
            ask=None if request.get("unattended") else ask,
        )
        assert left == [], f"nobody asked for these: {left}"
        return outcome

    def rehearse(self, **request: Any) -> Outcome[Any]:
        """Walk through it unattended."""
        return self.play(unattended=True, **request)

    def records(self, operation: str = "runbook-step") -> list[dict[str, Any]]:
        """Return the details of the records of an operation."""
        path = self.folder / ".opskit" / "ledger.jsonl"
        if not path.exists():
            return []
        lines = [json.loads(each) for each in path.read_text().splitlines()]
        return [each["details"] for each in lines if each["operation"] == operation]

    def done(self) -> list[str]:
        """Return what commands have written into the file `done`."""
        path = self.folder / "done"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def room(tmp_path, monkeypatch) -> Room:
    """A folder without runbooks."""
    (tmp_path / "runbooks").mkdir()
    monkeypatch.setenv("OPSKIT_CONFIG", str(tmp_path / "opskit.toml"))
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


def ends(outcome: Outcome[Any]) -> list[str]:
    """Return how each step ended, the proof last."""
    assert outcome.result is not None
    return [each.status for each in outcome.result.steps]


def test_a_person_runs_skips_and_leaves(room):
    """Each step waits for an answer; what is no answer is asked again."""
    room.write(block("echo 1 >>done"), block("echo 2 >>done"), block("echo 3 >>done"))

    outcome = room.play("yes", "perhaps", "s", "leave")

    assert (outcome.status, outcome.exit_code) == ("left", 130)
    assert ends(outcome) == ["ok", "skipped", "planned", "planned"]
    assert room.done() == ["1"]
    assert len(room.asked) == 4
    assert "`inv runbook fix --resume`" in outcome.errors[0].hint
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
    assert room.records("runbook")[0]["code"] == 50


def test_a_failed_step_ends_a_rehearsal(room):
    """What comes after it is not run."""
    room.write(block("false\necho 1 >>done"), block("echo 2 >>done"))

    outcome = room.rehearse()

    assert (outcome.status, outcome.exit_code) == ("failed", 50)
    assert ends(outcome) == ["failed", "planned", "planned"]
    assert room.done() == []
    assert outcome.errors[0].message.endswith("step 1 failed: it ended with 1")


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
            {"inputs": ["folder=/x"], "destroys": ["orders", "x"]},
            "does not destroy x",
        ),
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
    room.play("", "yes", "no", "skip")
    assert "Only if: it is raining. Run it?" in room.asked[-1]


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
    """Neither as an input, nor where a command prints it."""
    monkeypatch.setenv("PGPASSWORD", "correct-horse-battery")
    room.write(
        block('echo "$PGPASSWORD"; exit 1'), inputs="| `what` | text | what | none |\n"
    )

    assert room.rehearse().exit_code == 50
    refused = room.rehearse(inputs=["what=correct-horse-battery"])

    assert refused.exit_code == 2
    text = (room.folder / ".opskit" / "ledger.jsonl").read_text()
    assert "correct-horse" not in text + refused.errors[0].message


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
        inputs="| `table` | name | what | |\n| `backup` | backup | which | latest |\n",
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
    room.play(dry_run=True)
    assert "table=$table" in room.shown


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


def states(room: Room, step: int) -> Sequence[str]:
    """Return what is on record of a step."""
    return [each["state"] for each in room.records() if each["step"] == step]


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


def test_a_skipped_step_stays_skipped(room):
    """The person has decided that it is not needed."""
    room.write("Only if: so.\n\n" + block("echo 1 >>done"), block("echo 2 >>done"))

    room.play("skip", "leave")
    outcome = room.rehearse(resume=True)

    assert ends(outcome) == ["skipped", "ok", "ok"]


def test_a_failed_run_can_be_resumed(room):
    """It begins with the step that failed; a proof may hold meanwhile."""
    room.write(
        block("echo 1 >>done"), block("echo 2 >>done; exit 1", proof="test -e mended")
    )

    assert room.rehearse().status == "failed"
    assert ends(room.rehearse(resume=True))[:2] == ["done before", "failed"]
    assert "Step 2 failed the last time." in room.shown
    (room.folder / "mended").touch()
    assert ends(room.rehearse(resume=True)) == ["done before", "done before", "ok"]
    assert room.done() == ["1", "2", "2"]


def test_a_changed_runbook_is_not_resumed(room):
    """Its steps may mean something else now."""
    room.write(block("echo 1 >>done"), "By hand.")
    room.play("y", "leave")
    room.write(block("echo 1 >>done"), block("echo 2 >>done"))

    outcome = room.rehearse(resume=True)

    assert (outcome.status, outcome.exit_code) == ("refused", 62)
    assert "has changed" in outcome.errors[0].message
    assert room.done() == ["1"]
    assert "`inv runbook fix --resume` goes on" not in " ".join(room.shown)
    assert room.rehearse().status == "passed"
    assert "`inv runbook fix --resume` goes on" in " ".join(room.shown)


def test_a_resume_takes_no_inputs_and_needs_something_to_resume(room):
    """Both are refused, and nothing is run."""
    room.write(block("echo 1 >>done"), inputs="| `table` | name | what | a |\n")

    assert room.rehearse(resume=True).exit_code == 62
    room.play("a", "leave")
    assert room.rehearse(resume=True, inputs=["table=b"]).exit_code == 2
    assert room.done() == []


def test_the_list_knows_the_last_run_of_each(room):
    """A failed run is no rehearsal; a file that breaks the form is named."""
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
    assert outcome.exit_code == 2


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
