"""The sign of life that probes of a worker ask for."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from opskit.fleet.worker import ALIVE, Worker
from opskit.operations.run import start

_SECONDS_MAX = 60


def test_a_worker_gives_a_sign_of_life_while_its_queue_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody starts it again for what it cannot help."""
    (tmp_path / "opskit.toml").write_text(
        "[files.state]\npath = '/srv/state'\n[stores.local]\nurl = 'file:///srv/store'\n"
        "[fleet]\nurl = 'postgresql://ops@127.0.0.1:1/queue'\ndead_after = '3s'\n"
    )
    monkeypatch.chdir(tmp_path)
    worker = Worker(start)
    thread = threading.Thread(target=worker.serve)
    alive = tmp_path / ".opskit" / ALIVE
    thread.start()
    try:
        for _round in range(2):
            until = time.monotonic() + _SECONDS_MAX
            while not alive.exists() and time.monotonic() < until:
                time.sleep(0.05)
            alive.unlink()
    finally:
        worker.stop()
        thread.join(_SECONDS_MAX)

    assert not thread.is_alive()
