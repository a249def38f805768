"""A store in a folder: what only a file system can do to it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opskit.config import StoreSettings
from opskit.errors import ObjectNotFound, ObjectUnreadable, StoreError
from opskit.store import LocalStore, open_store
from tests.unit import processes
from tests.unit.conftest import Unprivileged
from tests.unit.store_contract import CHUNKS, CONTENT, keys, read

Operation = Callable[[LocalStore], object]
OPERATIONS: dict[str, Operation] = {
    "put": lambda store: store.put("a/b", CHUNKS),
    "open": lambda store: read(store, "a/b"),
    "stat": lambda store: store.stat("a/b"),
    "list": lambda store: list(store.list()),
    "unfinished": lambda store: list(store.unfinished()),
    "delete": lambda store: store.delete("a/b"),
    "discard": lambda store: store.discard("a/"),
}
CHANGES = ("put", "delete", "discard")
_PUT = """
import sys
from opskit.store import LocalStore
def chunks():
    yield b"x" * 100
    print("ready", flush=True)
    sys.stdin.read()
LocalStore("disk", sys.argv[1]).put("shop/2026/dump", chunks())
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store in an empty folder."""
    return LocalStore("disk", tmp_path)


def _paths(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_url_names_the_folder(tmp_path: Path) -> None:
    """A configured URL is the folder behind `file://`, as it is written there."""
    folder = tmp_path / "a b"
    folder.mkdir()
    store = open_store("local", StoreSettings(url=f"file://{folder}"))
    store.put("c", CHUNKS)

    assert store.name == "local"
    assert (folder / "c").read_bytes() == CONTENT


def test_objects_are_for_their_owner_alone(store: LocalStore, tmp_path: Path) -> None:
    """Files are 0600 and folders 0700, whatever the umask."""
    umask = os.umask(0)
    try:
        store.put("shop/2026/dump", CHUNKS)
    finally:
        os.umask(umask)

    assert (tmp_path / "shop/2026/dump").stat().st_mode & 0o7777 == 0o600
    assert (tmp_path / "shop/2026").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "shop").stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_missing_folder_is_told(tmp_path: Path, name: str) -> None:
    """A folder that is not there, maybe not mounted, is never made."""
    store = LocalStore("disk", tmp_path / "none")

    with pytest.raises(StoreError, match=r"store disk: the folder .* does not exist"):
        OPERATIONS[name](store)

    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", CHANGES)
def test_a_read_only_folder_is_told(
    shared_path: Path, unprivileged: Unprivileged, name: str
) -> None:
    """Without the right to write, each change is refused and says what to do."""
    store = LocalStore("disk", shared_path)
    with unprivileged():
        store.put("a/b", CHUNKS)
        store.put("a/c", CHUNKS)
        (shared_path / "a").chmod(0o500)
        change: Operation = OPERATIONS[name] if name != "put" else _put_beside
        with pytest.raises(StoreError, match=r"store disk: a.*denied") as refused:
            change(store)
        (shared_path / "a").chmod(0o700)

    assert refused.value.exit_code == 10
    assert refused.value.hint == "Let this user read and write the folder."
    assert keys(store) == ["a/b", "a/c"]


def _put_beside(store: LocalStore) -> object:
    return store.put("a/d", CHUNKS)


def test_an_unreadable_object_is_told(
    shared_path: Path, unprivileged: Unprivileged
) -> None:
    """An object that may not be read is not taken for a missing one."""
    store = LocalStore("disk", shared_path)
    with unprivileged():
        store.put("a", CHUNKS)
        (shared_path / "a").chmod(0)
        with pytest.raises(StoreError, match="Permission denied") as refused:
            read(store, "a")

    assert not isinstance(refused.value, ObjectNotFound)


@pytest.mark.parametrize("step", ["os.fsync", "os.link", "tempfile.mkstemp"])
@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "Free some space"), (errno.EIO, "health")]
)
def test_a_disk_that_fails_stores_nothing(
    store: LocalStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
    hint: str,
) -> None:
    """A full or broken disk is an error of the store; no file is left of the object."""

    def failing(*_arguments: Any, **_options: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(f"opskit.files.{step}", failing)
        with pytest.raises(StoreError, match="store disk: dump: ") as refused:
            store.put("dump", CHUNKS)

    assert hint in refused.value.hint
    assert _paths(tmp_path) == []


def test_a_killed_upload_is_unfinished(store: LocalStore, tmp_path: Path) -> None:
    """What a killed process left is no object; it is told, and can be discarded."""
    with processes.holding(_PUT, tmp_path) as process:
        (running,) = store.unfinished("shop/")
        processes.kill(process)
    (left,) = store.unfinished("shop/")

    assert keys(store) == []
    assert running.key == left.key
    assert left.key.startswith("shop/2026/.dump.")
    assert list(store.unfinished("crm/")) == []

    store.discard("shop/2026/")

    assert list(store.unfinished()) == []


def test_a_key_is_free_after_a_killed_upload(store: LocalStore, tmp_path: Path) -> None:
    """What a killed process left is in nobody's way."""
    with processes.holding(_PUT, tmp_path) as process:
        processes.kill(process)
    store.put("shop/2026/dump", CHUNKS)

    assert read(store, "shop/2026/dump") == CONTENT
    assert keys(store) == ["shop/2026/dump"]


