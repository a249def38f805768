"""Drills on servers that the user names, and on ones that lack something."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from opskit.catalog.manifest import of_database
from opskit.catalog.sets import BackupSet
from opskit.errors import (
    ClientToolError,
    ConfigurationError,
    DatabaseError,
    ServerFault,
)
from opskit.postgres import scratch
from opskit.postgres.connect import connect
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.programs import Installation
from opskit.postgres.servers.throwaway import Server
from tests.conftest import MajorServer, MakeDatabase
from tests.sample import SAMPLE
from tests.support import back_up, execute, failed, run_drill, sets, value

_EXTENSION = Path(__file__).parents[1] / "kinds" / "extension"


@pytest.fixture
def one_set(make_database: MakeDatabase, store_dir: Path) -> BackupSet:
    """A set of the sample database on PostgreSQL 16."""
    back_up(make_database(16), store_dir)
    return sets(store_dir)[0]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Server]:
    """A running server of 16 that is not the one that the samples are on."""
    found = programs.find_server(programs.installations(), major=16)
    with throwaway.throwaway(found) as running:
        execute(running.url(), 'CREATE ROLE "app reader"')
        yield running


def databases(running: Server) -> set[str]:
    """Return the names of a server's databases."""
    with connect(running.url(), purpose="test") as connection:
        rows = connection.execute("SELECT datname FROM pg_database").fetchall()
    return {name for (name,) in rows}


def test_an_existing_server_is_left_as_it_was(
    one_set: BackupSet, elsewhere: Server
) -> None:
    """The scratch database is made, compared, and dropped again."""
    before = databases(elsewhere)
    seen: set[str] = set()

    evidence = run_drill(
        one_set,
        kind="existing",
        existing_url=elsewhere.url(),
        mutants=5,
        tamper=lambda _url: seen.update(databases(elsewhere) - before),
    )

    assert failed(evidence) == []
    assert evidence.figures.mutants is not None
    assert evidence.figures.mutants["kill_rate"] == 1
    assert "existing" in evidence.figures.drill_server
    assert [name.startswith("opskit_drill_") for name in seen] == [True]
    assert databases(elsewhere) == before


def test_damage_on_an_existing_server_is_found_and_the_copy_dropped(
    one_set: BackupSet, elsewhere: Server
) -> None:
    """A drill that does not pass cleans up as well."""
    before = databases(elsewhere)

    evidence = run_drill(
        one_set,
        kind="existing",
        existing_url=elsewhere.url(),
        tamper=lambda url: execute(url, "DELETE FROM public.lines WHERE n = 1"),
    )

    assert "table public.lines" in [check.name for check in failed(evidence)]
    assert databases(elsewhere) == before


def test_what_a_killed_drill_left_on_an_existing_server_is_dropped(
    one_set: BackupSet, elsewhere: Server
) -> None:
    """A copy without a drill goes; one whose drill lives stays, and a user's own."""
    dead, alive, own = (f"opskit_drill_{number:012}" for number in range(3))
    inventory = of_database(one_set.manifest).inventory
    execute(elsewhere.url(), f"CREATE DATABASE {own}")
    with connect(elsewhere.url(), purpose="a drill that was killed") as connection:
        scratch.create(connection, dead, inventory, run_id="dead01")
        pid = connection.info.backend_pid
    # A server ends a session after its client: until then the copy is in use.
    ended = f"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}"
    deadline = time.monotonic() + 60
    while not value(elsewhere.url(), ended) and time.monotonic() < deadline:
        time.sleep(0.05)
    with connect(elsewhere.url(), purpose="a drill that lives") as connection:
        scratch.create(connection, alive, inventory, run_id="alive1")
        run_drill(one_set, kind="existing", existing_url=elsewhere.url())
        left = databases(elsewhere)
    for name in (alive, own):
        execute(elsewhere.url(), f"DROP DATABASE {name}")

    assert dead not in left
    assert {alive, own} <= left


def test_the_source_itself_is_refused(
    one_set: BackupSet, server_of: MajorServer
) -> None:
    """A drill on the source's own server has to be asked for."""
    url = server_of(16).url()

    with pytest.raises(ConfigurationError, match="the very server") as caught:
        run_drill(one_set, kind="existing", existing_url=url)
    evidence = run_drill(
        one_set, kind="existing", existing_url=url, on_source_server=True
    )

    assert "on_source_server = true" in caught.value.hint
    assert failed(evidence) == []
    assert "the source's own" in evidence.figures.drill_server


def test_an_existing_server_needs_an_address(one_set: BackupSet) -> None:
    """Without one, the key to set is named."""
    with pytest.raises(ConfigurationError, match="needs the address") as caught:
        run_drill(one_set, kind="existing")

    assert "existing_url" in caught.value.hint


