"""Every kind of content: proved exactly, and every alteration of it noticed and named."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from opskit.catalog.manifest import of_database
from opskit.catalog.sets import BackupSet
from opskit.postgres.connect import connect, quoted
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.programs import Installation
from opskit.postgres.servers.throwaway import Server
from opskit.restore.run import RestoreRequest, restore
from tests import kinds
from tests.conftest import MakeDatabase, majors
from tests.kinds.alterations import PLACES, ROLES, alterations
from tests.kinds.databases import OTHER_DATABASES, STUBBORN_DATABASES, OtherDatabase
from tests.kinds.installation import with_extension
from tests.support import LIMITS, back_up, failed, now, run_drill, sets

_MUTANTS = 150
_OTHERS = (*OTHER_DATABASES, *STUBBORN_DATABASES)
_DATABASE = "kinds"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A server with the roles, tablespaces and extension that the databases need."""

    running: Server
    installation: Installation
    have: list[str]

    @property
    def major(self) -> int:
        """The server's major."""
        return self.installation.major

    def create(self, name: str, options: str) -> str:
        """Create a database and return its URL."""
        with connect(self.running.url(), purpose="test") as connection:
            identifier = quoted(name)
            connection.execute(
                f"CREATE DATABASE {identifier} TEMPLATE template0 {options}".encode()
            )
        return self.running.url(name)


@contextmanager
def _cluster(major: int) -> Iterator[Cluster]:
    """Yield a server of a major."""
    found = programs.find_server(programs.installations(), major=major)
    folder = Path(tempfile.mkdtemp(prefix="opskit-kinds-"))
    folder.chmod(0o755)
    try:
        installation = with_extension(found, folder)
        with throwaway.throwaway(installation) as running:
            with connect(running.url(), purpose="test") as connection:
                row = connection.execute(kinds.CAPABILITIES_SQL.encode()).fetchone()
                assert row is not None
                for each in (*kinds.CLUSTER_STATEMENTS, *kinds.tablespace_statements()):
                    connection.execute(each.encode())
            yield Cluster(running=running, installation=installation, have=row[0])
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=majors())
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A server of each major."""
    with _cluster(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def every_kind(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> BackupSet:
    """A backup set of the database of every kind."""
    url = cluster.create(_DATABASE, "LOCALE 'C' ENCODING 'UTF8'")
    store_dir = tmp_path_factory.mktemp("kinds") / "store"
    store_dir.mkdir()
    with connect(url, purpose="test") as connection:
        connection.execute(kinds.script(cluster.major, cluster.have).encode())
    back_up(url, store_dir, installations=[cluster.installation])
    return sets(store_dir)[0]


def test_every_kind_comes_back_and_mutants_are_noticed(
    cluster: Cluster, every_kind: BackupSet
) -> None:
    """Nothing differs, and of many mutants none survives."""
    evidence = run_drill(
        every_kind, installations=[cluster.installation], mutants=_MUTANTS
    )

    assert failed(evidence) == []
    assert evidence.not_checked == []
    assert len(of_database(every_kind.manifest).tables) > 150
    assert evidence.figures.mutants is not None
    assert evidence.figures.mutants["survivors"] == []
    assert evidence.figures.mutants["planted"] == _MUTANTS
    print(
        f"PostgreSQL {cluster.major}: {evidence.figures.mutants['killed']} mutants noticed"
    )


def test_every_alteration_is_noticed_and_named(
    cluster: Cluster, every_kind: BackupSet
) -> None:
    """Each item, taken away or altered in the copy, is named by a failed check."""
    wanted = alterations(
        cluster.major,
        cluster.have,
        database=_DATABASE,
        areas=(*kinds.AREAS, PLACES, ROLES),
    )

    def alter(url: str) -> None:
        with connect(url, purpose="test") as connection:
            for each in wanted:
                connection.execute(each.sql.encode())

    evidence = run_drill(every_kind, installations=[cluster.installation], tamper=alter)

    told = [f"{check.name} {check.detail}" for check in failed(evidence)]
    missed = [
        f"{each.area}: {each.name} ({each.noticed_by})"
        for each in wanted
        if not any(each.is_named_in(words) for words in told)
    ]
    assert missed == []
    assert len(wanted) > 400


def test_every_kind_is_restored_into_a_real_server(
    cluster: Cluster, every_kind: BackupSet, tmp_path: Path
) -> None:
    """A restore beside the source compares exactly as well."""
    result = restore(
        RestoreRequest(
            run_id="abc123",
            chosen=every_kind,
            server_url=cluster.running.url(),
            target="kinds restored",
            installations=[cluster.installation],
            limits=replace(LIMITS, work_dir=tmp_path),
        ),
        clock=now,
    )

    assert result.tables == len(of_database(every_kind.manifest).tables)
    assert result.rows == of_database(every_kind.manifest).rows
    assert all(check.passed for check in result.checks)


@dataclass(frozen=True)
class _Clusters:
    """The servers of all majors; those that have a capability come first."""

    running: list[Cluster]

    def one_for(self, number: int, other: OtherDatabase) -> Cluster:
        """Return a server that can hold a database, another one for each number."""
        able = [each for each in self.running if other.fits(each.major, each.have)]
        if not able:
            pytest.skip("no server that is built here can hold it")
        return able[number % len(able)]


@pytest.fixture(scope="module")
def clusters() -> Iterator[_Clusters]:
    """A server of each major, all at once."""
    with ExitStack() as stack:
        yield _Clusters([stack.enter_context(_cluster(major)) for major in majors()])


@pytest.mark.parametrize(
    ("number", "other"),
    list(enumerate(_OTHERS)),
    ids=lambda each: getattr(each, "name", ""),
)
def test_other_databases_come_back_and_alterations_are_noticed(
    clusters: _Clusters, number: int, other: OtherDatabase, store_dir: Path
) -> None:
    """Other encodings, locales and stubborn settings raise no false alarm."""
    cluster = clusters.one_for(number, other)
    url = cluster.create(other.name, other.options)
    with connect(url, purpose="test") as connection:
        connection.execute(other.script.encode(connection.info.encoding))
    back_up(url, store_dir, installations=[cluster.installation])
    (chosen,) = sets(store_dir)

    def alter(copy_url: str) -> None:
        with connect(copy_url, purpose="test") as connection:
            connection.execute(other.altered.encode(connection.info.encoding))

    clean = run_drill(chosen, installations=[cluster.installation], mutants=4)
    altered = run_drill(chosen, installations=[cluster.installation], tamper=alter)

    assert failed(clean) == []
    told = [f"{check.name} {check.detail}" for check in failed(altered)]
    assert any(other.noticed_by in words for words in told)


def test_what_is_left_out_is_no_difference(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Excluded tables and excluded rows are not missed in the copy."""
    url = make_database(
        16,
        script="""CREATE TABLE public.keep (a serial PRIMARY KEY);
        CREATE TABLE public.skip_me (a serial PRIMARY KEY);
        CREATE TABLE public.nodata (a int); INSERT INTO public.nodata VALUES (1);
        INSERT INTO public.keep DEFAULT VALUES""",
    )
    back_up(
        url,
        store_dir,
        exclude_tables=["skip*"],
        exclude_table_data=["public.nodata"],
    )
    (chosen,) = sets(store_dir)

    assert failed(run_drill(chosen, mutants=5)) == []
    assert {"keep"} == {table.name for table in of_database(chosen.manifest).tables}
