"""Extensions that may only be made in the database that a server's setting names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from opskit.catalog.manifest import of_database
from opskit.errors import DatabaseError
from opskit.postgres import extensions
from opskit.postgres.connect import connect
from opskit.postgres.parameters import with_database
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.programs import Installation
from opskit.postgres.servers.throwaway import Server
from tests.conftest import majors
from tests.integration.test_restore import run_restore
from tests.kinds.installation import with_extension
from tests.support import back_up, execute, failed, run_drill, sets, value
from tests.unit import stock

_NAMES = "SELECT string_agg(format('%s %s', oid, datname), ',' ORDER BY oid) FROM pg_database"


@dataclass(frozen=True)
class Bound:
    """Such an extension, and what a server needs for it."""

    installation: Installation
    settings: dict[str, str]
    script: str
    jobs: str
    drill_settings: dict[str, str]


def _own(folder: Path) -> Bound:
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    found = programs.find_server(programs.installations(), major=18)
    settings = {"kinds.database_name": "live"}
    return Bound(
        installation=with_extension(found, folder),
        settings=settings,
        script="CREATE EXTENSION kinds_bound SCHEMA public; "
        "INSERT INTO public.bound_job (command) VALUES ('VACUUM')",
        jobs="public.bound_job",
        drill_settings=settings,
    )


def _pg_cron() -> Bound:
    if 15 not in majors():
        stock.missing("postgresql-15-cron")
    found = programs.find_server(programs.installations(), major=15)
    if not (found.folder("sharedir") / "extension" / "pg_cron.control").exists():
        stock.missing("postgresql-15-cron")
    return Bound(
        installation=found,
        settings={
            "shared_preload_libraries": "pg_cron",
            "cron.database_name": "live",
        },
        script="CREATE EXTENSION pg_cron SCHEMA pg_catalog; "
        "SELECT cron.schedule('nightly', '10 3 * * *', 'VACUUM')",
        jobs="cron.job",
        drill_settings={},
    )


@pytest.fixture(scope="module", params=["kinds_bound", "pg_cron"])
def bound(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Bound:
    """One of such extensions."""
    if request.param == "pg_cron":
        return _pg_cron()
    return _own(tmp_path_factory.mktemp("bound"))


@pytest.fixture(scope="module")
def running(bound: Bound) -> Iterator[Server]:
    """A server that names the database `live`."""
    with throwaway.throwaway(bound.installation, settings=bound.settings) as found:
        yield found


@pytest.fixture
def live(bound: Bound, running: Server) -> Iterator[str]:
    """The database that the server names, with a job."""
    execute(running.url(), "CREATE DATABASE live")
    url = with_database(running.url(), "live")
    execute(
        url,
        "CREATE TABLE public.t (i int); INSERT INTO public.t VALUES (1); "
        f"CREATE VIEW public.seen AS SELECT 1 AS a; {bound.script}",
    )
    yield url
    with connect(running.url(), purpose="test") as connection:
        for (name,) in connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE 'live%'"
        ).fetchall():
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_it_is_restored_under_another_name(
    bound: Bound, live: str, running: Server, store_dir: Path
) -> None:
    """With its jobs, while the database of that name is in use and keeps its name."""
    back_up(live, store_dir)
    before = value(live, _NAMES)

    restored = run_restore(sets(store_dir)[0], running, "live_again")

    there = with_database(running.url(), "live_again")
    assert restored.without == ()
    assert value(there, f"SELECT count(*) FROM {bound.jobs}") == 1
    assert value(live, _NAMES).startswith(before)


def test_it_replaces_the_database_that_has_the_name(
    bound: Bound, live: str, running: Server, store_dir: Path
) -> None:
    """The new one has the jobs of the set, the old one is kept."""
    back_up(live, store_dir)
    execute(live, f"UPDATE {bound.jobs} SET command = 'lost'; DELETE FROM public.t")

    restored = run_restore(sets(store_dir)[0], running, "live", replace=True)

    assert restored.without == ()
    assert value(live, f"SELECT command FROM {bound.jobs}") == "VACUUM"
    assert value(live, "SELECT count(*) FROM public.t") == 1
    kept = with_database(running.url(), str(restored.replaced))
    assert value(kept, f"SELECT command FROM {bound.jobs}") == "lost"


def test_the_other_name_is_nobody_elses(live: str, running: Server) -> None:
    """Sessions come to the database in use meanwhile; what fails leaves no trace."""
    before = value(live, _NAMES)
    with (
        suppress(ZeroDivisionError),
        connect(running.url(), purpose="test") as connection,
        extensions.under_name(connection, "live"),
    ):
        shown = connection.execute("SELECT current_database()").fetchone()
        meanwhile = value(live, "SELECT current_database()"), value(live, _NAMES)
        raise ZeroDivisionError

    assert shown == ("live",)
    assert meanwhile == ("live", before)
    assert value(live, _NAMES) == before


def test_it_is_drilled(bound: Bound, live: str, store_dir: Path) -> None:
    """The drill's server names whichever database it will."""
    back_up(live, store_dir)

    evidence = run_drill(
        sets(store_dir)[0],
        installations=[bound.installation, *programs.installations()],
        settings=bound.drill_settings,
    )

    assert failed(evidence) == []
    assert [each.name for each in evidence.not_checked] == ["mutants"]


def test_without_it_everything_else_is_restored(
    bound: Bound, live: str, store_dir: Path
) -> None:
    """The flag that the message gives does it, and what is lost is named."""
    back_up(live, store_dir)
    (chosen,) = sets(store_dir)
    name = next(
        each.name
        for each in of_database(chosen.manifest).inventory.extensions
        if each.name != "plpgsql"
    )
    with throwaway.throwaway(bound.installation) as other:
        with pytest.raises(DatabaseError) as refused:
            run_restore(chosen, other, "live")
        (what,) = refused.value.hint.split("--accept-failures '")[1:]
        accepted = what.removesuffix("'")
        restored = run_restore(chosen, other, "live", accepted=[accepted])

        assert accepted.split()[1] == name
        assert accepted in restored.without
        assert value(with_database(other.url(), "live"), "TABLE public.t") == 1
