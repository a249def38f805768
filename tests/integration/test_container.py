"""Throw-away servers in containers, on a real engine: `.ci/with_engine` brings one.

Where there is none these tests are skipped, unless TEST_OPSKIT_REQUIRE demands them.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound
from testcontainers.core.docker_client import DockerClient

from opskit.errors import DatabaseError
from opskit.postgres.connect import connect
from opskit.postgres.servers import container as module
from opskit.postgres.servers.container import Box, ContainerServer
from opskit.postgres.servers.throwaway import SUPERUSER
from tests.integration.conftest import REQUIRE
from tests.support import execute, value

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., ContainerServer]
Changed = Callable[..., str]

# Starts a server, says its container's name, and waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from opskit.postgres.servers.container import container
with container(image=sys.argv[1], memory="1g", cpus=1, timeout_seconds=120,
               base=Path(sys.argv[2])) as server:
    print(server.name, flush=True)
    time.sleep(600)
"""


pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("collected"),
]


@pytest.fixture
def start(image: str, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a server, which is gone after the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(container(image, tmp_path, options))


def container(image: str, base: Path, options: dict[str, Any] | None = None) -> Any:
    """Return the context manager that is tested, with small limits."""
    given = {"memory": "1g", "cpus": 1.0, "timeout_seconds": 120.0, **(options or {})}
    return module.container(image=given.pop("image", image), base=base, **given)


@pytest.fixture
def changed(engine: Any, image: str) -> Iterator[Changed]:
    """Return a function that makes another image by a command and instructions."""
    made: list[str] = []

    def make(command: str = "true", instructions: tuple[str, ...] = ()) -> str:
        box = engine.containers.create(image, command)
        try:
            box.start()
            assert box.wait()["StatusCode"] == 0
            made.append(box.commit(changes=list(instructions)).id)
        finally:
            box.remove(force=True)
        return made[-1]

    yield make
    for each in made:
        engine.images.remove(each)


def inspected(engine: Any, name: str) -> Any:
    """Return what the engine says of a container; None where it knows none."""
    try:
        return engine.api.inspect_container(name)
    except NotFound:
        return None


def test_a_server_in_a_container_answers_and_says_its_version(start: Start) -> None:
    """Version, major and URL are those of the server that really runs."""
    server = start()
    version = value(server.url(), "SHOW server_version")

    assert server.version == version.split()[0]
    assert str(server.major) == version.split(".")[0]
    assert value(server.url("template1"), "SELECT current_database()") == "template1"
    assert value(server.url(), "SELECT current_user") == SUPERUSER


def test_a_server_in_a_container_holds_nothing_of_its_own(start: Start) -> None:
    """There are PostgreSQL's own databases and the superuser, and nothing else."""
    url = start().url()
    databases = value(
        url, "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database"
    )
    roles = value(
        url,
        r"SELECT array_agg(rolname) FROM pg_roles WHERE oid >= 16384 OR rolcanlogin",
    )
    encoding = value(
        url, "SELECT getdatabaseencoding() || datcollate FROM pg_database LIMIT 1"
    )

    assert databases == "postgres template0 template1"
    assert roles == [SUPERUSER]
    assert encoding == "UTF8C"


def test_settings_reach_the_server_and_go_before_our_own(start: Start) -> None:
    """An extension of the image's that must be preloaded can be created."""
    server = start(settings={"shared_preload_libraries": "pg_cron", "jit": "on"})
    execute(server.url(), "CREATE EXTENSION pg_cron SCHEMA pg_catalog")

    assert value(server.url(), "SHOW jit") == "on"
    assert value(server.url(), "SHOW fsync") == "off"


def test_the_port_is_open_on_loopback_alone_and_asks_for_the_password(
    start: Start, engine: Any
) -> None:
    """No other machine can reach the server, and no other user can use it."""
    server = start()
    found = inspected(engine, server.name)["NetworkSettings"]["Ports"]

    assert found == {
        "5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(server.port)}]
    }
    with (
        pytest.raises(DatabaseError, match="password"),
        connect(server.url().replace(server.password, "guess"), purpose="test"),
    ):
        pass
    assert server.password not in repr(server)


def test_a_container_has_limits_and_no_privileges(start: Start, engine: Any) -> None:
    """Memory, cores, processes and rights are bounded; the log is the container's."""
    server = start(memory="768m", cpus=0.5)
    found = inspected(engine, server.name)
    limits = found["HostConfig"]

    assert limits["Memory"] == limits["MemorySwap"] == 768 * 2**20
    assert limits["NanoCpus"] == 500_000_000
    assert limits["PidsLimit"] == 1024
    assert limits["ShmSize"] == 512 * 2**20
    assert limits["CapDrop"] == ["ALL"]
    assert limits["SecurityOpt"] == ["no-new-privileges"]
    assert limits["LogConfig"]["Type"] == "json-file"
    assert found["Config"]["User"] == "postgres"


def test_more_cores_than_there_are_is_all_of_them(start: Start, engine: Any) -> None:
    """One configuration serves machines of any size."""
    found = inspected(engine, start(cpus=1000).name)["HostConfig"]["NanoCpus"]

    assert found == engine.info()["NCPU"] * 1_000_000_000


def test_the_users_own_variables_do_not_reach_the_server(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leads libpq to the user's servers leads nobody astray, and stays."""
    variables = {
        "PGSSLMODE": "require",
        "PGSERVICE": "nowhere",
        "PGTZ": "Europe/Berlin",
    }
    for name, each in variables.items():
        monkeypatch.setenv(name, each)

    with container(image, tmp_path) as server:
        assert value(server.url(), "SELECT 1") == 1
        assert variables.items() <= os.environ.items()


def test_the_images_own_entry_is_not_run_and_its_volumes_go(
    start: Start, engine: Any, changed: Changed, image: str, tmp_path: Path
) -> None:
    """An image's start script is left out; its volumes are gone with the container."""
    other = changed(instructions=("VOLUME /extra", 'ENTRYPOINT ["false"]'))
    with container(other, tmp_path) as server:
        (volume,) = inspected(engine, server.name)["Mounts"]
        assert engine.volumes.get(volume["Name"])

    assert inspected(engine, server.name) is None
    with pytest.raises(NotFound):
        engine.volumes.get(volume["Name"])


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_a_container_is_removed_however_the_block_ends(
    error: type[BaseException] | None, image: str, engine: Any, tmp_path: Path
) -> None:
    """Neither container nor folder stays, and the block's own error comes out."""
    with ExitStack() as stack:
        if error is not None:
            stack.enter_context(pytest.raises(error))
        with container(image, tmp_path) as server:
            assert inspected(engine, server.name)["State"]["Running"]
            if error is not None:
                raise error

    assert inspected(engine, server.name) is None
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_is_interrupted_leaves_no_container(
    start: Start, engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container goes also where the call that made it was cut off."""
    names = []

    def interrupted(self: DockerClient, image: str, **options: Any) -> None:
        created = engine.containers.create(image, "true", name=options["name"])
        names.append(created.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(DockerClient, "create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start()

    assert inspected(engine, names[0]) is None


@contextmanager
def killed(image: str, base: Path) -> Iterator[str]:
    """Yield the name of a container whose owner was killed."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, image, str(base)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    with owner:
        name = owner.stdout.readline().strip()
        owner.send_signal(signal.SIGKILL)
    yield name


@pytest.mark.parametrize("folder", ["left", "lost"])
def test_what_a_killed_run_left_is_removed_by_the_next_one(
    folder: str, image: str, engine: Any, tmp_path: Path
) -> None:
    """So it is also where a cleaner of temporary files took the folder away."""
    with killed(image, tmp_path) as name:
        assert inspected(engine, name)["State"]["Running"]
        (left,) = tmp_path.iterdir()
        if folder == "lost":
            shutil.rmtree(left)
        with container(image, tmp_path):
            found = inspected(engine, name), left.exists()

    assert found == (None, False)


def test_a_server_in_use_is_not_removed_by_another_run(
    start: Start, image: str, tmp_path: Path
) -> None:
    """Two drills at once, in one folder or in two, do not see each other."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = start()
    with container(image, elsewhere) as second, container(image, tmp_path):
        answers = [value(each.url(), "SELECT 1") for each in (first, second)]

    assert answers == [1, 1]


def test_what_a_restart_of_the_machine_left_is_removed(
    start: Start, engine: Any, image: str
) -> None:
    """What ended before it goes; what runs, or is of an unknown folder, stays."""
    today = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    labels = {"org.opskit.base": "1:1", "org.opskit.folder": "opskit-container-x"}
    boxes = [
        engine.containers.run(
            image, command, labels={**labels, "org.opskit.boot": boot}, detach=True
        )
        for boot, command in (
            ("earlier", "true"),
            ("elsewhere", "sleep 600"),
            (today, "true"),
        )
    ]
    try:
        boxes[2].wait()
        # Another test's start may have removed it by now.
        with suppress(NotFound):
            boxes[0].wait()
        start()
        stayed = [inspected(engine, each.id) is not None for each in boxes]
    finally:
        for each in boxes[1:]:
            each.remove(force=True)

    assert stayed == [False, True, True]


def test_a_container_that_cannot_be_removed_is_told_and_removed_by_the_next_run(
    image: str, engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails the run, unless that failed before: then the first error is told."""

    def refuse(self: Box, name: str) -> None:
        raise DatabaseError(f"{name} stays")

    names = []

    def stuck(error: Exception | None) -> None:
        with monkeypatch.context() as patched, container(image, tmp_path) as server:
            names.append(server.name)
            patched.setattr(Box, "remove", refuse)
            if error is not None:
                raise error

    with pytest.raises(DatabaseError, match="stays"):
        stuck(None)
    with pytest.raises(RuntimeError):
        stuck(RuntimeError())
    left = [inspected(engine, name) is not None for name in names]
    with container(image, tmp_path):
        found = [inspected(engine, name) for name in names]

    # The second had removed the first before it started.
    assert left == [False, True]
    assert found == [None, None]


def test_without_an_engine_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DOCKER_HOST is heeded, and named where nothing answers at it."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")

    with pytest.raises(DatabaseError, match="engine does not answer") as raised:
        container("none", tmp_path).__enter__()
    assert "DOCKER_HOST" in raised.value.hint
    assert raised.value.exit_code == 30


class Version(BaseHTTPRequestHandler):
    """Answers as an engine does to the first question."""

    def do_GET(self) -> None:
        """Say the version of the protocol."""
        words = b'{"ApiVersion": "1.41"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        self.wfile.write(words)

    def log_message(self, *_: object) -> None:
        """Say nothing on standard error."""


def test_an_engine_on_another_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loopback is not ours, so that its servers could not be reached."""
    with HTTPServer(("127.0.0.2", 0), Version) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.2:{server.server_port}")
        with pytest.raises(DatabaseError, match="on another machine"):
            container("none", tmp_path).__enter__()
        server.shutdown()


def test_an_image_that_is_nowhere_is_named(start: Start) -> None:
    """It is neither here nor can it be fetched; the engine's own words are told."""
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:9/none.*refused") as raised:
        start(image="127.0.0.1:9/none:1")
    assert "docker pull" in raised.value.hint


def test_fetching_an_image_ends_in_time(start: Start) -> None:
    """A registry that takes the call and says nothing is not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        name = f"127.0.0.1:{deaf.getsockname()[1]}/none:1"
        with pytest.raises(DatabaseError, match="did not arrive in time"):
            start(image=name, timeout_seconds=1.0)


def test_an_image_without_postgresql_is_told(
    start: Start, changed: Changed, engine: Any, tmp_path: Path
) -> None:
    """Its log says what is missing, and no container stays."""
    other = changed("rm -rf /usr/lib/postgresql")

    with pytest.raises(DatabaseError, match="no initdb in this image"):
        start(image=other)
    assert engine.containers.list(all=True, filters={"ancestor": other}) == []


def test_an_image_without_a_user_postgres_is_told(start: Start, engine: Any) -> None:
    """The engine's own words are told, with what an image must hold."""
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    name = f"opskit-test/empty-{os.getpid()}:1"
    engine.api.import_image_from_data(empty.getvalue(), repository=name[:-2], tag="1")
    try:
        with pytest.raises(DatabaseError, match="postgres: no matching") as raised:
            start(image=name)
    finally:
        engine.images.remove(name)
    assert "user postgres" in raised.value.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"settings": {"shared_buffers": "plenty"}}, "ended with code 1.*plenty"),
        (
            {"settings": {"port": "5433"}, "timeout_seconds": 4.0},
            "did not answer in time",
        ),
        ({"memory": "plenty"}, "could not be started.*plenty"),
    ],
)
def test_a_server_that_does_not_start_is_told_with_its_log(
    options: dict[str, Any], words: str, start: Start, tmp_path: Path
) -> None:
    """The error quotes what is wrong, and nothing stays."""
    with pytest.raises(DatabaseError, match=words):
        start(**options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("require", "code"), [("", 0), ("container", 1)])
def test_these_tests_fail_where_an_engine_is_demanded(
    require: str, code: int, tmp_path: Path
) -> None:
    """Without an engine they are skipped elsewhere, and say so."""
    name = test_a_server_in_a_container_answers_and_says_its_version.__name__
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"{Path(__file__)}::{name}"],
        cwd=ROOT,
        env=os.environ | {REQUIRE: require, "DOCKER_HOST": f"unix://{tmp_path}/none"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert found.returncode == code, found.stdout
    assert "no engine answers" in found.stdout
