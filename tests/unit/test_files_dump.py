"""The archive of a directory: whatever lies in it comes back as it was."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import mmap
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from opskit.errors import BackupFailed, ConfigurationError
from opskit.folders import tree
from opskit.folders.tree import Entry
from tests.unit.conftest import Unprivileged
from tests.unit.files_sets import (
    IS_ROOT,
    MIB,
    Dumped,
    differences,
    dump,
    dumping,
    extracted,
    make_odd,
    make_socket,
    make_sparse,
)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dumped]:
    """A directory with every kind of entry, and its archive."""
    folder = make_odd(tmp_path_factory.mktemp("odd") / "state")
    return folder, dump(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with three files."""
    folder = tmp_path / "state"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name)
    return folder


def test_every_kind_of_entry_comes_back_as_it_was(
    odd: tuple[Path, Dumped], tmp_path: Path
) -> None:
    """Names, modes, owners, times, links and contents are equal in the copy."""
    _folder, dumped = odd
    copy = extracted(dumped, tmp_path / "copy")

    assert differences(copy, dumped) == {}
    assert dumped.warnings == ()


def test_the_copy_equals_the_directory_by_a_dump_of_its_own(
    odd: tuple[Path, Dumped], tmp_path: Path
) -> None:
    """An archive of the copy has the same records, without the comparison's help."""
    _folder, dumped = odd
    again = dump(extracted(dumped, tmp_path / "copy"))

    assert again.records == dumped.records


def test_holes_take_no_space_in_the_archive_nor_in_the_copy(
    odd: tuple[Path, Dumped], tmp_path: Path
) -> None:
    """A sparse file is stored and restored as what is in it."""
    _folder, dumped = odd
    copy = extracted(dumped, tmp_path / "copy")

    assert dumped.record("sparse").sparse
    assert dumped.record("sparse").size_bytes == 64 * MIB
    assert len(dumped.tar) < 11 * MIB
    assert (copy / "sparse").stat().st_blocks * 512 < MIB
    assert (copy / "hole").stat().st_blocks == 0


def test_names_that_are_not_utf_8_keep_their_bytes(odd: tuple[Path, Dumped]) -> None:
    """A name is in the record as surrogateescape writes it."""
    _folder, dumped = odd

    assert "\udcff\udcfe" in dumped.paths
    assert "new\nline" in dumped.paths
    assert "é" in dumped.paths


def test_a_record_holds_what_the_system_says(folder: Path) -> None:
    """Mode, time, size and digest of a file are those that stat and sha256 give."""
    (folder / "a").chmod(0o640)
    os.utime(folder / "a", ns=(0, 1_700_000_000_000_000_001))
    record = dump(folder).record("a")

    assert (record.type, record.mode, record.size_bytes) == ("file", 0o640, 1)
    assert record.mtime_ns == 1_700_000_000_000_000_001
    assert (record.uid, record.gid) == (os.geteuid(), (folder / "a").stat().st_gid)
    assert record.sha256.startswith("ca978112ca1bbdca")
    assert (record.target, record.sparse) == ("", False)


def test_links_are_stored_as_links(odd: tuple[Path, Dumped]) -> None:
    """Symbolic links keep their text, hard links the name that was read first."""
    _folder, dumped = odd
    hard = dumped.record("z hard link")

    assert dumped.record("absolute").target == "/etc/passwd"
    assert dumped.record("outward").target == "../../outside"
    assert (hard.type, hard.target, hard.size_bytes) == ("hardlink", "plain", 0)
    assert not any(path.startswith(("itself/", "loop/")) for path in dumped.paths)


def test_an_empty_directory_is_a_source_with_a_warning(tmp_path: Path) -> None:
    """There is an archive with the directory alone, and it says so."""
    folder = tmp_path / "state"
    folder.mkdir()
    dumped = dump(folder)

    assert [each.path for each in dumped.records] == ["."]
    assert dumped.warnings == (f"{folder} is empty",)
    assert differences(extracted(dumped, tmp_path / "copy"), dumped) == {}


