"""What a worker of a fleet asks of stores and databases that are out of its reach."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from opskit.config import Settings
from opskit.errors import ConfigurationError
from opskit.fleet import worker as module
from opskit.fleet.setup import claim
from opskit.fleet.worker import Worker
from opskit.operations.run import begin, start
from opskit.store import LocalStore
from opskit.watch.gathering import gather
from tests.conftest import MakeDatabase
from tests.fleets import Fleet

TURN = {"due": "2026-03-01T02:00:00+00:00", "job": None}


def test_a_store_that_was_away_is_asked_later_whose_it_is(
    tmp_path: Path, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that began without it ends when it turns out to be another fleet's."""
    fleet = Fleet(make_database(script="SELECT 1"))
    fleet.init()
    store = tmp_path / "store"
    (tmp_path / "opskit.toml").write_text(
        f"[files.state]\npath = '/srv/state'\n[stores.local]\n"
        f"url = {json.dumps(store.as_uri())}\n"
        f"[fleet]\nurl = {json.dumps(fleet.url)}\ndead_after = '3s'\n"
        "[scheduler]\nlisten = ''\nverify = ''\nreport = ''\nprune = ''\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_CLAIM_SECONDS", 0.0)
    coming = tmp_path / "coming"
    coming.mkdir()
    claim(LocalStore("local", coming), "other")
    worker, too_late = Worker(start), time.monotonic() + 60

    def come_back() -> None:
        if fleet.ask("SELECT name FROM workers") and coming.exists():
            coming.rename(store)
        if time.monotonic() > too_late:
            worker.stop()

    with pytest.raises(ConfigurationError, match=r"another fleet \(other\)"):
        worker.serve(also=come_back)

    assert fleet.ask("SELECT name FROM workers") == []


def test_a_report_in_a_fleet_asks_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that writes it may not reach those of other labels."""
    settings = Settings.model_validate(
        {
            "databases": {"far": {"url": "postgresql://unknown.invalid/far"}},
            "stores": {"local": {"url": tmp_path.as_uri()}},
            "state_dir": tmp_path / "state",
        }
    )
    (alone,) = gather(begin(settings)).sources
    monkeypatch.setenv("OPSKIT_TURN", json.dumps(TURN))

    (in_fleet,) = gather(begin(settings)).sources

    assert (in_fleet.name, in_fleet.error) == ("far", "")
    assert alone.error
