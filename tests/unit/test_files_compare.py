"""The comparison of a copy: every difference is named, and none where there is none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opskit.errors import StoreError
from opskit.folders.copy import compare
from opskit.mutants.folders import plant
from tests.unit.files_sets import (
    IS_ROOT,
    Dumped,
    differences,
    dump,
    extracted,
    make_socket,
)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Dumped]:
    """A copy that is equal, and the archive that it was made of."""
    folder = tmp_path / "state"
    (folder / "d").mkdir(parents=True)
    (folder / "empty").mkdir()
    for name in ("a", "b", "d/c"):
        (folder / name).write_text(f"content of {name}")
    (folder / "link").symlink_to("a")
    os.link(folder / "a", folder / "zz")
    dumped = dump(folder)
    copy = extracted(dumped, tmp_path / "copy")
    assert differences(copy, dumped) == {}
    return copy, dumped


def _keeping_time(path: Path, act: Callable[[], object]) -> None:
    times = path.lstat().st_mtime_ns
    act()
    os.utime(path, ns=(times, times), follow_symlinks=False)


def _replace(path: Path, act: Callable[[], object]) -> None:
    path.unlink()
    act()


ALTERED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "content": (
        lambda c: _keeping_time(c / "b", lambda: (c / "b").write_text("CONTENT of b")),
        "b",
        "sha256",
    ),
    "size": (lambda c: _keeping_time(c / "b", lambda: (c / "b").write_text("")), "b", "size_bytes"),
    "time": (lambda c: os.utime(c / "b", ns=(0, (c / "b").stat().st_mtime_ns + 1)), "b", "mtime_ns"),
    "mode": (lambda c: (c / "b").chmod(0o640), "b", "mode: 0644 is expected, 0640 is there"),
    "removed": (lambda c: (c / "d" / "c").unlink(), "d/c", "is missing"),
    "added": (lambda c: (c / "d" / "new").touch(), "d/new", "is not in the set"),
    "empty directory": (lambda c: (c / "empty").rmdir(), "empty", "is missing"),
    "directory added": (lambda c: (c / "d" / "e").mkdir(), "d/e", "is not in the set"),
    "link": (
        lambda c: _replace(c / "link", lambda: (c / "link").symlink_to("b")),
        "link",
        "target: a is expected, b is there",
    ),
    "link for a file": (
        lambda c: _replace(c / "b", lambda: (c / "b").symlink_to("a")),
        "b",
        "type: file is expected, symlink is there",
    ),
    "hard link broken": (
        lambda c: _replace(c / "zz", lambda: (c / "zz").write_text("content of a")),
        "zz",
        "type: hardlink is expected, file is there",
    ),
    "hard link made": (
        lambda c: _replace(c / "b", lambda: os.link(c / "a", c / "b")),
        "b",
        "type: file is expected, hardlink is there",
    ),
    "directory for a file": (
        lambda c: _replace(c / "b", lambda: (c / "b").mkdir()),
        "b",
        "type: file is expected, directory is there",
    ),
    "root's mode": (lambda c: c.chmod(0o711), ".", "mode"),
    "directory's time": (lambda c: os.utime(c / "d", ns=(0, 1)), "d", "mtime_ns"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_an_alteration_is_named(made: tuple[Path, Dumped], name: str) -> None:
    """The check of the entry says what was expected and what is there."""
    copy, dumped = made
    alter, path, words = ALTERED[name]
    alter(copy)
    found = differences(copy, dumped)

    assert words in found[f"file {path}"]
    assert "files" in found


@pytest.mark.skipif(not IS_ROOT, reason="only root may give files away")
def test_another_owner_is_named(made: tuple[Path, Dumped]) -> None:
    """Root restores owners, so they are compared."""
    copy, dumped = made
    os.chown(copy / "link", 12345, 23456, follow_symlinks=False)

    assert differences(copy, dumped)["file link"] == (
        "uid: 0 is expected, 12345 is there; gid: 0 is expected, 23456 is there"
    )


def test_a_socket_in_a_file_s_place_is_named(
    made: tuple[Path, Dumped], tmp_path: Path
) -> None:
    """What has no record's type is a difference like any other."""
    copy, dumped = made
    (copy / "b").unlink()
    make_socket(copy / "b", tmp_path / "s")

    assert "a socket or a device is there" in differences(copy, dumped)["file b"]


