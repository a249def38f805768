"""Owners that are no superusers any more, of what only superusers may own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from opskit.errors import DatabaseError
from tests.conftest import MajorServer, MakeDatabase
from tests.integration.test_restore import run_restore
from tests.support import back_up, execute, failed, run_drill, sets, value

_MADE = """
SET ROLE {role};
CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql
    AS $$ BEGIN END $$;
CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION public.watch();
CREATE FOREIGN DATA WRAPPER wrapping;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER wrapping;
RESET ROLE;
CREATE TABLE public.t (i int);
INSERT INTO public.t VALUES (1)
"""


@pytest.fixture(params=[16, 15])
def source(
    request: pytest.FixtureRequest, make_database: MakeDatabase, server_of: MajorServer
) -> Iterator[tuple[int, str]]:
    """A database whose event trigger and wrapper are those of a former superuser."""
    major = request.param
    execute(server_of(major).url(), "CREATE ROLE former SUPERUSER")
    url = make_database(major, _MADE.format(role="former"))
    execute(url, "ALTER ROLE former NOSUPERUSER")
    yield major, url
    execute(url, "DROP OWNED BY former CASCADE")
    execute(url, "DROP ROLE former")


def test_a_drill_gives_the_roles_their_attributes_afterwards(
    source: tuple[int, str], store_dir: Path
) -> None:
    """Everything is made with its owners, and the roles are as in the source."""
    back_up(source[1], store_dir)

    evidence = run_drill(sets(store_dir)[0])

    assert failed(evidence) == []
    assert evidence.passed
    assert "roles" in [check.name for check in evidence.checks]


def test_a_restore_names_them_before_it_loads_anything(
    source: tuple[int, str], server_of: MajorServer, store_dir: Path
) -> None:
    """It says what to do; no database and no role was made."""
    major, url = source
    back_up(url, store_dir)

    with pytest.raises(DatabaseError) as caught:
        run_restore(sets(store_dir)[0], server_of(major), "owned")

    assert caught.value.details["missing"] == [
        "FOREIGN DATA WRAPPER wrapping",
        "EVENT TRIGGER watching",
    ]
    assert 'ALTER ROLE "former" SUPERUSER' in caught.value.hint
    left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'owned%'"
    assert value(server_of(major).url(), left) == 0
