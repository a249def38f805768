"""What a role cannot restore is told before anything is read, and by doctor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from opskit.checks import Health
from opskit.doctor import databases
from opskit.errors import DatabaseError
from opskit.postgres import database
from opskit.postgres.connect import connect, query
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.throwaway import Server
from opskit.restore.run import RestoreRequest, restore
from tests.conftest import MajorServer
from tests.support import LIMITS, back_up, execute, now, sets, value

ROLES = ("meek", "clerk", "owner_of_shop", "gone")


@pytest.fixture
def running(server_of: MajorServer) -> Iterator[Server]:
    """A server with a shop, its owner, and roles that may less."""
    found = server_of(16)
    for statement in (
        *(f"CREATE ROLE {name} LOGIN" for name in ROLES),
        "ALTER ROLE clerk CREATEDB",
        "GRANT pg_read_all_data TO meek, clerk",
        "CREATE DATABASE shop_of_many OWNER owner_of_shop",
    ):
        execute(found.url(), statement)
    execute(
        found.url("shop_of_many"),
        "CREATE SCHEMA s AUTHORIZATION gone; CREATE TABLE s.t AS SELECT 1 i; "
        "ALTER TABLE s.t OWNER TO gone",
    )
    yield found
    with connect(found.url(), purpose="test") as connection:
        for name in ("shop_of_many", "restored"):
            database.drop(connection, name)
        there = query(connection, "SELECT rolname FROM pg_roles")
        for name in ROLES:
            if (name,) in there:
                connection.execute(f"DROP ROLE {name}".encode())


def as_role(running: Server, role: str) -> str:
    """Return a URL of the server for another role."""
    return running.url("shop_of_many").replace(f"{throwaway.SUPERUSER}@", f"{role}@")


def attempt(running: Server, store_dir: Path, role: str) -> None:
    """Restore the newest set as a role."""
    request = RestoreRequest(
        chosen=sets(store_dir)[0],
        server_url=as_role(running, role),
        target="restored",
        run_id="abc123",
        installations=programs.installations(),
        limits=LIMITS,
    )
    restore(request, clock=now)


@pytest.mark.parametrize(
    ("role", "told"),
    [
        ("meek", ["CREATEDB", "membership in gone", "membership in owner_of_shop"]),
        ("clerk", ["membership in gone", "membership in owner_of_shop"]),
    ],
)
def test_rights_that_are_missing_are_named_before_anything_is_read(
    role: str, told: list[str], running: Server, store_dir: Path
) -> None:
    """The role of a backup reads everything and may restore nothing; doctor says so."""
    manifest = back_up(as_role(running, role), store_dir).manifest
    (store_dir / manifest.object("dump").key).unlink()

    with pytest.raises(DatabaseError, match="cannot be restored here") as caught:
        attempt(running, store_dir, role)

    assert caught.value.details["missing"] == [f"right {each}" for each in told]
    assert "restore_url" in caught.value.hint
    assert "pg_read_all_data" not in caught.value.hint


def test_a_role_that_has_them_restores(running: Server, store_dir: Path) -> None:
    """No superuser is needed for what it owns or may act as."""
    back_up(as_role(running, "clerk"), store_dir)
    execute(running.url(), "GRANT gone, owner_of_shop TO clerk")

    attempt(running, store_dir, "clerk")

    assert value(running.url("restored"), "SELECT i FROM s.t") == 1


def test_a_role_to_be_created_needs_the_right_to(
    running: Server, store_dir: Path
) -> None:
    """The server that is restored to lacks an owner of the set."""
    back_up(as_role(running, "clerk"), store_dir)
    execute(running.url(), "GRANT owner_of_shop TO clerk")
    execute(running.url("shop_of_many"), "REASSIGN OWNED BY gone TO owner_of_shop")
    execute(running.url(), "DROP ROLE gone")

    with pytest.raises(DatabaseError, match="no role gone, and clerk may not create"):
        attempt(running, store_dir, "clerk")


def test_an_extension_for_superusers_is_named(running: Server, store_dir: Path) -> None:
    """Its control file does not call it trusted."""
    execute(running.url(), "GRANT gone, owner_of_shop TO clerk")
    execute(running.url("shop_of_many"), "CREATE EXTENSION vector SCHEMA public")
    back_up(as_role(running, "clerk"), store_dir)

    with pytest.raises(DatabaseError, match="only a superuser") as caught:
        attempt(running, store_dir, "clerk")

    assert caught.value.details["missing"] == ["right extension vector"]


def test_an_older_major_is_refused_by_name(
    running: Server, server_of: MajorServer, store_dir: Path
) -> None:
    """A dump does not go back."""
    manifest = back_up(running.url("shop_of_many"), store_dir).manifest
    (store_dir / manifest.object("dump").key).unlink()

    with pytest.raises(DatabaseError, match="PostgreSQL 15, the set is from 16"):
        attempt(server_of(15), store_dir, throwaway.SUPERUSER)


def test_doctor_says_whether_the_role_can_restore(running: Server) -> None:
    """With the URL that restore would use."""
    found = databases.examine(
        "shop", as_role(running, "clerk"), programs.installations()
    )
    databases.examine_restore(found, as_role(running, "clerk"))
    databases.examine_restore(found, running.url("shop_of_many"))

    weak, strong = (e for e in found.checks if e.name.endswith("restore here"))
    assert (weak.status, strong.status) == (Health.DEGRADED, Health.HEALTHY)
    assert "may not act as it" in weak.observed
    assert "restore_url" in weak.hint
