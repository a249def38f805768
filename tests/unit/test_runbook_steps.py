"""The commands of the runbooks that come with opskit: what they accept and refuse."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from opskit.runbook.text import Runbook, read

FOLDER = Path(__file__).parents[2] / "runbooks"
BOOKS = {
    path.stem: read(path)
    for path in sorted(FOLDER.glob("*.md"))
    if path.name != "README.md"
}
Shell = Callable[..., int]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return what runs a command as the player does, with `opskit` as a script if given."""

    def run(command: str, *, opskit: str = "exit 99", **variables: object) -> int:
        program = tmp_path / "bin" / "opskit"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{opskit}\n")
        program.chmod(0o755)
        return subprocess.run(
            ["sh", "-euc", command],
            cwd=tmp_path,
            env={
                "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
                **{name: str(value) for name, value in variables.items()},
            },
            capture_output=True,
            check=False,
        ).returncode

    return run


@pytest.mark.parametrize("book", BOOKS.values(), ids=BOOKS)
def test_the_inputs_on_paper_reach_the_programs_that_a_command_starts(
    book: Runbook,
) -> None:
    """The player exports them, and so does the shell of a person after `set -a`."""
    assert "n paper type `set -a`, then set the inputs" in book.sections["Decide"]


@pytest.mark.parametrize(("name", "number"), [("store-failing", 4), ("ransomware", 7)])
@pytest.mark.parametrize(
    ("code", "is_done"), [(0, 1), (10, 1), (20, 1), (1, 0), (2, 0)]
)
def test_objects_that_are_damaged_or_missing_do_not_end_a_runbook(
    name: str, number: int, code: int, is_done: int, shell: Shell
) -> None:
    """`opskit verify` ends with 20 for damage, and with 10 if objects are only missing."""
    only_verify = f'test "$1" != verify || exit {code}'

    command = BOOKS[name].steps[number - 1].command

    assert (shell(command, opskit=only_verify) == 0) is bool(is_done)


@pytest.mark.parametrize(
    ("opskit", "is_proved"),
    [
        ("echo 'keep a: newest'", True),
        ("echo 'keep a: newest'; echo 'would delete b: no rule keeps it'", False),
        ("echo 'keep a: newest'; exit 41", False),
    ],
)
def test_the_proof_of_a_pruning_is_that_nothing_is_left_to_delete(
    opskit: str, is_proved: bool, shell: Shell
) -> None:
    """A dry run ends with 0 also where it names what it would delete."""
    proof = BOOKS["store-failing"].steps[2].proof

    assert (shell(proof, opskit=opskit) == 0) is is_proved


def test_the_proof_of_the_rescue_identity_is_that_it_was_added(
    tmp_path: Path, shell: Shell
) -> None:
    """Not that there is any identity in the file."""
    files = {"identity_file": tmp_path / "identity", "rescue": tmp_path / "rescue"}
    for path in files.values():
        subprocess.run(["age-keygen", "-o", path], check=True, capture_output=True)
    step = BOOKS["keys-lost"].steps[1]

    assert shell(step.proof, **files) != 0
    assert shell(step.command, **files) == 0
    assert shell(step.proof, **files) == 0


@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_a_key_that_cannot_be_read_proves_nothing(
    number: int, tmp_path: Path, shell: Shell
) -> None:
    """What searches for nothing finds it, and `!` turns a failure into success."""
    (tmp_path / "opskit.toml").write_text("recipients = []\n")
    proof = BOOKS["keys-lost"].steps[number - 1].proof
    missing = tmp_path / "missing"

    code = shell(
        proof,
        identity_file=missing,
        key_file=missing,
        old_recipient="age1old",
        old_key="AAAAold",
    )

    assert code != 0


def test_a_key_is_no_longer_trusted_only_if_it_was_trusted(
    tmp_path: Path, shell: Shell
) -> None:
    """Another word than that of the old key removes nothing, and must not seem to."""
    settings = tmp_path / "opskit.toml"
    text = 'trusted_keys = ["ssh-ed25519 AAAAold ops", "ssh-ed25519 AAAAnew"]\n'
    settings.write_text(text)
    step = BOOKS["keys-lost"].steps[8]

    assert shell(step.command, old_key="AAAA…") != 0
    assert settings.read_text() == text
    assert shell(step.proof, old_key="AAAAold") != 0
    assert shell(step.command, old_key="AAAAold") == 0
    assert settings.read_text() == 'trusted_keys = ["ssh-ed25519 AAAAnew"]\n'
    assert shell(step.proof, old_key="AAAAold") == 0
    assert shell(step.proof, old_key="AAAAold", OPSKIT_CONFIG="elsewhere") != 0


@pytest.mark.parametrize("variables", [{}, {"OPSKIT_STATE_DIR": "var"}])
def test_the_state_that_is_kept_is_that_of_the_scheduler(
    variables: dict[str, str], tmp_path: Path, shell: Shell
) -> None:
    """Its unit names another folder than the one that lies beside the configuration."""
    state = tmp_path / variables.get("OPSKIT_STATE_DIR", ".opskit")
    state.mkdir()
    (state / "ledger.jsonl").write_text("records\n")
    evidence = tmp_path / "evidence"
    steps = BOOKS["ransomware"].steps

    for number in (3, 5):
        assert shell(steps[number - 1].command, evidence=evidence, **variables) == 0

    (kept,) = evidence.glob("state-*/ledger.jsonl")
    (moved,) = evidence.glob("ledger-*.jsonl")
    assert kept.read_text() == moved.read_text() == "records\n"
    assert list(state.iterdir()) == []


def test_the_proof_of_what_was_fetched_is_a_set_in_the_folder(
    tmp_path: Path, shell: Shell
) -> None:
    """`opskit backups` ends with 0 also where there is no set."""
    folder = tmp_path / "store"
    place = folder / "shop" / "2026" / "shop-1"
    place.mkdir(parents=True)
    proof = BOOKS["ransomware"].steps[5].proof

    assert shell(proof, folder=folder, opskit="exit 0") != 0
    (place / "manifest.json").touch()
    assert shell(proof, folder=folder) == 0
