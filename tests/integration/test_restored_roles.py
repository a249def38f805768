"""A restore makes the roles that it needs, with the rights that the restoring role has."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from opskit.postgres.servers import programs, throwaway
from tests import initialised
from tests.integration.test_ability import attempt
from tests.integration.test_restore import run_restore
from tests.support import back_up, execute, failed, run_drill, sets, value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opskit.postgres.servers.programs import Installation
    from opskit.postgres.servers.throwaway import Server

# Somebody who is no superuser made the roles and granted them.
ROLES = """
CREATE ROLE maker CREATEROLE LOGIN;
SET ROLE maker;
CREATE ROLE app CREATEROLE;
CREATE ROLE readers;
CREATE ROLE alice LOGIN PASSWORD 'alice''s';
CREATE ROLE unrelated LOGIN;
GRANT readers, app, unrelated TO alice;
RESET ROLE;
CREATE ROLE root_too SUPERUSER LOGIN;
ALTER ROLE app BYPASSRLS;
ALTER ROLE alice REPLICATION;
GRANT app TO root_too;
"""
OBJECTS = """
CREATE TABLE public.t (id int);
INSERT INTO public.t VALUES (1), (2);
ALTER TABLE public.t OWNER TO readers;
CREATE SCHEMA app AUTHORIZATION app;
CREATE TABLE app.other (id int);
ALTER TABLE app.other OWNER TO app;
"""


@pytest.fixture(scope="module", params=[15, 18])
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Installation, Path]:
    """The programs of a major, and a store with the set of a server of it."""
    found = programs.find_server(programs.installations(), major=request.param)
    store = tmp_path_factory.mktemp("source") / "store"
    store.mkdir()
    with throwaway.throwaway(found) as running:
        execute(running.url(), ROLES)
        execute(running.url(), "CREATE DATABASE shop OWNER readers")
        execute(running.url("shop"), OBJECTS)
        back_up(running.url("shop"), store)
    return found, store


@pytest.fixture
def target(source: tuple[Installation, Path], store_dir: Path) -> Iterator[Server]:
    """A new server, and in the store the set of another one."""
    found, store = source
    shutil.copytree(store, store_dir, dirs_exist_ok=True)
    with initialised.copied(), throwaway.throwaway(found) as running:
        yield running


NAMES = (
    "SELECT array_agg(rolname::text ORDER BY rolname) FROM pg_roles WHERE oid > 16383"
)


def test_only_roles_that_are_needed_are_made(target: Server, store_dir: Path) -> None:
    """Owners and their members; no superuser, and nobody's other groups."""
    result = run_restore(sets(store_dir)[0], target, "restored")

    # Since 16 whoever makes a role is a member of it.
    maker = ["maker"] if target.installation.major >= 16 else []
    assert list(result.roles_created) == ["alice", "app", *maker, "readers"]
    assert value(target.url(), NAMES) == list(result.roles_created)
    assert value(target.url(), "SELECT pg_has_role('alice', 'readers', 'MEMBER')")


def test_a_single_table_needs_the_roles_that_it_names(
    target: Server, store_dir: Path
) -> None:
    """What another table belongs to is not made for it."""
    run_restore(sets(store_dir)[0], target, "restored", tables=(("public", "t"),))

    assert "app" not in value(target.url(), NAMES)


def test_an_existing_role_becomes_a_member_of_a_new_one(
    target: Server, store_dir: Path
) -> None:
    """Whoever granted that in the source exists too, and has no right to here."""
    execute(target.url(), "CREATE ROLE alice; CREATE ROLE maker")

    result = run_restore(sets(store_dir)[0], target, "restored")

    assert result.roles_created == ("app", "readers")
    assert value(target.url(), "SELECT pg_has_role('alice', 'readers', 'MEMBER')")
    assert not value(
        target.url(), "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'alice'"
    )


def test_a_role_that_is_no_superuser_makes_them(
    target: Server, store_dir: Path
) -> None:
    """It says nothing of rights that only a superuser gives, and hands objects over."""
    execute(
        target.url(), "CREATE ROLE app; CREATE ROLE clerk CREATEDB CREATEROLE LOGIN"
    )
    execute(target.url(), "GRANT app TO clerk WITH ADMIN OPTION")

    attempt(target, store_dir, "clerk")

    owner = "SELECT tableowner::text FROM pg_tables WHERE tablename = 't'"
    assert value(target.url("restored"), owner) == "readers"
    assert value(target.url(), "SELECT pg_has_role('alice', 'readers', 'MEMBER')")


def test_a_drill_makes_all_of_them(target: Server, store_dir: Path) -> None:
    """Each with its memberships, by whoever granted them."""
    evidence = run_drill(sets(store_dir)[0])

    assert evidence.passed, failed(evidence)
