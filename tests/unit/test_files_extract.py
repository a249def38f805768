"""Extraction: whatever an archive says, nothing is written outside of the directory."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from opskit.catalog.file_record import FileRecord, FileType
from opskit.errors import IntegrityError, OpskitError, StoreError
from opskit.folders.archive import member
from opskit.folders.copy import compare, extract
from tests.unit.conftest import Unprivileged
from tests.unit.files_sets import IS_ROOT, MIB, Dumped, dump, make_odd, make_sparse

_TYPES: dict[bytes, FileType] = {
    tarfile.REGTYPE: "file",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.DIRTYPE: "directory",
}
Member = tuple[str, bytes, str]
_ROOT: Member = (".", tarfile.DIRTYPE, "")


def _mode(kind: bytes) -> int:
    return 0o755 if kind == tarfile.DIRTYPE else 0o644


def _tar(members: Sequence[Member]) -> bytes:
    """Return an archive of members: name, type, and target or content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = _mode(kind)
            content = text.encode() if kind == tarfile.REGTYPE else b""
            info.linkname = "" if content else text
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _records(members: Sequence[Member]) -> list[FileRecord]:
    """Return the records that name each of these members, without looking at them."""
    return [
        FileRecord.model_construct(
            path=name,
            type=_TYPES.get(kind, "file"),
            mode=_mode(kind),
            uid=os.geteuid(),
            gid=os.getegid(),
            mtime_ns=0,
            size_bytes=len(text) if kind == tarfile.REGTYPE else 0,
        )
        for name, kind, text in members
    ]


