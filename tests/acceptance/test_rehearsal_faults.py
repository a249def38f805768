"""Rehearsals that break off: no verdict on the migrations, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.conftest import Project

IS_ROOT = os.geteuid() == 0


@pytest.fixture
def rehearsing(project: Project, tmp_path: Path) -> Iterator[Project]:
    """A project with a set and a slow migration; its servers lie in a folder `work`."""
    work = tmp_path / "work"
    work.mkdir()
    folder = project.folder / "migrations"
    folder.mkdir()
    (folder / "1.sql").write_text("SELECT pg_sleep(600);")
    project.configure(
        '[release]\nmigrations = { tool = "sql", database = "shop" }\n'
        f"[drill]\nwork_dir = {json.dumps(str(work))}"
    )
    project.run("backup")
    yield project
    assert list(work.iterdir()) == []


def data_folder(work: Path, process: subprocess.Popen[str]) -> Path:
    """Wait for a migration to be at work; return the folder of its server."""
    deadline = time.monotonic() + 120
    while True:
        with suppress(OSError):  # folders come and go while this looks through them
            for log in work.glob("opskit-server-*/**/log/witness.csv"):
                if "pg_sleep" in log.read_text(errors="replace"):
                    return log.parents[1]
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)


def interrupt(process: subprocess.Popen[str], _data: Path) -> None:
    process.send_signal(signal.SIGINT)


def kill_server(process: subprocess.Popen[str], _data: Path) -> None:
    """Kill the server of the rehearsal: the first postgres among its descendants."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, _, rest = path.read_text().partition(" (")
            name, _, rest = rest.rpartition(") ")
            parents[int(number)], names[int(number)] = int(rest.split()[1]), name

    def is_own(number: int) -> bool:
        while number > 1:
            number = parents.get(number, 0)
            if number == process.pid:
                return True
        return False

    (server,) = [
        each
        for each, name in names.items()
        if name == "postgres"
        and names.get(parents[each]) != "postgres"
        and is_own(each)
    ]
    os.kill(server, signal.SIGKILL)


@pytest.mark.parametrize(
    ("act", "code", "words"),
    [(interrupt, 130, "interrupted"), (kill_server, 30, "says nothing about the")],
)
def test_a_rehearsal_that_breaks_off_is_no_verdict(
    rehearsing: Project,
    tmp_path: Path,
    act: Callable[[subprocess.Popen[str], Path], None],
    code: int,
    words: str,
) -> None:
    """Ctrl-C, or a server that is lost: said so, and nothing is left."""
    process = rehearsing.start("rehearse", "--backup", "latest", "--json")
    act(process, data_folder(tmp_path / "work", process))
    output, errors = process.communicate(timeout=120)

    assert process.returncode == code, output + errors
    document = json.loads(output)
    assert words in document["error"]
    assert "checks" not in document


@pytest.mark.skipif(not IS_ROOT, reason="only root can mount a small disk")
def test_a_host_without_room_is_no_verdict(rehearsing: Project, tmp_path: Path) -> None:
    """Refused with figures before it begins, or stopped when the disk is full."""
    work = tmp_path / "work"
    growing = "CREATE TABLE public.grown AS SELECT repeat(md5(i::text), 20) FROM "
    (rehearsing.folder / "migrations" / "1.sql").write_text(
        growing + "generate_series(1, 10000000) i;"
    )
    for size, words in (("4m", "MiB free, the restore"), ("300m", "says nothing")):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(work)]
        subprocess.run(mount, check=True)
        try:
            document = rehearsing.json("rehearse", "--backup", "latest", code=30)
            assert list(work.iterdir()) == []
        finally:
            subprocess.run(["umount", str(work)], check=True)
        assert words in document["error"]
        assert " MiB " in document["error"]
        assert "work_dir" in document["hint"]
        assert "checks" not in document
