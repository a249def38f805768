"""A worker as what manages it sees it: its sign of life, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from opskit.fleet.worker import ALIVE, Worker
from opskit.operations.run import start

_SECONDS_MAX = 180


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet whose queue does not answer."""
    (tmp_path / "opskit.toml").write_text(
        "[files.state]\npath = '/srv/state'\n[stores.local]\nurl = 'file:///srv/store'\n"
        "[fleet]\nurl = 'postgresql://ops@127.0.0.1:1/queue'\ndead_after = '3s'\n"
        "[scheduler]\nlisten = ''\n"
    )
    monkeypatch.chdir(tmp_path)


def test_a_worker_gives_a_sign_of_life_while_its_queue_is_away(
    tmp_path: Path,
) -> None:
    """Nobody starts it again for what it cannot help."""
    worker = Worker(start)
    thread = threading.Thread(target=worker.serve)
    alive = tmp_path / ".opskit" / ALIVE
    thread.start()
    try:
        for _round in range(2):
            _await(alive)
            alive.unlink()
    finally:
        worker.stop()
        thread.join(_SECONDS_MAX)

    assert not thread.is_alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_is_told_to_ends_well(
    tmp_path: Path, number: signal.Signals
) -> None:
    """What manages it starts it again, with the configuration as it is then."""
    command = [sys.executable, "-m", "opskit", "fleet-worker"]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests may have them ignore it, as nohup does.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        try:
            _await(tmp_path / ".opskit" / ALIVE)
            process.send_signal(number)
            _output, said = process.communicate(timeout=_SECONDS_MAX)
        finally:
            process.kill()

    assert (process.returncode, "error:" in said) == (0, False)


def _await(path: Path) -> None:
    until = time.monotonic() + _SECONDS_MAX
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
