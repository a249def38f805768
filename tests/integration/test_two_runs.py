"""Two runs in one process: neither takes anything from the other, nor tells it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from urllib.parse import urlencode

import pytest

from opskit import config, log
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.drill import RestoreDrillRequest, drill
from opskit.operations.run import Run, begin
from opskit.postgres.connect import connect
from opskit.postgres.parameters import parse
from opskit.postgres.servers.programs import find_server, installations
from opskit.postgres.servers.throwaway import Server, throwaway
from tests.sample import SAMPLE
from tests.support import execute, users_own

# How often; more of them are a campaign, by the variable.
TIMES = int(os.environ.get("TEST_OPSKIT_TWO_RUNS", "4"))
# The source of each run, and the password of its database: that of the other's is a
# word of its own lines, which nothing may mask there.
IN_PASSFILE, IN_URL_FILE = "harbour", "anchor"


@pytest.fixture
def running() -> Iterator[Server]:
    """A server with two databases whose owners have to give their passwords."""
    with throwaway(find_server(installations(), major=16)) as server:
        for name, password in ((IN_PASSFILE, "of-the-file"), (IN_URL_FILE, "harbour")):
            execute(
                server.url(),
                f"CREATE ROLE of_{name} SUPERUSER LOGIN PASSWORD '{password}'",
            )
            execute(server.url(), f"CREATE DATABASE {name}")
            execute(server.url(name), SAMPLE)
        rules = server.folder / "data" / "pg_hba.conf"
        asked = "local all of_harbour,of_anchor scram-sha-256\n"
        rules.write_text(asked + rules.read_text())
        with connect(server.url(), purpose="test") as connection:
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def configured(
    running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Return a function that gives the configuration file of a source.

    The password of one is in the file that PGPASSFILE names, that of the other in the
    file of its URL. They share the store, the ledger and the locks.
    """

    def write(name: str, text: str) -> Path:
        file = tmp_path / name
        file.write_text(text)
        file.chmod(0o600)
        return file

    (tmp_path / "store").mkdir()
    urls = {}
    for name in (IN_PASSFILE, IN_URL_FILE):
        own = parse(users_own(running.url(name))) | {"user": f"of_{name}"}
        own.pop("passfile")
        urls[name] = own
    passwords = write("passwords", "*:*:*:of_harbour:of-the-file\n")
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    with_password = urls[IN_URL_FILE] | {"password": "harbour"}
    url_file = write("url", f"postgresql:///?{urlencode(with_password)}")

    def file(name: str) -> Path:
        url = f"postgresql:///?{urlencode(urls[name])}"
        line = f"url_file = '{url_file}'" if name == IN_URL_FILE else f'url = "{url}"'
        return write(
            f"{name}.toml",
            f"log_format = 'json'\nstate_dir = '{tmp_path}/state'\n"
            f"[stores.shared]\nurl = 'file://{tmp_path}/store'\n"
            f"[databases.{name}]\n{line}\n",
        )

    return file


def _back_up(run: Run, name: str) -> str:
    outcome = backup(run, BackupRequest(database=name))
    assert outcome.errors == ()
    assert outcome.result is not None
    (made,) = outcome.result.sources
    assert made.result is not None
    return made.result.manifest.backup_id


def test_a_backup_beside_a_drill_again_and_again(
    configured: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each finds its password, and each line has its run's id and masks."""
    files = {name: configured(name) for name in (IN_PASSFILE, IN_URL_FILE)}
    environment = dict(os.environ)
    _back_up(begin(config.load(files[IN_URL_FILE])), IN_URL_FILE)
    capsys.readouterr()
    at_once = Barrier(2, timeout=120)
    drilled = [Event() for _ in range(TIMES)]

    def back_up() -> list[str]:
        ids = []
        for each in drilled:
            at_once.wait()
            while not each.is_set():
                run = begin(config.load(files[IN_PASSFILE]))
                ids.append(run.run_id)
                _back_up(run, IN_PASSFILE)
                log.logger().info("harbour and anchor")
        return ids

    def prove() -> list[str]:
        ids = []
        for each in drilled:
            at_once.wait()
            try:
                run = begin(config.load(files[IN_URL_FILE]))
                ids.append(run.run_id)
                request = RestoreDrillRequest(database=IN_URL_FILE, mutants=0)
                assert drill(run, request).errors == ()
                _back_up(run, IN_URL_FILE)
                log.logger().info("harbour and anchor")
            finally:
                each.set()
        return ids

    with ThreadPoolExecutor(2) as threads:
        both = threads.submit(back_up), threads.submit(prove)
        of_backups, of_drills = (each.result() for each in both)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    assert len({*of_backups, *of_drills}) >= 2 * TIMES
    assert {each["run_id"] for each in lines} == {*of_backups, *of_drills}
    for each in lines:
        is_backup = each["run_id"] in of_backups
        assert ("harbour" in json.dumps(each)) <= is_backup
        assert each.get("source") in (None, IN_PASSFILE if is_backup else IN_URL_FILE)
        if "and" in each["event"].split():
            shown = "harbour and anchor" if is_backup else "*** and anchor"
            assert each["event"] == shown
    assert environment == dict(os.environ)
