"""Databases whose own settings stand in the way of a backup, a drill or a restore."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from opskit.errors import BackupFailed, DatabaseError, ServerFault
from opskit.postgres.connect import connect
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.throwaway import Server
from tests.integration.test_restore import run_restore
from tests.support import back_up, execute, failed, run_drill, sets

_TABLE = "CREATE TABLE public.t AS SELECT i FROM generate_series(1, 10) i;"
_OTHER_LOCALE = """
ALTER {0} SET {1} = 'C';
UPDATE pg_db_role_setting SET setconfig = ARRAY['{1}=de_XX.utf8']
    WHERE setconfig = ARRAY['{1}=C'];
"""


@pytest.fixture
def source() -> Iterator[Server]:
    """A server of its own, since its roles and databases get settings."""
    found = programs.find_server(programs.installations(), major=16)
    with throwaway.throwaway(found) as running:
        execute(running.url(), "CREATE DATABASE shop")
        execute(running.url("shop"), _TABLE)
        yield running


def _set(running: Server, script: str) -> None:
    with connect(running.url(), purpose="test") as connection:
        for statement in script.strip().split(";\n"):
            connection.execute(statement.encode())


@pytest.mark.parametrize(
    "script",
    [
        "ALTER DATABASE shop SET default_transaction_read_only = on",
        "ALTER ROLE ALL SET default_transaction_read_only = on",
        "CREATE ROLE app;\nALTER DATABASE shop SET role = app;\n"
        "GRANT pg_read_all_data TO app",
        "ALTER DATABASE shop SET statement_timeout = 1",
    ],
)
def test_a_database_with_odd_settings_comes_back(
    source: Server, store_dir: Path, script: str
) -> None:
    """Into a drill as into a restore, with its settings."""
    _set(source, script)
    back_up(source.url("shop"), store_dir)

    assert failed(run_drill(sets(store_dir)[0])) == []
    assert run_restore(sets(store_dir)[0], source, "shop_new").rows == 10


def test_a_role_that_the_database_sets_is_named(
    source: Server, store_dir: Path
) -> None:
    """What the hint says helps."""
    _set(source, "CREATE ROLE app;\nALTER DATABASE shop SET role = app")

    with pytest.raises(BackupFailed) as caught:
        back_up(source.url("shop"), store_dir)
    advice = "ALTER ROLE opskit_throwaway IN DATABASE shop SET role = none"
    assert "gives the session the role app" in caught.value.hint
    assert advice in caught.value.hint

    _set(source, advice)
    back_up(source.url("shop"), store_dir)


@pytest.mark.parametrize("setting", ["lc_time", "lc_monetary", "lc_numeric"])
def test_a_locale_of_the_databases_that_the_host_lacks_is_no_verdict_on_the_set(
    source: Server, store_dir: Path, setting: str
) -> None:
    """It is named before anything is restored, and may be done without."""
    _set(source, _OTHER_LOCALE.format("DATABASE shop", setting))
    back_up(source.url("shop"), store_dir)

    with pytest.raises(DatabaseError, match=r"no locale de_XX\.utf8") as caught:
        run_drill(sets(store_dir)[0])
    assert f'allow = ["setting {setting}"]' in caught.value.hint
    evidence = run_drill(sets(store_dir)[0], allowed=[f"setting {setting}"])
    assert failed(evidence) == []


def test_a_locale_of_a_roles_that_the_host_lacks_is_no_verdict_on_the_set(
    source: Server, store_dir: Path
) -> None:
    """It has a message and a hint of its own."""
    _set(source, "CREATE ROLE clerk;\n" + _OTHER_LOCALE.format("ROLE clerk", "lc_time"))
    back_up(source.url("shop"), store_dir)

    with pytest.raises(ServerFault, match="which is that of a role") as caught:
        run_drill(sets(store_dir)[0])
    assert "locale-gen" in caught.value.hint
