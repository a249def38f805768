"""Directories of state files with real programs, a real writer, and real kills."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from opskit.backup.stream import compressed
from opskit.catalog.manifest import StoredObject
from opskit.crypto import age
from opskit.folders.backup import render
from opskit.folders.copy import compare, extract
from opskit.folders.restore import FolderTarget, restore_folder, sweep
from tests.unit.files_sets import (
    IS_ROOT,
    MIB,
    Dumped,
    differences,
    dump,
    dumping,
    extracted,
    make_odd,
    make_sparse,
    now,
)
from tests.unit.stock import program, run


def _store(folder: Path, dumped: Dumped, recipients: Sequence[str] = ()) -> Path:
    """Store an archive and its guide as a set is stored."""
    folder.mkdir()
    name, chunks = "files.tar.zst", compressed([dumped.tar])
    if recipients:
        name, chunks = name + age.SUFFIX, age.encrypted(chunks, recipients)
    content = b"".join(chunks)
    (folder / name).write_bytes(content)
    stored = StoredObject(
        key=f"state/2026-01-01/x/{name}",
        role="files",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    guide = render(
        backup_id="state-20260101T000000Z-abcdef",
        path=Path("/var/lib/app/state"),
        entries=len(dumped.records),
        content_bytes=1,
        snapshot_at=now(),
        objects=[stored],
        encrypted=bool(recipients),
    )
    (folder / "RESTORE.md").write_text(guide)
    return folder


def _follow(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run every command of a set's RESTORE.md, as written."""
    text = (folder / "RESTORE.md").read_text()
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S))
    if not IS_ROOT:
        commands = commands.replace("--same-owner", "")
    for each in ("tar", "zstd", "sha256sum"):
        program(each)
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", commands],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_of_the_guide_bring_every_entry_back(tmp_path: Path) -> None:
    """tar and zstd alone make a directory that equals the manifest exactly."""
    dumped = dump(make_odd(tmp_path / "state"))
    folder = _store(tmp_path / "set", dumped)
    done = _follow(folder)

    assert (done.returncode, done.stderr) == (0, "")
    assert differences(folder / "restored", dumped) == {}
    assert (folder / "restored" / "sparse").stat().st_blocks * 512 < MIB


def test_the_guide_of_an_encrypted_set_needs_the_stock_age(tmp_path: Path) -> None:
    """With the identity in a file, age, zstd and tar bring every entry back."""
    program("age")
    identity = tmp_path / "identity"
    run("age-keygen", "-o", identity)
    recipient = run("age-keygen", "-y", identity).decode().strip()
    dumped = dump(make_odd(tmp_path / "state"))
    folder = _store(tmp_path / "set", dumped, [recipient])
    without = _follow(folder)
    shutil.rmtree(folder / "restored", ignore_errors=True)
    done = _follow(folder, AGE_IDENTITY=str(identity))

    assert without.returncode != 0
    assert done.returncode == 0, done.stderr
    assert differences(folder / "restored", dumped) == {}


def test_the_guide_notices_a_damaged_file(tmp_path: Path) -> None:
    """Its first command ends with an error, and nothing is unpacked."""
    (tmp_path / "state").mkdir()
    folder = _store(tmp_path / "set", dump(tmp_path / "state"))
    with (folder / "files.tar.zst").open("ab") as file:
        file.write(b"x")

    assert _follow(folder).returncode != 0
    assert not (folder / "restored").exists()


# What libarchive 3.6 does with times, seen with bsdtar -t as well: it adds the fraction of
# a time before 1970 instead of subtracting it, and leaves the time of the folder that it
# unpacks into. A version that does better passes, too.
BSDTAR_DIFFERS = re.compile(
    r"file empty file mtime_ns: -1500000001 is expected, -499999999 is there"
    r"|file \. mtime_ns: 987654321012345678 is expected, \d+ is there"
)