def test_sockets_are_named_and_not_stored(folder: Path, tmp_path: Path) -> None:
    """A socket has no content to store; a warning names it."""
    make_socket(folder / "socket", tmp_path / "s")
    dumped = dump(folder)

    assert dumped.paths == ["a", "b", "c"]
    assert dumped.warnings == ("socket is a socket or a device: not stored",)


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*.tmp"], ["cache", "cache/deep", "cache/deep/x", "keep"]),
        (["cache"], ["a.tmp", "keep"]),
        (["cache/*"], ["a.tmp", "cache", "keep"]),
        (
            ["deep/x"],
            ["a.tmp", "cache", "cache/b.tmp", "cache/deep", "cache/deep/x", "keep"],
        ),
        (["[ak]*", "x"], ["cache", "cache/b.tmp", "cache/deep"]),
    ],
)
def test_what_is_excluded_is_left_out(
    tmp_path: Path, patterns: list[str], left: list[str]
) -> None:
    """Patterns without a slash are for names anywhere, others for whole paths."""
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    for name in ("a.tmp", "cache/b.tmp", "cache/deep/x", "keep"):
        (tmp_path / name).touch()

    assert sorted(dump(tmp_path, exclude=patterns).paths) == left


def test_what_is_excluded_is_not_looked_for_again(folder: Path) -> None:
    """What appears under an excluded name is no change."""
    with dumping(folder, exclude=["*.log"]) as opened:
        for _block in opened.stream():
            (folder / "x.log").touch()
            os.utime(folder, ns=(0, opened.records[0].mtime_ns))

    assert not any("x.log" in each for each in opened.warnings)


Hook = Callable[[Callable[[], None]], None]


@pytest.fixture
def after_first_block(monkeypatch: pytest.MonkeyPatch) -> Hook:
    """Return a function that sets what is done once a file's first block was read."""

    def hook(act: Callable[[], None]) -> None:
        real = tree.blocks

        def blocks(descriptor: int, size_bytes: int) -> Iterator[bytes]:
            for number, block in enumerate(real(descriptor, size_bytes)):
                yield block
                if number == 0:
                    act()

        monkeypatch.setattr(tree, "blocks", blocks)

    return hook


def _times(number: int, act: Callable[[], None]) -> Callable[[], None]:
    left = iter(range(number))
    return lambda: act() if next(left, None) is not None else None


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"B" * 2 * MIB),
        lambda path: path.write_bytes(b"B" * MIB),
        lambda path: path.write_bytes(b"B" * 3 * MIB),
        lambda path: path.chmod(0o604),
    ],
    ids=["same size", "shorter", "longer", "mode"],
)
def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, after_first_block: Hook, change: Callable[[Path], None]
) -> None:
    """The archive holds the later state as a whole, never a mixture."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "a").write_bytes(b"A" * 2 * MIB)
    after_first_block(_times(3, lambda: change(folder / "a")))
    dumped = dump(folder)
    copy = extracted(dumped, tmp_path / "copy")

    assert (copy / "a").read_bytes() == (folder / "a").read_bytes()
    assert (copy / "a").stat().st_mode == (folder / "a").stat().st_mode
    assert dumped.warnings == ()


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[Callable[[int], None]]:
    """Yield a function that fills a file through a mapping, and moves no time of it."""
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapping:

        def fill(number: int) -> None:
            mapping[:] = bytes([number % 256]) * len(mapping)

        fill(0)  # the first write to a page is the one that moves the times
        yield fill


def test_a_file_that_is_written_through_a_mapping_is_read_again(
    tmp_path: Path, after_first_block: Hook
) -> None:
    """The file's times do not move, and yet no mixture of two states is stored."""
    # The system may write the pages out just then, and that moves the times.
    for attempt in range(10):
        path = tmp_path / str(attempt) / "state" / "a"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"A" * 3 * MIB)
        with _mapped(path) as fill:
            before = path.stat()
            after_first_block(_times(1, functools.partial(fill, 1)))
            dumped = dump(path.parent)
            after = path.stat()
        if after.st_mtime_ns == before.st_mtime_ns:
            break
    copy = extracted(dumped, tmp_path / "copy")

    assert after.st_mtime_ns == before.st_mtime_ns
    assert (copy / "a").read_bytes() == b"\x01" * 3 * MIB


