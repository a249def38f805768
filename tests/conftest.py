"""Real servers for the tests: one of each major or make for the whole run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog

from opskit import log
from opskit.postgres import database
from opskit.postgres.connect import connect, quoted
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.programs import Installation
from opskit.postgres.servers.throwaway import Server
from tests import initialised, s3_servers
from tests import service as services_of_tests
from tests.s3_servers import S3Server
from tests.sample import SAMPLE
from tests.service import Service, Services

# Before anything imports it: tests of real servers share the suite.
pytest.register_assert_rewrite("tests.unit.store_contract")

MajorServer = Callable[[int], Server]
MakeDatabase = Callable[..., str]
_numbers = itertools.count(1)
_MADE = (
    b"SELECT datname FROM pg_database WHERE datname <> 'postgres' AND NOT datistemplate"
)


def majors() -> list[int]:
    """Return the majors that a server of can be run here."""
    found = programs.installations()
    return sorted({each.major for each in found if each.has(programs.SERVER_PROGRAMS)})


@pytest.fixture(scope="session")
def installations() -> list[Installation]:
    """The PostgreSQL programs on this machine."""
    return programs.installations()


@pytest.fixture(scope="session")
def shared_servers() -> dict[int, Server]:
    """The servers that `server_of` has started, by their major."""
    return {}


@pytest.fixture(scope="session")
def server_of(
    installations: list[Installation], shared_servers: dict[int, Server]
) -> Iterator[MajorServer]:
    """Return a function that gives a running server of a major, started once."""
    running = shared_servers
    with ExitStack() as stack:

        def get(major: int) -> Server:
            if major not in running:
                found = programs.find_server(installations, major=major)
                running[major] = stack.enter_context(throwaway.throwaway(found))
            return running[major]

        yield get


@pytest.fixture(scope="session", autouse=True)
def _initialised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let drills copy what initdb made for an earlier one."""
    # Here pytest removes what a run that was killed could not.
    with initialised.remembered(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture(autouse=True)
def _belongs_to_no_run() -> Iterator[None]:
    """A test leaves neither its secrets nor its id to the next one."""
    yield
    log._run.set(None)
    structlog.reset_defaults()


@pytest.fixture(scope="module", autouse=True)
def _no_database_stays(shared_servers: dict[int, Server]) -> Iterator[None]:
    """The tests of a file find none that those of another left on a shared server."""
    yield
    for running in shared_servers.values():
        with connect(running.url(), purpose="test") as connection:
            for (name,) in connection.execute(_MADE).fetchall():
                database.drop(connection, name)


@pytest.fixture
def make_database(server_of: MajorServer) -> Iterator[MakeDatabase]:
    """Return a function that creates a database with sample data and gives its URL."""
    made: list[tuple[Server, str]] = []

    def make(major: int = 16, script: str = SAMPLE) -> str:
        running = server_of(major)
        name = f"test {next(_numbers)}"
        with connect(running.url(), purpose="test") as connection:
            database.run_script(connection, f"CREATE DATABASE {quoted(name)}")
        made.append((running, name))
        url = running.url(name)
        with connect(url, purpose="test") as connection:
            database.run_script(connection, script)
        return url

    yield make
    for running, name in made:
        with connect(running.url(), purpose="test") as connection:
            database.drop(connection, name)


# Tests keep apart on these servers by a prefix, or a bucket, of their own.
@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS with two buckets, one with object lock."""
    with s3_servers.with_buckets("seaweedfs", tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto with two buckets, one with object lock."""
    with s3_servers.with_buckets("moto", tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Rclone with a bucket."""
    with s3_servers.with_buckets("rclone", tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def services(
    installations: list[Installation], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """What starts services, on a PostgreSQL and a Redis of their own."""
    found = programs.find_server(installations, major=16)
    with services_of_tests.redis() as redis, throwaway.throwaway(found) as server:
        folder = tmp_path_factory.mktemp("services")
        yield Services(folder=folder, server=server, redis=redis)


@pytest.fixture(scope="module")
def service(services: Services) -> Iterator[Service]:
    """A running service with the settings that it comes with."""
    with services.running() as running:
        yield running


@pytest.fixture
def store_dir(tmp_path: Path) -> Path:
    """A folder for a local store."""
    path = tmp_path / "store"
    path.mkdir()
    return path