def test_bsdtar_reads_the_archive_too(tmp_path: Path) -> None:
    """A second implementation agrees on every entry, but for two times that it misses."""
    dumped = dump(make_odd(tmp_path / "state"))
    target = tmp_path / "copy"
    target.mkdir()
    flags = ["-p", "--numeric-owner", *(["--same-owner"] if IS_ROOT else [])]
    run("bsdtar", "-x", "-f", "-", *flags, "-C", target, stdin=dumped.tar)
    found = differences(target, dumped)
    found.pop("files", None)  # the summary of the others

    assert [
        f"{name} {detail}"
        for name, detail in found.items()
        if not BSDTAR_DIFFERS.fullmatch(f"{name} {detail}")
    ] == []


WRITER = """
import json
import sys
from pathlib import Path
from filelock import FileLock
from opskit import files
folder, lock = Path(sys.argv[1]), sys.argv[2]
number = 0
print("ready", flush=True)
while True:
    number += 1
    with FileLock(lock):
        for name in ("a.json", "z.json"):
            state = {"number": number, "fill": "x" * (number % 5000)}
            files.write_text(folder / name, json.dumps(state))
"""


@contextmanager
def _writer(folder: Path, lock: Path) -> Iterator[None]:
    """A service that changes two files together, under its lock, all the time."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(lock)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


def _contents(dumped: Dumped) -> dict[str, dict[str, int]]:
    with tarfile.open(fileobj=io.BytesIO(dumped.tar)) as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            if file is not None and member.name.endswith(".json"):
                found[member.name] = json.loads(file.read())
        return found


def test_under_the_lock_of_the_service_files_belong_together(tmp_path: Path) -> None:
    """In each archive both files are whole, and of one and the same moment."""
    folder, lock = tmp_path / "state", tmp_path / "service.lock"
    folder.mkdir()
    seen: set[tuple[int, ...]] = set()
    with _writer(folder, lock):
        while len(seen) < 10:
            dumped = dump(folder, lock=lock, lock_wait=timedelta(minutes=5))
            found = _contents(dumped)
            numbers = {name: each["number"] for name, each in found.items()}
            assert len(set(numbers.values())) <= 1, numbers
            assert not any("changed" in each for each in dumped.warnings)
            seen |= {tuple(numbers.values())} - {()}

    assert len(seen) == 10


def test_without_a_lock_each_file_is_whole_at_least(tmp_path: Path) -> None:
    """Files that are replaced atomically are never stored as a mixture."""
    folder, lock = tmp_path / "state", tmp_path / "service.lock"
    folder.mkdir()
    warned = read = 0
    with _writer(folder, lock):
        while not warned or read < 40:
            dumped = dump(folder, exclude=["*.lock", ".*"])
            for content in _contents(dumped).values():
                assert len(str(content["fill"])) == content["number"] % 5000
                read += 1
            warned += any("changed" in each for each in dumped.warnings)

    assert read >= 40


def test_a_sparse_gibibyte_is_stored_and_restored_as_what_is_in_it(
    tmp_path: Path,
) -> None:
    """The archive is small, the copy takes no space, and its digest is the same."""
    folder = tmp_path / "state"
    folder.mkdir()
    make_sparse(folder / "sparse", 1024 * MIB)
    dumped = dump(folder)
    copy = extracted(dumped, tmp_path / "copy")

    assert len(dumped.tar) < MIB
    assert (copy / "sparse").stat().st_size == 1024 * MIB
    assert (copy / "sparse").stat().st_blocks * 512 < MIB
    assert differences(copy, dumped) == {}


MEASURED = """
import resource, sys
from pathlib import Path
from tests.unit.files_sets import dumping
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with dumping(Path(sys.argv[1])) as dump:
    size = sum(map(len, dump.stream()))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(size, (after - before) * 1024)
