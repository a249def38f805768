"""The daemon as an object: what its signals do at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opskit import log
from opskit.config import Settings
from opskit.errors import ConfigurationError
from opskit.ledger import Ledger
from opskit.operations.run import Run
from opskit.operations.schedule import Job, jobs
from opskit.scheduler.daemon import Daemon, Web
from opskit.scheduler.jobs import Running
from tests.acceptance.scheduling import eventually
from tests.unit.scheduled import Played


def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings with one folder that is backed up every hour."""
    (tmp_path / "opskit.toml").touch()
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("OPSKIT_CONFIG", str(tmp_path / "opskit.toml"))
    off = dict.fromkeys(("verify", "drill", "prune", "report"), "")
    return Settings.model_validate(
        {
            "state_dir": tmp_path / "state",
            "files": {"state": {"path": tmp_path, "schedule": "@hourly"}},
            "stores": {"local": {"url": (tmp_path / "store").as_uri()}},
            "scheduler": off,
        }
    )


def test_jobs_are_told_to_end_when_the_signal_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their time does not begin only after what the main loop is at."""
    settings = _settings(tmp_path, monkeypatch)
    (tmp_path / "state").mkdir()
    (job,) = jobs(settings)
    Ledger(tmp_path / "state" / "ledger.jsonl").append(
        now=datetime.now(UTC) - timedelta(hours=3), run_id="run",
        operation="scheduler", outcome="ok", details={"lines": {job.name: job.written}},
    )  # fmt: skip
    started: list[Played] = []

    def launch(_daemon: Daemon, job: Job, at: datetime) -> Running:
        started.append(Played(job, at))
        return started[-1]

    monkeypatch.setattr(Daemon, "_launch", launch)
    daemon = Daemon(lambda: Run(settings))
    daemon._learn()

    def tick() -> list[Played]:
        daemon._tick()
        return started

    eventually(tick, that="the job is started")
    daemon.stop()
    daemon._lease.release()

    assert started[0].causes == ["stopped"]


@pytest.mark.parametrize("accepted", [False, True])
def test_the_secrets_of_a_refused_configuration_are_not_those_of_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: bool
) -> None:
    """The ones before stay masked; an accepted one brings its own."""
    settings = _settings(tmp_path, monkeypatch)
    passwords = iter(["canary-one", "canary-two"])

    def load() -> Run:
        log.configure(run_id="run", form="json")
        log.hide(password := next(passwords))
        if password == "canary-two" and not accepted:
            raise ConfigurationError("refused", hint="Correct it.")
        return Run(settings)

    daemon = Daemon(load)
    daemon._read_again()
    daemon._lease.release()

    shown = log.mask("canary-one canary-two").split()
    assert shown == (["canary-one", "***"] if accepted else ["***", "canary-two"])


def test_error_tracking_is_not_switched_by_a_refused_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client is the whole process's: the page's address is examined before it."""
    settings = _settings(tmp_path, monkeypatch)
    here, elsewhere = (
        settings.model_copy(
            update={"scheduler": settings.scheduler.model_copy(update={"listen": each})}
        )
        for each in ("127.0.0.1:0", "192.0.2.1:0")
    )
    runs = iter([here, elsewhere])
    switched: list[Settings] = []

    def observed(run: Run) -> Run:
        switched.append(run.settings)
        return run

    monkeypatch.setattr("opskit.scheduler.daemon.observed", observed)
    daemon = Daemon(lambda: Run(next(runs)))
    daemon._web = Web(daemon.run, lambda *_lines: None)
    daemon._read_again()
    daemon._web.close()
    daemon._lease.release()

    assert switched == [here]
    assert daemon.run.settings is here