def test_a_file_that_is_written_through_a_mapping_all_the_time_fails_the_backup(
    tmp_path: Path, after_first_block: Hook
) -> None:
    """A real writer that never pauses: the file is named, nothing torn is stored."""
    path = tmp_path / "state" / "a"
    path.parent.mkdir()
    path.write_bytes(b"A" * 16 * MIB)
    ended = threading.Event()
    filled = [0]

    def write(fill: Callable[[int], None]) -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            fill(number)
            filled[0] = number

    def wait_for_the_writer() -> None:
        """A busy machine may give it no time: one that is under way, and one more."""
        wanted, until = filled[0] + 2, time.monotonic() + 60
        while filled[0] < wanted and time.monotonic() < until:
            time.sleep(0.001)

    after_first_block(wait_for_the_writer)
    with _mapped(path) as fill:
        writer = threading.Thread(target=write, args=(fill,))
        writer.start()
        try:
            with pytest.raises(BackupFailed, match=r"a in .* changed each of the 4"):
                dump(path.parent)
        finally:
            ended.set()
            writer.join()


def test_a_file_under_its_service_s_lock_is_read_once(
    tmp_path: Path, after_first_block: Hook
) -> None:
    """Who takes the lock keeps the writers away: a second reading would be waste."""
    path = tmp_path / "state" / "a"
    path.parent.mkdir()
    path.write_bytes(b"A" * MIB)
    readings: list[None] = []
    after_first_block(lambda: readings.append(None))
    dump(path.parent, lock=tmp_path / "lock")

    assert len(readings) == 1


def test_a_file_that_always_changes_fails_the_backup(
    folder: Path, after_first_block: Hook
) -> None:
    """After four attempts the file is named, and what would help."""
    times: list[None] = []

    def change() -> None:
        times.append(None)
        (folder / "b").write_text("b" * len(times))

    after_first_block(change)
    (folder / "a").unlink()
    with pytest.raises(
        BackupFailed, match=r"b in .* changed each of the 4 times"
    ) as raised:
        dump(folder)

    assert len(times) == 4
    assert raised.value.exit_code == 40
    assert "lock" in raised.value.hint
    assert "exclude" in raised.value.hint


def test_a_file_that_was_replaced_while_it_was_read_is_whole(
    folder: Path, after_first_block: Hook
) -> None:
    """A rename over the name leaves the old file whole; the warning tells of the new."""

    def replace() -> None:
        (folder / "new").write_text("new")
        (folder / "new").rename(folder / "a")

    after_first_block(_times(1, replace))
    dumped = dump(folder)

    assert dumped.record("a").size_bytes == 1
    assert dumped.paths == ["a", "b", "c"]
    assert len(dumped.warnings) == 1
    assert "changed while the rest was read: a." in dumped.warnings[0]


def test_a_file_that_is_replaced_again_and_again_is_stored(
    folder: Path, after_first_block: Hook
) -> None:
    """A service that replaces its files atomically never fails the backup."""

    def replace() -> None:
        for name in "abc":
            (folder / "new").write_text("new")
            (folder / "new").rename(folder / name)

    after_first_block(replace)

    assert dump(folder).paths == ["a", "b", "c"]


def _act_after(
    folder: Path, path: str, act: Callable[[], object], **options: object
) -> Dumped:
    """Dump a directory, and do something once a path has been stored."""
    with dumping(folder, **options) as opened:
        blocks, done = [], False
        for block in opened.stream():
            blocks.append(block)
            if not done and opened.records[-1].path == path:
                done = True
                act()
        assert done
        return Dumped(b"".join(blocks), opened.records, tuple(opened.warnings))


def test_a_file_that_vanished_is_left_out_with_a_warning(folder: Path) -> None:
    """What is gone before it could be opened is named, and the rest is stored."""
    dumped = _act_after(folder, "a", (folder / "b").unlink)

    assert dumped.paths == ["a", "c"]
    assert "vanished before it could be read: b" in dumped.warnings


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (lambda folder: (folder / "a").write_text("later"), "a"),
        (lambda folder: (folder / "a").chmod(0o600), "a"),
        (lambda folder: (folder / "a").unlink(), "a"),
        (lambda folder: (folder / "new").touch(), "new"),
        (lambda folder: folder.chmod(0o750), "the folder itself"),
    ],
    ids=["content", "mode", "removed", "added", "directory"],
)
def test_files_that_changed_after_they_were_read_are_named(
    folder: Path, act: Callable[[Path], None], named: str
) -> None:
    """One archive of files that never were together is a warning with a way out."""
    dumped = _act_after(folder, "b", lambda: act(folder))

    assert dumped.warnings == (
        f"changed while the rest was read: {named}. "
        "Name the lock of its service in [files.state] lock",
    )


