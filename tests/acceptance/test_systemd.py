"""The unit for systemd: valid, confined, and a killed scheduler is soon back."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from configparser import RawConfigParser
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from opskit.config.watch import SchedulerSettings
from tests.acceptance.conftest import ROOT
from tests.acceptance.scheduling import QUIET, Scheduled
from tests.unit.stock import program

UNIT = ROOT / "docs" / "systemd" / "opskit.service"
# systemd calls up to 4.9 "ok"; an ordinary service has 9.6.
EXPOSURE_MAX = 2.5


def service_section() -> dict[str, str]:
    """Return the settings of the service; of a repeated one the last."""
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text())
    return dict(parser["Service"])


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here."""
    text = UNIT.read_text()
    assert text.count("/usr/local/bin/opskit ") == 1
    path = tmp_path / "opskit.service"
    path.write_text(text.replace("/usr/local/bin/opskit ", f"{sys.executable} "))
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which needs no systemd that runs."""
    return subprocess.run(
        [program("systemd-analyze"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_unit_is_valid(unit: Path) -> None:
    """systemd-analyze verify has nothing to say, and would have of a wrong line."""
    verified = analyze("verify", "--man=no", unit)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")

    unit.write_text(unit.read_text().replace("ProtectClock=yes", "ProtectClok=yes"))
    assert "ProtectClok" in analyze("verify", "--man=no", unit).stderr


def test_the_unit_is_confined(unit: Path) -> None:
    """systemd-analyze security finds little that it could do beyond its work."""
    arguments = ("--offline=yes", "--json=short", "--no-pager")

    def exposure() -> float:
        found = json.loads(analyze("security", *arguments, unit).stdout)
        return float(sum(float(each["exposure"] or 0) for each in found))

    judged = analyze(
        "security", "--offline=yes", f"--threshold={EXPOSURE_MAX * 10:g}", unit
    )
    assert judged.returncode == 0, judged.stdout
    before = exposure()
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", ""))
    assert exposure() > before


def test_the_unit_lets_the_scheduler_end_its_jobs() -> None:
    """systemd waits longer than the scheduler by its own setting."""
    section = service_section()

    assert section["KillMode"] == "mixed"
    stop_timeout = SchedulerSettings().stop_timeout
    assert timedelta(seconds=int(section["TimeoutStopSec"])) > stop_timeout


def test_a_killed_scheduler_is_back_at_once(tmp_path: Path) -> None:
    """After the unit's pause it leads again: it does not wait for the dead one's claim.

    Of the five seconds that this may take the pause leaves most to the start.
    """
    section = service_section()
    assert section["Restart"] == "always"
    assert float(section["RestartSec"]) <= 1
    assert shlex.split(section["ExecStart"])[1:] == ["scheduler"]
    service = Scheduled(tmp_path)
    service.set_up(QUIET + 'takeover = "1h"\n')
    with ExitStack() as stack:
        first = service.daemon(stack, "first")
        first.says("leading")
        # The supervisor: whatever it ended with, it is started again after the pause.
        first.kill()
        time.sleep(float(section["RestartSec"]))
        second = service.daemon(stack, "second")
        second.says("leading")

        assert "standing by" not in second.output
        assert second.end() == 0
