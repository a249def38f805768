"""Operations are called from a plain Python program, without Invoke."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import MakeDatabase

PROGRAM = """
import sys
from opskit import config
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.drill import RestoreDrillRequest, drill
from opskit.operations.run import begin
settings = config.load(sys.argv[1])
backed_up = backup(begin(settings), BackupRequest(database="shop"))
drilled = drill(begin(settings), RestoreDrillRequest(database="shop"))
print(backed_up.exit_code, drilled.exit_code, drilled.result.evidence.passed)
"""
FAILING = """
import sys
from opskit import config
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.run import begin
outcome = backup(begin(config.load(sys.argv[1])), BackupRequest())
print([(each.subject, each.exit_code) for each in outcome.result.sources])
print(outcome.exit_code, outcome.errors[0].message)
"""
NO_INVOKE = "assert not {'invoke', 'opskit.tasks'} & set(sys.modules), sys.modules\n"


def _configured(folder: Path, *databases: tuple[str, str]) -> Path:
    (folder / "store").mkdir()
    text = f'[stores.local]\nurl = "{(folder / "store").as_uri()}"\n'
    for name, url in databases:
        text += f"[databases.{name}]\nurl = {json.dumps(url)}\n"
    path = folder / "opskit.toml"
    path.write_text(text)
    return path


def _run(program: str, configuration: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program + NO_INVOKE, str(configuration)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_program_of_ten_lines_backs_up_and_drills(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    """Two runs of one process: each has its outcome, and its record in the ledger."""
    configuration = _configured(tmp_path, ("shop", make_database()))

    assert _run(PROGRAM, configuration) == ["0 0 True"]

    lines = (tmp_path / ".opskit" / "ledger.jsonl").read_text().splitlines()
    records = [json.loads(each) for each in lines]
    assert [each["operation"] for each in records] == ["backup", "restore-drill"]
    assert len({each["run_id"] for each in records}) == 2
    for each in records:
        assert each["outcome"] == "ok"
        assert each["started_at"] < each["time"]
        assert each["seconds"] > 0


def test_several_sources_have_an_outcome_each(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    """One that cannot be reached is an error as a value, and the other is backed up."""
    bad = "postgresql://nobody@127.0.0.1:9/none"
    configuration = _configured(tmp_path, ("bad", bad), ("shop", make_database()))

    sources, whole = _run(FAILING, configuration)

    assert sources == "[('bad', 30), ('shop', 0)]"
    assert whole.startswith("30 bad: ")
