"""How throw-away servers are set up, asked of servers that run."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest

from opskit.postgres.connect import connect, query_value
from opskit.postgres.extensions import is_usable
from opskit.postgres.parameters import client_connection, client_environment, parse
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.programs import SERVER_PROGRAMS
from tests.support import users_own

_ABLE = """
    SELECT 'lz4' = ANY (enumvals) FROM pg_settings
    WHERE name = 'default_toast_compression'
"""


def _setting(running: throwaway.Server, name: str) -> str:
    with connect(running.url(), purpose="test") as connection:
        return str(query_value(connection, "SELECT current_setting(%s)", name))


@pytest.mark.parametrize("major", [15, 16, 18])
def test_a_server_compresses_quickly_if_it_can(major: int) -> None:
    """With lz4 where it was built with that; where not, it starts all the same."""
    found = programs.find_server(programs.installations(), major=major)
    with throwaway.throwaway(found) as running:
        with connect(running.url(), purpose="test") as connection:
            able = query_value(connection, _ABLE)

        expected = "lz4" if able else "pglz"
        assert _setting(running, "default_toast_compression") == expected
        for name, value in throwaway.SETTINGS.items():
            assert _setting(running, name).removesuffix(" ") == value


def test_what_the_user_sets_stays() -> None:
    """A setting of the configuration's counts more than ours."""
    found = next(each for each in programs.installations() if each.has(SERVER_PROGRAMS))
    chosen = {"default_toast_compression": "pglz", "work_mem": "5MB"}
    with throwaway.throwaway(found, settings=chosen) as running:
        assert {name: _setting(running, name) for name in chosen} == chosen


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every variable that libpq reads, each with a value that leads nowhere."""
    services = tmp_path / "services"
    services.write_text("[other]\nhostaddr=192.0.2.1\nsslmode=verify-full\n")
    known = psycopg.pq.Conninfo.get_defaults()
    made = {each.envvar.decode(): "nonsense" for each in known if each.envvar}
    made |= {"PGSERVICE": "other", "PGSERVICEFILE": str(services)}
    made |= {"PGTZ": "Europe/Berlin", "PGDATESTYLE": "German", "PGREQUIRESSL": "1"}
    for name, each in made.items():
        monkeypatch.setenv(name, each)
    return made


@pytest.mark.parametrize("service", ["other", "nowhere"])
@pytest.mark.parametrize("major", [15, 18])
def test_no_variable_of_the_users_reaches_a_throwaway_server(
    variables: dict[str, str],
    major: int,
    service: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sessions and programs get there, and every variable stays as it is."""
    monkeypatch.setenv("PGSERVICE", service)
    variables["PGSERVICE"] = service
    found = programs.find_server(programs.installations(), major=major)
    with throwaway.throwaway(found) as running:
        url = running.url("template1")
        with connect(url, purpose="test") as connection:
            assert query_value(connection, "SHOW TimeZone") == "UTC"
            assert is_usable(connection, "plpgsql")
        subprocess.run(
            [found.program("pg_dump"), "--dbname", client_connection(url)],
            env=client_environment(url),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        assert variables.items() <= os.environ.items()


def test_a_service_in_the_environment_is_for_the_users_own_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a throw-away server, which it was not for, was connected to."""
    found = programs.find_server(programs.installations(), major=16)
    with throwaway.throwaway(found) as running:
        services = tmp_path / "services"
        lines = "\n".join(
            f"{k}={v}" for k, v in parse(users_own(running.url())).items()
        )
        services.write_text(f"[own]\n{lines}\n")
        monkeypatch.setenv("PGSERVICEFILE", str(services))
        monkeypatch.setenv("PGSERVICE", "own")
        for url in (running.url(), "postgresql:///template1", "postgresql:///"):
            with connect(url, purpose="test") as connection:
                user = query_value(connection, "SELECT session_user")
            assert user == throwaway.SUPERUSER


def _status(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/status").read_text("ascii")
    return ""  # it has ended meanwhile


def _below(pid: int) -> list[int]:
    children: list[str] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [each for child in map(int, children) for each in (child, *_below(child))]


def test_a_server_can_be_ended_where_signals_are_ignored() -> None:
    """As in the background jobs of a shell: whoever is sent SIGQUIT takes it."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    try:
        found = programs.find_server(programs.installations(), major=16)
        with throwaway.throwaway(found):
            ignored = {}
            for pid in _below(os.getpid()):
                fields = dict(re.findall(r"^(Name|SigIgn):\t(.*)$", _status(pid), re.M))
                if fields:
                    signals = int(fields["SigIgn"], 16)
                    ignored[fields["Name"]] = bool(signals >> signal.SIGQUIT - 1 & 1)
    finally:
        signal.signal(signal.SIGQUIT, before)

    assert ignored.keys() & {"unshare", "postgres"}
    assert not any(ignored.get(name) for name in ("unshare", "postgres"))
