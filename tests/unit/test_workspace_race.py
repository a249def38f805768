"""Folders made and removed while other processes sweep: real processes, many rounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_OWN = """
import sys; from pathlib import Path; from opskit import workspace
for _ in range(150):
    with workspace.throwaway("race", base=Path(sys.argv[1])) as path:
        (path / "data").write_text("mine")
        assert (path / "data").exists()
"""
_SWEEP = """
import sys; from pathlib import Path; from opskit import workspace
for _ in range(300):
    base = Path(sys.argv[1])
    swept = workspace.sweep("race", base=base, before_removal=lambda path: None)
    assert not swept, swept
"""


def test_a_sweep_never_takes_a_living_owners_folder(tmp_path: Path) -> None:
    """Two owners and two sweepers: nothing is swept, nobody fails, nothing is left."""
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
        for script in (_OWN, _SWEEP, _OWN, _SWEEP)
    ]
    codes = [process.wait(600) for process in processes]

    assert codes == [0, 0, 0, 0]
    assert not list(tmp_path.iterdir())