def test_no_more_than_five_changed_files_are_named(tmp_path: Path) -> None:
    """A warning stays short however much has changed."""
    for number in range(9):
        (tmp_path / str(number)).touch()
    dumped = _act_after(
        tmp_path, "8", lambda: [(tmp_path / str(n)).write_text("x") for n in range(7)]
    )

    assert "read: 0, 1, 2, 3, 4 and 2 more." in dumped.warnings[0]


def test_a_directory_swapped_for_a_link_does_not_lead_out(
    tmp_path: Path, folder: Path
) -> None:
    """Nothing of what a link leads to is stored, even if it has just been put there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key").write_text("secret")
    # It is listed before the files, and read after them.
    inside = folder / "0"
    inside.mkdir()
    (inside / "key").write_text("harmless")

    def swap() -> None:
        inside.rename(tmp_path / "moved")
        inside.symlink_to(outside)

    dumped = _act_after(folder, "a", swap)

    assert b"secret" not in dumped.tar
    assert dumped.paths == ["a", "b", "c"]
    assert "vanished before it could be read: 0" in dumped.warnings


def test_a_file_swapped_for_a_link_or_a_pipe_is_not_followed(
    tmp_path: Path, folder: Path
) -> None:
    """What has taken a file's place is stored as what it is."""
    (tmp_path / "secret").write_text("secret")

    def swap() -> None:
        (folder / "b").unlink()
        (folder / "b").symlink_to(tmp_path / "secret")
        (folder / "c").unlink()
        os.mkfifo(folder / "c")

    dumped = _act_after(folder, "a", swap)

    assert dumped.record("b").type == "symlink"
    assert dumped.record("c").type == "fifo"
    assert b"secret" not in dumped.tar.replace(os.fsencode(tmp_path / "secret"), b"")


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_a_file_swapped_right_before_it_is_opened_is_looked_at_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Neither is a link followed then, nor does a pipe hold the backup up."""
    (tmp_path / "elsewhere").write_text("secret")
    real = Entry.opened

    def swap_and_open(entry: Entry) -> AbstractContextManager[int]:
        if entry.path == "b" and (folder / "b").is_file():
            (folder / "b").unlink()
            if kind == "symlink":
                (folder / "b").symlink_to("../elsewhere")
            elif kind == "fifo":
                os.mkfifo(folder / "b")
            else:
                (folder / "b").mkdir()
        return real(entry)

    monkeypatch.setattr(Entry, "opened", swap_and_open)
    dumped = dump(folder)

    assert b"secret" not in dumped.tar
    assert dumped.record("b").type == kind


@pytest.mark.parametrize("becomes", ["link", "file"])
def test_a_link_that_changes_while_it_is_read_is_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    """Its text and its times belong to one and the same link."""
    link = folder / "link"
    link.symlink_to("first")
    real = Entry.read_link

    def swap_and_read(entry: Entry) -> str:
        if os.path.islink(link) and os.readlink(link) == "first":
            found = real(entry) if becomes == "link" else ""
            link.unlink()
            if becomes == "file":
                link.touch()
                return real(entry)
            link.symlink_to("second")
            return found
        return real(entry)

    monkeypatch.setattr(Entry, "read_link", swap_and_read)
    record = dump(folder).record("link")

    assert record.target == ("second" if becomes == "link" else "")
    assert record.type == ("symlink" if becomes == "link" else "file")


@pytest.mark.parametrize(
    ("age_ns", "waits"), [(0, 1), (19_000_000, 1), (21_000_000, 0)]
)
def test_a_file_that_was_just_written_is_left_alone_for_a_moment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, age_ns: int, waits: int
) -> None:
    """Within a step of the file system's clock, a write would leave no trace."""
    waited: list[float] = []
    (folder / "b").unlink()
    (folder / "c").unlink()
    written_ns = (folder / "a").stat().st_ctime_ns
    monkeypatch.setattr("time.time_ns", lambda: written_ns + age_ns)
    monkeypatch.setattr("time.sleep", waited.append)
    dump(folder)

    assert len(waited) == waits
    assert all(0 < each <= 0.02 for each in waited)


def test_a_directory_that_vanished_meanwhile_fails_the_backup(
    tmp_path: Path, folder: Path
) -> None:
    """An archive of a directory that is not there any more is no success."""
    with pytest.raises(BackupFailed, match="vanished while it was read"):
        _act_after(folder, "c", lambda: folder.rename(tmp_path / "moved"))


