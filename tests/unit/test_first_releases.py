"""Releases of the quickstart: an earlier run that was cut off is in nobody's way."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from opskit import config
from opskit.operations import first_releases
from opskit.operations.quickstart import write_configuration
from opskit.operations.run import Run
from opskit.release import processes


def test_each_run_with_releases_has_a_state_of_its_own(tmp_path: Path) -> None:
    """A release that was interrupted is on record in another one."""
    found = [
        Run(
            config.load(write_configuration(tmp_path, "postgresql:///x", own_state=own))
        )
        for own in (False, True, True)
    ]

    assert found[0].state_dir == tmp_path / ".opskit"
    assert len({each.ledger.id for each in found}) == len(found)


def test_the_service_of_a_run_that_was_killed_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its record is deleted with the folder."""
    records = tmp_path / "service" / "processes"
    records.mkdir(parents=True)
    left = processes.start(
        ["sleep", "600"],
        folder=tmp_path,
        record=records / "1",
        log=tmp_path / "log",
        variables={},
    )
    path = write_configuration(tmp_path, "postgresql:///x")
    running = mock.Mock(side_effect=InterruptedError)
    monkeypatch.setattr(first_releases, "_running", running)
    try:
        with pytest.raises(InterruptedError):
            first_releases.try_releases(
                path,
                source="sample",
                url="postgresql:///x",
                on_version=mock.Mock(),
                on_step=mock.Mock(),
                on_done=mock.Mock(),
            )
        assert not left.is_alive
        assert not records.exists()
    finally:
        left.stop(0)