@pytest.mark.parametrize("way", ["delete", "discard"])
def test_no_empty_folders_are_left(store: LocalStore, tmp_path: Path, way: str) -> None:
    """With the last object its folders go too, but never the store's own."""
    store.put("shop/2026/a/dump", CHUNKS)
    store.put("shop/2027", CHUNKS)
    if way == "delete":
        store.delete("shop/2026/a/dump")
    else:
        store.discard("shop/2026/a/")

    assert _paths(tmp_path) == ["shop", "shop/2027"]

    store.delete("shop/2027")

    assert tmp_path.is_dir()
    assert _paths(tmp_path) == []


def test_links_are_not_followed_out_of_the_store(
    store: LocalStore, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A link to a folder elsewhere is not searched for objects."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(elsewhere)

    assert "link/secret" not in keys(store)


@pytest.mark.parametrize("way", ["folder", "file"])
@pytest.mark.parametrize("name", sorted({*OPERATIONS} - {"list", "unfinished"}))
def test_nothing_is_done_behind_a_link(
    store: LocalStore,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    way: str,
) -> None:
    """Neither a linked folder nor a linked file leads a call out of the store."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "b").write_text("secret")
    if way == "folder":
        (tmp_path / "a").symlink_to(elsewhere)
    else:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "b").symlink_to(elsewhere / "b")
    with contextlib.suppress(StoreError):
        found = OPERATIONS[name](store)
        assert found is None, "it read or wrote there"  # unlinking a link is right

    assert _paths(elsewhere) == ["b"]
    assert (elsewhere / "b").read_text() == "secret"


def test_what_is_no_regular_file_is_not_read(store: LocalStore, tmp_path: Path) -> None:
    """A pipe, a device or a link in place of an object is listed, and refused."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "socket"))

    assert keys(store) == ["device", "link", "pipe", "socket"]
    for key in keys(store):
        with pytest.raises(ObjectUnreadable):
            read(store, key)
        with pytest.raises(ObjectUnreadable):
            store.stat(key)


@pytest.mark.parametrize("folder", ["lost+found", "a", "a/b"])
def test_a_folder_that_cannot_be_read_hides_nothing_else(
    shared_path: Path,
    unprivileged: Unprivileged,
    capsys: pytest.CaptureFixture[str],
    folder: str,
) -> None:
    """It is one entry of the listing, and is reported once."""
    store = LocalStore("disk", shared_path)
    with unprivileged():
        for key in ("0/x", f"{folder}/x", "z/x"):
            store.put(key, CHUNKS)
        (shared_path / folder).chmod(0)
        found = [keys(store), keys(store)]
        (shared_path / folder).chmod(0o700)

    assert found == [["0/x", f"{folder}/", "z/x"]] * 2
    assert capsys.readouterr().out.count(str(shared_path / folder)) == 1


@pytest.mark.parametrize("prefix", ["a/", "a/b/", "a/b/x"])
def test_what_is_asked_for_must_be_readable(
    shared_path: Path, unprivileged: Unprivileged, prefix: str
) -> None:
    """A source whose folder cannot be listed is not one without sets."""
    store = LocalStore("disk", shared_path)
    with unprivileged():
        store.put("a/b/x", CHUNKS)
        (shared_path / "a").chmod(0)
        with pytest.raises(StoreError, match=f"store disk: {prefix}: Permission"):
            keys(store, prefix)
        (shared_path / "a").chmod(0o700)


def test_what_killed_writers_left_is_swept(store: LocalStore, tmp_path: Path) -> None:
    """Old temporary files go, in sets too; young ones and foreign ones stay."""
    store.put("shop/day/set/manifest.json", CHUNKS)
    store.put("_locks/shop/run/000000.json", CHUNKS)
    old = [
        "shop/day/set/evidence/.20260101T000000Z-verify.json.k3_2abcd",
        "shop/day/set/.dump.zst.abcdefgh",
        "_locks/other/run/.000001.json.zzzzzzzz",
        "shop/.hidden",
        ".DS_Store",
    ]
    for name in [*old, "shop/day/set/.young.abcdefgh"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in old:
        os.utime(tmp_path / name, (0, 0))
    swept = store.sweep("", before=datetime.now(UTC) - timedelta(days=1))
    left = [path for path in _paths(tmp_path) if (tmp_path / path).is_file()]

    assert swept == 3
    assert left == [
        ".DS_Store",
        "_locks/shop/run/000000.json",
        "shop/.hidden",
        "shop/day/set/.young.abcdefgh",
        "shop/day/set/manifest.json",
    ]
    assert not (tmp_path / "_locks/other").exists()


def test_a_set_that_goes_away_while_listing_is_passed_over(
    store: LocalStore,
) -> None:
    """Another run may prune while this one lists."""
    for key in ("a/1", "b/1", "c/1"):
        store.put(key, CHUNKS)

    def seen() -> Iterator[str]:
        for each in store.list():
            store.discard("b/")
            yield each.key

    assert list(seen()) == ["a/1", "c/1"]


def test_a_folder_that_cannot_be_synced_holds_no_object(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put that has failed in its very last step has stored nothing either."""

    def failing(_directory: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr("opskit.files.fsync_directory", failing)
        with pytest.raises(StoreError):
            store.put("dump", CHUNKS)

    assert _paths(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
def test_a_disk_that_cannot_be_read_is_reported() -> None:
    """A bad block is an error of one object, which it names, and not a bug."""
    store = LocalStore("disk", "/proc/self")

    with (
        pytest.raises(ObjectUnreadable, match="store disk: mem: Input/output error"),
        store.open("mem") as file,  # its first byte is an EIO
    ):
        file.read(1)


def test_a_folder_that_others_empty_meanwhile_is_made_again(tmp_path: Path) -> None:
    """Runs that put and delete in one folder do not fail at each other's removals."""
    store = LocalStore("disk", tmp_path)
    failed: list[StoreError] = []

    def work(number: int) -> None:
        try:
            for turn in range(200):
                store.put(f"a/b/{number}-{turn}", [b"x"])
                store.delete(f"a/b/{number}-{turn}")
        except StoreError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert list(store.list()) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_reported(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says so in its own way; nothing is left there."""

    def refuse(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)

    with pytest.raises(StoreError) as refused:
        LocalStore("local", tmp_path).put("a/b", [b"x"])

    assert "hard links" in refused.value.hint
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]