def test_a_directory_that_was_replaced_meanwhile_is_told(
    tmp_path: Path, folder: Path
) -> None:
    """The archive is of the old one; the name stands for another now."""
    (tmp_path / "other").mkdir()
    link = tmp_path / "current"
    link.symlink_to(folder)

    def replace() -> None:
        link.unlink()
        link.symlink_to(tmp_path / "other")

    dumped = _act_after(link, "c", replace)

    assert dumped.paths == ["a", "b", "c"]
    assert "the rest was read: the folder itself" in dumped.warnings[0]


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A file under the path is a fault of the configuration."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="is not a folder"):
        dump(tmp_path / "file")


def test_a_path_that_is_not_there_fails_the_backup(tmp_path: Path) -> None:
    """Nothing to back up is not success."""
    with pytest.raises(BackupFailed, match="No such file"):
        dump(tmp_path / "nothing")


@pytest.mark.parametrize("locked", ["a", "d", "d/x"])
def test_what_may_not_be_read_is_named(
    shared_path: Path, unprivileged: Unprivileged, locked: str
) -> None:
    """A backup that lacks a file is none."""
    with unprivileged():
        (shared_path / "d").mkdir()
        (shared_path / "a").touch()
        (shared_path / "d" / "x").touch()
        (shared_path / locked).chmod(0)
        try:
            with pytest.raises(BackupFailed, match="Permission denied") as raised:
                dump(shared_path)
        finally:
            (shared_path / locked).chmod(0o700)

    assert raised.value.message.startswith(f"{locked} in {shared_path}")
    assert raised.value.exit_code == 40


@pytest.mark.skipif(not IS_ROOT, reason="only root may set such an attribute here")
def test_extended_attributes_are_told_of(folder: Path) -> None:
    """What is not stored does not vanish in silence."""
    try:
        os.setxattr(folder / "b", "user.note", b"x")
    except OSError:
        pytest.skip("the file system has no extended attributes")

    assert dump(folder).warnings == (
        "extended attributes and access control lists are not stored, as of b",
    )


def test_a_spool_that_is_full_fails_the_backup(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full temporary folder is not taken for a file that vanished."""
    (folder / "large").write_bytes(b"x" * 9 * MIB)

    with pytest.raises(BackupFailed, match="cannot hold a file while it is read"):
        dump(folder, spool_dir=folder / "nothing")


def test_a_link_within_a_file_that_changed_is_a_file_of_its_own(folder: Path) -> None:
    """A second name of a file that was written to meanwhile is read again."""
    os.link(folder / "a", folder / "d")
    dumped = _act_after(folder, "b", lambda: (folder / "a").write_text("later"))

    assert dumped.record("d").type == "file"
    assert dumped.record("d").size_bytes == 5


def test_a_sparse_file_in_many_pieces_is_stored_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a number of pieces, holes are stored as zeros and restored as holes."""
    monkeypatch.setattr("opskit.folders.archive._SEGMENTS_MAX", 2)
    folder = tmp_path / "state"
    folder.mkdir()
    with (folder / "a").open("wb") as file:
        for number in range(6):
            file.seek(number * MIB)
            file.write(b"x")
        file.truncate(7 * MIB)
    dumped = dump(folder)
    copy = extracted(dumped, tmp_path / "copy")

    assert differences(copy, dumped) == {}
    assert (copy / "a").stat().st_blocks <= (folder / "a").stat().st_blocks * 16


def test_too_much_data_between_holes_is_stored_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the header of a sparse member cannot count is stored as a plain file."""
    monkeypatch.setattr("opskit.folders.archive._SPARSE_BYTES_MAX", 100)
    folder = tmp_path / "state"
    folder.mkdir()
    make_sparse(folder / "a", 3 * MIB)
    dumped = dump(folder)
    copy = extracted(dumped, tmp_path / "copy")

    assert len(dumped.tar) > 3 * MIB
    assert differences(copy, dumped) == {}
    assert (copy / "a").stat().st_blocks * 512 < MIB


def test_the_archive_is_a_plain_tar(odd: tuple[Path, Dumped]) -> None:
    """The standard library reads it to its end, and its length is one of records."""
    _folder, dumped = odd
    with tarfile.open(fileobj=io.BytesIO(dumped.tar)) as archive:
        names = archive.getnames()

    assert len(names) == len(dumped.records)
    assert len(dumped.tar) % tarfile.RECORDSIZE == 0
    assert dumped.tar.endswith(bytes(1024))