"""


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    """A file of 200 MiB takes no more than the spool and a few blocks."""
    with (tmp_path / "large").open("wb") as file:
        for _number in range(200):
            file.write(os.urandom(MIB))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    size_bytes, grown_bytes = map(int, done.stdout.split())

    assert size_bytes > 200 * MIB
    assert grown_bytes < 40 * MIB


def test_depth_costs_no_descriptors_and_may_exceed_every_path(tmp_path: Path) -> None:
    """A tree that is deeper than a path can say is stored, restored and compared."""
    folder = tmp_path / "state"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    for number in range(300):
        name = f"{number:020}"
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("leaf", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each) for each in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 60, limits[1]))
    try:
        dumped = dump(folder)
        copy = tmp_path / "copy"
        copy.mkdir()
        extract(io.BytesIO(dumped.tar), copy, dumped.records)
        checks = compare(copy, dumped.records)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        run("rm", "-rf", folder, tmp_path / "copy")

    assert len(dumped.records) == 302
    assert max(len(each.path) for each in dumped.records) > 6000
    assert [check.passed for check in checks] == [True]


KILLED = """
import io, os, sys
from contextlib import contextmanager
from pathlib import Path
from opskit.folders import restore as beside
from opskit.folders.restore import FolderTarget, restore_folder
from tests.unit.files_sets import dump, now

state, target, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
dumped = dump(state)
real_exchange, real_rename, real_pwrite = beside.exchange, Path.rename, os.pwrite

def die(*_arguments):
    os._exit(9)

def exchange(*paths):
    if point == "before the exchange":
        die()
    if "rename" in point:
        return False
    done = real_exchange(*paths)
    if point == "after the exchange":
        die()
    return done

def rename(path, to):
    first = path == target
    if point == "before the first rename":
        die()
    done = real_rename(path, to)
    if point == ("after the first rename" if first else "after the last rename"):
        die()
    return done

def pwrite(lock, content, offset):
    if point == ("before the announcement" if b"kept" in content else "before the mark"):
        die()
    return real_pwrite(lock, content, offset)

@contextmanager
def opener():
    yield io.BytesIO(dumped.tar)
    if point == "while it is extracted":
        die()

beside.exchange, Path.rename, os.pwrite = exchange, rename, pwrite
restore_folder(
    FolderTarget(path=target, replace=True), dumped.records, opener, clock=now)
print("done")
"""
POINTS = {
    "while it is extracted": "old",
    "before the mark": "old",
    "before the announcement": "old",
    "before the exchange": "old",
    "after the exchange": "new",
    "before the first rename": "old",
    "after the first rename": "",
    "after the last rename": "new",
}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_restore_leaves_the_old_or_the_new(tmp_path: Path, point: str) -> None:
    """At once or after the next run; and what was replaced is never lost."""
    state, home = tmp_path / "state", tmp_path / "home"
    target = home / "target"
    state.mkdir()
    (state / "new").write_text("new")
    target.mkdir(parents=True)
    (target / "old").write_text("precious")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(state), str(target), point],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    right_after = ",".join(os.listdir(target)) if target.exists() else ""
    sweep(target)
    settled = ",".join(os.listdir(target))
    dumped = dump(state)
    wanted = FolderTarget(path=target, replace=True)
    restore_folder(wanted, dumped.records, dumped.opener, clock=now)
    kept = [path for path in home.iterdir() if ".before-" in path.name]
    held = [path for path in kept if (path / "old").exists()]

    assert right_after == POINTS[point]
    assert settled == (POINTS[point] or "old")
    assert differences(target, dumped) == {}
    left = [path for path in home.iterdir() if path.name.startswith(".")]
    # An empty file by which nobody could tell whose it is.
    assert [path.stat().st_size for path in left] == [0] * (point == "before the mark")
    assert [(path / "old").read_text() for path in held] == ["precious"]


def test_hourly_backups_of_a_directory_are_cheap(tmp_path: Path) -> None:
    """Ten thousand small files are read in seconds."""
    for number in range(10_000):
        folder = tmp_path / f"{number % 100}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.json").write_text(f'{{"number": {number}}}')
    with dumping(tmp_path) as opened:
        began, worked = time.monotonic(), time.process_time()
        size_bytes = sum(len(block) for block in opened.stream())
        seconds, worked = time.monotonic() - began, time.process_time() - worked

    assert len(opened.records) == 10_101
    assert size_bytes == opened.tar_bytes
    assert worked < 30
    # Nor does it wait for something with each file.
    assert seconds < 120