def _everything(folder: Path) -> list[tuple[str, bytes]]:
    return sorted(
        (str(path.relative_to(folder)), path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory to extract into, and things beside it that must stay as they are."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("precious")
    (tmp_path / "copy").mkdir()
    return tmp_path / "copy"


OUTSIDE = "OUTSIDE"
EVIL: dict[str, list[Member]] = {
    "parent": [("../outside/file", tarfile.REGTYPE, "evil")],
    "parent within": [("d", tarfile.DIRTYPE, ""), ("d/../../evil", tarfile.REGTYPE, "evil")],
    "absolute": [(f"{OUTSIDE}/file", tarfile.REGTYPE, "evil")],
    "absolute folder": [(f"{OUTSIDE}/new", tarfile.DIRTYPE, "")],
    "through an absolute link": [
        ("l", tarfile.SYMTYPE, OUTSIDE),
        ("l/file", tarfile.REGTYPE, "evil"),
    ],
    "through a relative link": [
        ("l", tarfile.SYMTYPE, "../outside"),
        ("l/new", tarfile.REGTYPE, "evil"),
    ],
    "over a link": [
        ("l", tarfile.SYMTYPE, "../outside/file"),
        ("l", tarfile.REGTYPE, "evil"),
    ],
    "into a linked folder": [
        ("l", tarfile.SYMTYPE, "../outside"),
        ("l/new", tarfile.DIRTYPE, ""),
    ],
    "hard link out": [("h", tarfile.LNKTYPE, "../outside/file")],
    "absolute hard link": [("h", tarfile.LNKTYPE, f"{OUTSIDE}/file")],
    "hard link to a link": [
        ("l", tarfile.SYMTYPE, "../outside/file"),
        ("h", tarfile.LNKTYPE, "l"),
    ],
    "device": [("sda", tarfile.BLKTYPE, "")],
    "root as a link": [(".", tarfile.SYMTYPE, "../outside")],
    "root as a file": [(".", tarfile.REGTYPE, "evil")],
    "twice": [("a", tarfile.REGTYPE, "evil"), ("a", tarfile.REGTYPE, "evil")],
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("are_named", [True, False])
def test_an_archive_cannot_write_outside(
    place: Path, name: str, are_named: bool
) -> None:
    """It is refused, also if the manifest was altered to name what it holds."""
    outside = place.parent / "outside"
    members = [
        (path.replace(OUTSIDE, str(outside)), kind, text.replace(OUTSIDE, str(outside)))
        for path, kind, text in EVIL[name]
    ]
    before = _everything(outside.parent / "outside")
    with pytest.raises(OpskitError) as raised:
        extract(
            io.BytesIO(_tar(members)),
            place,
            _records(members if are_named else [_ROOT]),
        )

    assert raised.value.exit_code in (10, 20)
    assert _everything(outside) == before
    assert sorted(path.name for path in place.parent.iterdir()) == ["copy", "outside"]


def test_a_link_may_point_anywhere_as_long_as_nothing_follows_it(place: Path) -> None:
    """Links of the directory itself are made as they were, and touch nothing."""
    members: list[Member] = [
        _ROOT,
        ("a", tarfile.SYMTYPE, "../outside/file"),
        ("b", tarfile.SYMTYPE, "/etc/passwd"),
    ]
    records = _records(members)
    extract(io.BytesIO(_tar(members)), place, records)

    assert os.readlink(place / "a") == "../outside/file"
    assert os.readlink(place / "b") == "/etc/passwd"
    assert (place.parent / "outside" / "file").read_text() == "precious"


def test_a_link_that_lies_in_the_way_is_not_followed(place: Path) -> None:
    """A name that is taken is refused, whoever put it there."""
    (place / "d").symlink_to("../outside")
    members: list[Member] = [_ROOT, ("d/new", tarfile.REGTYPE, "evil")]
    with pytest.raises(StoreError, match=r"d(/new)? cannot be written"):
        extract(io.BytesIO(_tar(members)), place, _records(members))

    assert _everything(place.parent / "outside") == [("file", b"precious")]


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Dumped:
    """The archive of a directory with every kind of entry."""
    return dump(make_odd(tmp_path_factory.mktemp("odd") / "state"))


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_an_archive_that_is_cut_short_is_refused(
    place: Path, dumped: Dumped, part: float
) -> None:
    """Wherever it ends, extraction says that it is not whole."""
    tar = dumped.tar[: int(len(dumped.tar) * part)]

    with pytest.raises(IntegrityError) as raised:
        extract(io.BytesIO(tar), place, dumped.records)

    assert raised.value.exit_code == 20


def test_an_archive_that_lacks_an_entry_is_refused(place: Path) -> None:
    """An entry of the manifest that did not come is named."""
    records = _records([_ROOT, ("a", tarfile.REGTYPE, "")])

    with pytest.raises(IntegrityError, match="does not hold a"):
        extract(io.BytesIO(_tar([_ROOT])), place, records)


@pytest.mark.parametrize("bit", [1, 16])
def test_a_damaged_archive_never_ends_in_a_traceback(tmp_path: Path, bit: int) -> None:
    """A flipped bit in any head is an error that is told, or leads to an extraction."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "é").write_text("x")
    (folder / "link").symlink_to("é" * 60)
    make_sparse(folder / "sparse", MIB // 4)
    dumped = dump(folder)
    told = 0
    heads = [*range(0, 8192, 61), *range(len(dumped.tar) - 16384, len(dumped.tar), 61)]
    for at in heads:
        damaged = bytearray(dumped.tar)
        damaged[at] ^= bit
        copy = tmp_path / str(at)
        copy.mkdir()
        try:
            extract(io.BytesIO(bytes(damaged)), copy, dumped.records)
        except IntegrityError:
            told += 1
        shutil.rmtree(copy)

    assert told > 20


def test_the_stream_is_read_to_its_end(place: Path, dumped: Dumped) -> None:
    """Who checks the stored object's digest needs all of its bytes to go by."""
    stream = io.BytesIO(dumped.tar + bytes(5 * MIB))
    extract(stream, place, dumped.records)

    assert stream.read() == b""


def test_a_full_disk_is_told(
    place: Path, dumped: Dumped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the system names the file and is no traceback."""

    def full(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("opskit.folders.copy._write_all", full)

    with pytest.raises(StoreError, match="cannot be written: No space left"):
        extract(io.BytesIO(dumped.tar), place, dumped.records)


@pytest.mark.skipif(not IS_ROOT, reason="only root has files of others")
def test_an_ordinary_user_restores_what_is_possible(
    tmp_path: Path, shared_path: Path, unprivileged: Unprivileged
) -> None:
    """Owners are listed and not compared; set-user-id bits are dropped."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "a").touch()
    (folder / "a").chmod(0o6755)
    made = dump(folder)
    copy = shared_path / "copy"
    with unprivileged():
        copy.mkdir()
        extract(io.BytesIO(made.tar), copy, made.records)
        checks = compare(copy, made.records)

    assert (copy / "a").stat().st_mode & 0o7777 == 0o755
    assert [check.passed for check in checks] == [True]
    assert "this user may not set the owner" in checks[0].detail
    assert "a" in checks[0].detail


def test_a_directory_is_closed_only_when_all_is_in_it(
    tmp_path: Path, shared_path: Path, unprivileged: Unprivileged
) -> None:
    """Its mode may keep out the very user who restores it."""
    folder = tmp_path / "state"
    (folder / "closed" / "deeper").mkdir(parents=True)
    (folder / "closed" / "deeper" / "a").write_text("a")
    (folder / "closed" / "deeper").chmod(0o500)
    dumped = dump(folder)
    closed = [
        record.model_copy(update={"mode": 0}) if record.path == "closed" else record
        for record in dumped.records
    ]
    tar = b"".join(
        block for record in closed for block in member(record, None)
        if record.type == "directory"
    )  # fmt: skip
    copy = shared_path / "copy"
    with unprivileged():
        copy.mkdir()
        extract(io.BytesIO(tar), copy, [e for e in closed if e.type == "directory"])
        mode = (copy / "closed").stat().st_mode & 0o7777
        (copy / "closed").chmod(0o700)

        assert mode == 0
        assert (copy / "closed" / "deeper").stat().st_mode & 0o7777 == 0o500


def test_set_user_id_bits_stay_with_the_owner(tmp_path: Path, place: Path) -> None:
    """What belongs to the right user again keeps all of its mode."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "a").touch()
    (folder / "a").chmod(0o4711)
    made = dump(folder)
    extract(io.BytesIO(made.tar), place, made.records)

    assert (place / "a").stat().st_mode & 0o7777 == 0o4711