def test_an_older_existing_server_is_refused(
    make_database: MakeDatabase, store_dir: Path, elsewhere: Server
) -> None:
    """A dump does not go back to an older major, whatever is accepted."""
    back_up(make_database(18), store_dir)

    with pytest.raises(ClientToolError, match="PostgreSQL 16, the set is from 18"):
        run_drill(
            sets(store_dir)[0],
            kind="existing",
            existing_url=elsewhere.url(),
            accept_newer_major=True,
        )


def test_a_newer_major_must_be_accepted(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Where only a newer major is at hand the drill says so, and runs if it may."""
    back_up(make_database(15), store_dir)
    newer = [each for each in programs.installations() if each.major == 16]

    with pytest.raises(ClientToolError) as caught:
        run_drill(sets(store_dir)[0], installations=newer)
    evidence = run_drill(
        sets(store_dir)[0], installations=newer, accept_newer_major=True, mutants=5
    )

    assert "accept_newer_major = true" in caught.value.hint
    assert failed(evidence) == []
    assert "newer than the source's 15" in evidence.figures.drill_server


def test_a_role_that_an_existing_server_lacks_is_named(
    make_database: MakeDatabase, store_dir: Path, elsewhere: Server
) -> None:
    """It is said before anything is restored; allowed by name, owners go unchecked."""
    url = make_database(16, script=f"{SAMPLE}; CREATE ROLE test_owner")
    execute(url, "ALTER TABLE public.orders OWNER TO test_owner")
    execute(url, "ALTER TABLE public.lines ENABLE ROW LEVEL SECURITY")
    execute(url, "CREATE POLICY own ON public.lines TO test_owner USING (n > 1)")
    try:
        back_up(url, store_dir)
    finally:
        execute(url, "DROP OWNED BY test_owner CASCADE; DROP ROLE test_owner")
    (chosen,) = sets(store_dir)
    where: dict[str, Any] = {"kind": "existing", "existing_url": elsewhere.url()}

    with pytest.raises(DatabaseError, match="belong to the role test_owner") as caught:
        run_drill(chosen, **where)
    evidence = run_drill(chosen, allowed=["role test_owner"], **where)

    assert 'allow = ["role test_owner"]' in caught.value.hint
    assert [check.name for check in failed(evidence)] == []
    unmade = {each.name for each in evidence.not_checked}
    assert {
        "role test_owner, owners and grants, properties of the database",
        "objects by name and state",
    } <= unmade


@contextmanager
def with_extension(folder: Path, versions: set[str]) -> Iterator[Installation]:
    """Yield a copy of PostgreSQL 16 that has the test's extension in these versions."""
    found = programs.find_server(programs.installations(), major=16, kind="embedded")
    bin_dir = programs.copy_programs(found.bin_dir, folder)
    (share,) = {path.parent for path in bin_dir.parent.rglob("plpgsql.control")}
    for path in _EXTENSION.iterdir():
        kept = path.suffix == ".control" or path.stem.split("--", 1)[1] in versions
        if kept:
            shutil.copy(path, share / path.name)
    if "1.0--1.1" not in versions:
        control = share / "kinds_config.control"
        control.write_text(control.read_text().replace("'1.1'", "'1.0'"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o055)
    yield Installation(bin_dir=bin_dir, version=found.version, major=16, embedded=False)


@pytest.fixture
def extended(tmp_path: Path) -> Iterator[Path]:
    """A folder that the user of a throw-away server can enter."""
    folder = Path(tempfile.mkdtemp(prefix="opskit-extended-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _extension_set(folder: Path, store_dir: Path, version: str) -> BackupSet:
    """Back up a database that uses the extension in one version."""
    with (
        with_extension(folder / "source", {"1.0", "1.0--1.1"}) as source,
        throwaway.throwaway(source) as running,
    ):
        execute(running.url(), "CREATE DATABASE shop")
        url = running.url("shop")
        execute(
            url,
            f"{SAMPLE}; CREATE SCHEMA k; "
            f"CREATE EXTENSION kinds_config SCHEMA k VERSION '{version}'",
        )
        back_up(url, store_dir)
    return sets(store_dir)[0]


def test_an_extension_comes_back_in_the_version_of_the_source(
    extended: Path, store_dir: Path
) -> None:
    """The server would install its newest; the set names an older one."""
    chosen = _extension_set(extended, store_dir, "1.0")

    with with_extension(extended / "drill", {"1.0", "1.0--1.1"}) as drill_server:
        evidence = run_drill(chosen, installations=[drill_server], mutants=5)

    assert failed(evidence) == []
    (check,) = [each for each in evidence.checks if each.name == "extensions"]
    assert "kinds_config 1.0" in check.observed


def test_a_missing_extension_is_said_before_the_restore(
    extended: Path, store_dir: Path
) -> None:
    """Nothing is restored, and what to do is named; it is no verdict on the set."""
    chosen = _extension_set(extended, store_dir, "1.1")

    with pytest.raises(DatabaseError, match="no extension kinds_config") as caught:
        run_drill(chosen)

    assert 'allow = ["extension kinds_config"]' in caught.value.hint
    assert "extension kinds_config" in str(caught.value.details["missing"])


def test_a_missing_extension_may_be_allowed_by_name(
    extended: Path, store_dir: Path
) -> None:
    """The rest is compared, and what was not checked is said; damage is found still."""
    chosen = _extension_set(extended, store_dir, "1.1")

    evidence = run_drill(chosen, allowed=["extension kinds_config"], mutants=5)
    damaged = run_drill(
        chosen,
        allowed=["extension kinds_config"],
        tamper=lambda url: execute(url, "DELETE FROM public.lines WHERE n = 1"),
    )

    assert failed(evidence) == []
    assert "extension kinds_config and all that depends on it" in {
        each.name for each in evidence.not_checked
    }
    assert "table public.lines" in {each.name for each in failed(damaged)}


def test_an_extension_in_another_version_may_be_allowed_by_name(
    extended: Path, store_dir: Path
) -> None:
    """The server has 1.0 alone where the set needs 1.1."""
    chosen = _extension_set(extended, store_dir, "1.1")

    with with_extension(extended / "drill", {"1.0"}) as drill_server:
        with pytest.raises(DatabaseError, match=r"offers only 1\.0") as caught:
            run_drill(chosen, installations=[drill_server])
        evidence = run_drill(
            chosen,
            installations=[drill_server],
            allowed=["extension-version kinds_config"],
        )

    assert "extension-version kinds_config" in caught.value.hint
    assert failed(evidence) == []
    assert "version of the extension kinds_config" in {
        each.name for each in evidence.not_checked
    }


def test_a_locale_that_is_missing_is_named(
    one_set: BackupSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database in a locale that the machine lacks is told before the restore."""
    inventory = of_database(one_set.manifest).inventory
    locale = inventory.locale.model_copy(update={"collate": "xx_XX.UTF-8"})
    monkeypatch.setitem(vars(inventory), "locale", locale)

    with pytest.raises(DatabaseError, match="no locale xx_XX"):
        run_drill(one_set)
    evidence = run_drill(one_set, allowed=["locale xx_XX.UTF-8"])

    assert failed(evidence) == []
    assert "locale and order of the database" in {e.name for e in evidence.not_checked}


def test_the_text_of_a_value_does_not_depend_on_the_copy(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Other defaults of server, database and role change how values print, not proof."""
    url = make_database(16)
    execute(
        url,
        """
        CREATE TABLE public.printed (a timestamptz, b interval, c float8, d bytea,
            e date, f money, g text);
        INSERT INTO public.printed VALUES ('2026-03-04 05:06:07+02', '1 mon -3 days',
            0.1::float8 / 3, '\\xdeadbeef', '2026-03-04', 1234.56, E'a\\\\b''c');
        """,
    )
    back_up(url, store_dir)
    other = {
        "DateStyle": "German",
        "IntervalStyle": "iso_8601",
        "TimeZone": "Asia/Tokyo",
        "bytea_output": "escape",
        "extra_float_digits": "-10",
        "standard_conforming_strings": "off",
        "search_path": "other",
        "row_security": "on",
        "client_encoding": "LATIN1",
        "quote_all_identifiers": "on",
    }
    rows = of_database(sets(store_dir)[0].manifest).rows

    def set_everywhere(copy_url: str) -> None:
        name = value(copy_url, "SELECT quote_ident(current_database())")
        for key, each in other.items():
            execute(copy_url, f"ALTER DATABASE {name} SET {key} = '{each}'")
            execute(copy_url, f"ALTER ROLE CURRENT_USER SET {key} = '{each}'")

    evidence = run_drill(
        sets(store_dir)[0],
        settings={k: v for k, v in other.items() if k != "client_encoding"},
        tamper=set_everywhere,
        mutants=5,
    )

    names = {check.name for check in failed(evidence)}
    assert {each for each in names if each.startswith(("table", "sequence"))} == set()
    assert any("DATABASE PROPERTIES" in each for each in names)
    assert rows > 0


def test_a_collation_that_is_missing_may_be_allowed_by_name(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """A plain one stands in for it; what it orders is compared all the same."""
    source = make_database(15)
    execute(
        source,
        """CREATE COLLATION public.german (provider = icu, locale = 'de');
        CREATE TABLE public.words (v text COLLATE public.german PRIMARY KEY,
            w varchar(5) CHECK (w IN ('a', 'b')));
        INSERT INTO public.words VALUES ('ä', 'a'), ('b', 'b')""",
    )
    back_up(source, store_dir)
    (chosen,) = sets(store_dir)
    options: dict[str, Any] = {"kind": "embedded", "accept_newer_major": True}

    with pytest.raises(DatabaseError, match="icu locale de"):
        run_drill(chosen, **options)
    allowed = ["collation public.german"]
    evidence = run_drill(chosen, allowed=allowed, mutants=3, **options)
    damaged = run_drill(
        chosen,
        allowed=allowed,
        tamper=lambda url: execute(url, "DELETE FROM public.words WHERE w = 'a'"),
        **options,
    )

    assert failed(evidence) == []
    assert "collation public.german" in {each.name for each in evidence.not_checked}
    assert "table public.words" in {each.name for each in failed(damaged)}


def test_an_existing_server_needs_a_superuser(
    one_set: BackupSet, elsewhere: Server
) -> None:
    """Others cannot restore what belongs to anybody; it is no verdict on the set."""
    execute(elsewhere.url(), "CREATE ROLE test_maker LOGIN CREATEDB")
    url = elsewhere.url().replace(f"{throwaway.SUPERUSER}@", "test_maker@")

    with pytest.raises(ConfigurationError, match="no superuser"):
        run_drill(one_set, kind="existing", existing_url=url)


def test_a_role_that_differs_is_named_before_the_restore(
    make_database: MakeDatabase, store_dir: Path, elsewhere: Server
) -> None:
    """On an existing server it may be allowed; its attributes then go unchecked."""
    url = make_database(16)
    execute(url, "CREATE ROLE test_differs LOGIN CONNECTION LIMIT 5")
    execute(url, "GRANT SELECT ON public.lines TO test_differs")
    execute(elsewhere.url(), "CREATE ROLE test_differs NOLOGIN")
    try:
        back_up(url, store_dir)
    finally:
        execute(url, "DROP OWNED BY test_differs; DROP ROLE test_differs")
    (chosen,) = sets(store_dir)
    where: dict[str, Any] = {"kind": "existing", "existing_url": elsewhere.url()}

    with pytest.raises(DatabaseError, match="differs in login, connection_limit"):
        run_drill(chosen, **where)
    evidence = run_drill(chosen, allowed=["role-attributes test_differs"], **where)

    assert failed(evidence) == []
    assert "attributes of the role test_differs" in {
        e.name for e in evidence.not_checked
    }


def test_memberships_are_compared_across_majors(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """PostgreSQL 16 knows more of a membership than 15 does: no difference."""
    url = make_database(15)
    execute(url, "CREATE ROLE test_group; CREATE ROLE test_member IN ROLE test_group")
    try:
        back_up(url, store_dir)
    finally:
        execute(url, "DROP ROLE test_member; DROP ROLE test_group")
    newer = [each for each in programs.installations() if each.major == 16]

    evidence = run_drill(
        sets(store_dir)[0], installations=newer, accept_newer_major=True
    )
    lost = run_drill(
        sets(store_dir)[0],
        installations=newer,
        accept_newer_major=True,
        tamper=lambda copy: execute(copy, "REVOKE test_group FROM test_member"),
    )

    assert failed(evidence) == []
    assert [check.name for check in failed(lost)] == ["roles"]


def test_statements_of_ones_own_are_bounded(one_set: BackupSet) -> None:
    """One that hangs ends the drill with the timeout, and says nothing of the set."""
    with pytest.raises(DatabaseError, match="took longer than 4 seconds"):
        run_drill(one_set, sql_before=["SELECT pg_sleep(120)"], timeout_seconds=4)


def test_a_statement_before_the_set_that_is_refused_is_no_verdict_on_it(
    one_set: BackupSet,
) -> None:
    """It runs in an empty database: the configuration is to blame."""
    with pytest.raises(ServerFault, match="sql_before failed"):
        run_drill(one_set, sql_before=["SELEC 1"])


def test_statements_of_ones_own_run_in_the_copy(one_set: BackupSet) -> None:
    """Before and after the load; what they leave there is compared as well."""
    evidence = run_drill(
        one_set,
        sql_before=["CREATE TABLE public.before (a int)"],
        sql_after=["DROP TABLE public.before", "CREATE TABLE public.after (a int)"],
    )

    names = {check.name for check in failed(evidence)}
    assert "definition of TABLE public.after" in names
    assert "definition of TABLE public.before" not in names
