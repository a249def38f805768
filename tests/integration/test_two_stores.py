"""A set in two stores of which one is damaged, and programs that are missing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opskit.catalog import catalog
from opskit.catalog.sets import BackupSet
from opskit.errors import ClientToolError, DatabaseError
from opskit.postgres import database
from opskit.postgres.connect import Connection, connect
from opskit.postgres.parameters import parse
from opskit.postgres.servers import programs
from opskit.restore import run
from opskit.store import LocalStore
from tests.conftest import MajorServer, MakeDatabase
from tests.integration.test_restore import run_restore
from tests.support import back_up, execute, run_drill, sets, value


@pytest.fixture
def stores(tmp_path: Path) -> list[LocalStore]:
    """Two empty local stores."""
    folders = [tmp_path / name for name in ("near", "far")]
    for folder in folders:
        folder.mkdir()
    return [LocalStore(folder.name, folder) for folder in folders]


def damage(folder: Path) -> None:
    """Flip a bit in the middle of the dump that a store holds."""
    (path,) = folder.rglob("dump.pgdump.zst")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def copies(connection: Connection, target: str) -> list[str]:
    """Return the databases that restores to the target are filling."""
    rows = connection.execute("SELECT datname FROM pg_database").fetchall()
    return [name for (name,) in rows if name.startswith(f"{target}_restoring_")]


def only(stores: list[LocalStore]) -> BackupSet:
    """Return the one set in the stores."""
    (found,) = catalog.read(stores).sets
    return found


def test_a_restore_takes_the_copy_that_is_whole(
    make_database: MakeDatabase,
    server_of: MajorServer,
    stores: list[LocalStore],
    tmp_path: Path,
) -> None:
    """The first store's copy is damaged; the second one's is restored."""
    back_up(make_database(16), tmp_path / "near", stores=stores)
    damage(tmp_path / "near")

    result = run_restore(only(stores), server_of(16), "from far")

    assert result.rows == 2102
    with connect(server_of(16).url(), purpose="test") as connection:
        database.drop(connection, "from far")


def test_missing_programs_say_nothing_about_the_set(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Without a pg_restore that reads the archive there is no drill, and no verdict."""
    available = programs.installations()
    newer = [each for each in available if each.major == 18]
    back_up(make_database(16), store_dir, installations=newer)
    older = [each for each in available if each.major == 16]

    with pytest.raises(ClientToolError, match="no pg_restore of major 18"):
        run_drill(sets(store_dir)[0], installations=older)


def test_a_restore_that_is_killed_leaves_the_target_alone(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path
) -> None:
    """SIGKILL in the middle of --replace: the live database is as it was."""
    url = make_database(16)
    execute(
        url,
        "CREATE TABLE public.bulk AS SELECT i, md5(i::text) FROM generate_series(1, 900000) i",
    )
    back_up(url, store_dir)
    execute(url, "DELETE FROM public.lines")
    target = parse(url)["dbname"]
    script = (
        "import sys; from pathlib import Path\n"
        "from opskit.postgres.servers import programs, throwaway\n"
        "from opskit.restore.run import RestoreRequest, restore\n"
        "from tests.support import LIMITS, now, sets\n"
        "restore(RestoreRequest(chosen=sets(Path(sys.argv[1]))[0], server_url=sys.argv[2],"
        " target=sys.argv[3], run_id='abc123', replace=True, installations=programs.installations(),"
        " limits=LIMITS), clock=now)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(store_dir), url, target]
    )
    with connect(url, purpose="test", database="postgres") as connection:
        deadline = time.monotonic() + 60
        while not copies(connection, target):
            assert child.poll() is None
            assert time.monotonic() < deadline
        time.sleep(0.3)
        child.kill()
        child.wait(30)

        assert value(url, "SELECT count(*) FROM public.lines") == 0
        # The killed process's own sessions end a moment after it.
        while copies(connection, target):
            run.sweep(connection, url, target)
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_missing_tablespaces_are_named(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path
) -> None:
    """A set with a tablespace is refused by a server without, drilled all the same."""
    running = server_of(16)
    # Of the machine's folders, an isolated server sees only its data and its socket's.
    folder = running.socket_dir / "space"
    folder.mkdir()
    owner = (running.folder / "data").stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    url = make_database(16)
    execute(url, f"CREATE TABLESPACE fast LOCATION '{folder}'")
    try:
        execute(url, "ALTER TABLE other.orders SET TABLESPACE fast")
        manifest = back_up(url, store_dir).manifest
        execute(url, "ALTER TABLE other.orders SET TABLESPACE pg_default")
    finally:
        execute(url, "DROP TABLESPACE fast")

    with pytest.raises(DatabaseError, match="tablespace fast") as caught:
        run_restore(sets(store_dir)[0], running, "spaced")

    assert "tablespaces.sql" in caught.value.hint
    assert b"fast" in (store_dir / manifest.object("tablespaces").key).read_bytes()
    assert run_drill(sets(store_dir)[0]).passed