def test_an_equal_copy_passes_with_its_number(made: tuple[Path, Dumped]) -> None:
    """The one check says how many entries were compared."""
    copy, dumped = made
    checks = compare(copy, dumped.records)

    assert [(each.name, each.passed) for each in checks] == [("files", True)]
    assert checks[0].observed == f"{len(dumped.records)} equal entries"


def test_a_comparison_with_no_records_fails(tmp_path: Path) -> None:
    """What compared nothing has not passed, even if nothing is there."""
    checks = compare(tmp_path, ())

    assert not checks[0].passed
    assert "names no entry at all" in checks[0].detail


def test_only_the_first_hundred_have_a_check_each(tmp_path: Path) -> None:
    """All are counted, but an evidence stays readable."""
    folder = tmp_path / "state"
    folder.mkdir()
    dumped = dump(folder)
    copy = extracted(dumped, tmp_path / "copy")
    for number in range(150):
        (copy / f"{number:03}").touch()
    os.utime(copy, ns=(0, dumped.records[0].mtime_ns))
    checks = compare(copy, dumped.records)

    assert len(checks) == 101
    assert checks[0].observed == "150 differ"
    assert checks[1].name == "file 000"


def test_a_copy_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """That is no difference of the set."""
    with pytest.raises(StoreError, match="cannot be read"):
        compare(tmp_path / "nothing", ())


def test_known_digests_spare_the_reading_of_those_files_alone(
    made: tuple[Path, Dumped],
) -> None:
    """A file with a known digest is not read, every other one is."""
    copy, dumped = made
    for name in "ab":
        path = copy / name
        _keeping_time(path, lambda path=path: path.write_text("CONTENT of x"))  # type: ignore[misc]
    known = {"a": dumped.record("a").sha256}
    names = [each.name for each in compare(copy, dumped.records, known=known)]

    assert names == ["files", "file b"]


_NAMES = st.binary(min_size=1, max_size=8).filter(
    lambda name: (
        not {b"/", b"\0"} & {bytes([byte]) for byte in name}
        and name not in (b".", b"..")
    )
)
_LEAVES = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.just("link"), _NAMES),
    st.just("pipe"),
    st.just("sparse"),
    st.just("hard"),
)
_TREES = st.recursive(
    st.dictionaries(_NAMES, _LEAVES, max_size=5),
    lambda below: st.dictionaries(_NAMES, st.one_of(_LEAVES, below), max_size=4),
    max_leaves=12,
)


def _make(place: bytes, tree: dict[bytes, object], files: list[bytes]) -> None:
    os.mkdir(place)
    for name, what in tree.items():
        path = os.path.join(place, name)
        if isinstance(what, dict):
            _make(path, what, files)
        elif isinstance(what, tuple):
            os.symlink(what[1], path)
        elif what == "pipe":
            os.mkfifo(path)
        elif what == "hard" and files:
            os.link(files[0], path)
        else:
            files.append(path)
            with open(path, "wb") as file:
                if isinstance(what, bytes):
                    file.write(what)
                else:
                    file.truncate(200_000)


@settings(max_examples=40)
@given(
    tree=_TREES,
    modes=st.lists(st.integers(0, 0o7777), min_size=1, max_size=8),
    times=st.lists(st.integers(-(10**18), 4 * 10**18), min_size=1, max_size=8),
    seed=st.text("abc", min_size=1, max_size=3),
)
def test_any_tree_comes_back_and_any_damage_is_noticed(
    tree: dict[bytes, object], modes: list[int], times: list[int], seed: str
) -> None:
    """Random trees are equal after dump and extraction, and no mutant survives."""
    with tempfile.TemporaryDirectory() as base:
        folder = os.path.join(os.fsencode(base), b"state")
        _make(folder, tree, [])
        places = [
            os.path.join(parent, name)
            for parent, folders, files in os.walk(folder, topdown=False)
            for name in (*folders, *files)
        ]
        for number, place in enumerate([*places, folder]):
            if not os.path.islink(place):
                owner_bits = 0 if IS_ROOT else 0o700
                os.chmod(place, modes[number % len(modes)] | owner_bits)
            mtime_ns = times[number % len(times)]
            os.utime(place, ns=(0, mtime_ns), follow_symlinks=False)
        dumped = dump(Path(base, "state"))
        copy = extracted(dumped, Path(base, "copy"))
        found = differences(copy, dumped)
        report, left = plant(copy, dumped.records, number=12, seed=seed)
        differing = [check.name for check in left if not check.passed]

    assert len(dumped.records) == len(places) + 1
    assert found == {}
    assert report.survivors == ()
    assert report.planted
    assert differing == []
