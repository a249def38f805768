"""Who would keep a migration waiting: named with process, user, age and table."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from opskit.postgres.blockers import Blocker, blockers
from opskit.postgres.connect import connect
from opskit.postgres.servers.programs import Installation, find_server
from opskit.postgres.servers.throwaway import throwaway
from tests.support import execute


@pytest.fixture(scope="module")
def url(installations: list[Installation]) -> Iterator[str]:
    """A database with two tables, on a server that takes prepared transactions."""
    settings = {"max_prepared_transactions": "2"}
    with throwaway(find_server(installations, major=16), settings=settings) as server:
        execute(server.url(), "CREATE TABLE public.t (i int PRIMARY KEY)")
        execute(
            server.url(), "CREATE TABLE public.u (); INSERT INTO public.t VALUES (1)"
        )
        execute(
            server.url(), "CREATE ROLE weak LOGIN; GRANT SELECT ON public.t TO weak"
        )
        yield server.url()


def seen(url: str, seconds: float = 0) -> list[Blocker]:
    with connect(url, purpose="test") as connection:
        return blockers(connection, seconds=seconds)


def test_an_idle_transaction_is_named(url: str) -> None:
    """With what it holds, and how it is ended; a young one is left out."""
    with psycopg.connect(url, application_name="shop") as session:
        session.execute("SELECT * FROM t")
        (found,) = seen(url)

        assert found.pid == session.info.backend_pid
        assert (found.application, found.tables) == ("shop", ("public.t",))
        assert "idle in its transaction" in str(found)
        assert f"user {found.user}, shop" in str(found)
        assert str(found.pid) in found.remedy
        assert seen(url, seconds=3600) == []
    assert seen(url) == []


def test_a_dump_is_named_however_young(url: str) -> None:
    """It holds every table."""
    with psycopg.connect(url, application_name="pg_dump") as session:
        session.execute("LOCK TABLE public.t, public.u IN ACCESS SHARE MODE")
        (found,) = seen(url, seconds=3600)

    assert found.is_dump
    assert found.tables == ("public.t", "public.u")


def test_a_long_query_is_named(url: str) -> None:
    """Not one that holds no table, and not opskit's own."""
    with (
        psycopg.connect(url, autocommit=True, application_name="report") as session,
        psycopg.connect(url) as without,
        connect(url, purpose="own", autocommit=False) as own,
    ):
        without.execute("SELECT 1")
        own.execute("SELECT * FROM public.u")
        session.pgconn.send_query(b"SELECT pg_sleep(600) FROM (VALUES (1)) v, t")
        deadline = time.monotonic() + 60
        while not (found := seen(url)):
            assert time.monotonic() < deadline
        (only,) = found
        assert "a long transaction" in str(only)
        assert only.application == "report"
        session.cancel()
        while session.pgconn.get_result():
            pass


def test_a_prepared_transaction_is_named(url: str) -> None:
    """It has no session that could be ended."""
    with psycopg.connect(url) as session:
        session.execute("INSERT INTO u DEFAULT VALUES")
        session.execute("PREPARE TRANSACTION 'left behind'")
    (found,) = seen(url)
    execute(url, "ROLLBACK PREPARED 'left behind'")

    assert found.pid == 0
    assert found.tables == ("public.u",)
    assert "ROLLBACK PREPARED 'left behind'" in found.remedy


def test_a_role_without_rights_learns_that_somebody_is_there(url: str) -> None:
    """The state and age of a session are not for everybody; its locks are."""
    with psycopg.connect(url) as session:
        session.execute("SELECT * FROM t")
        weak = psycopg.conninfo.make_conninfo(url, user="weak")
        (found,) = seen(weak)

    assert found.seconds is None
    assert found.as_json()["seconds"] is None
    assert "a session of another role" in str(found)
