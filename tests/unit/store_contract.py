"""The contract of a store as a suite: inherit it and give it a `store` fixture."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest

from opskit.errors import ObjectExists, ObjectNotFound, StoreError
from opskit.store import ObjectInfo, Store

CHUNKS = [b"first ", b"", b"second ", b"third"]
CONTENT = b"".join(CHUNKS)
# More than one part of an upload to S3, and no whole number of them.
LARGE = [bytes([number]) * 1_000_001 for number in range(18)]
# In the order of keys, which is that of their characters, "/" among them.
KEYS = ["a-b", "a.b", "a/b", "a/b-c", "a/b.d/e", "a/b0", "a0", "b/x/y/z", "b ä/ü", "c"]
ODD_KEYS = ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/..", "a\0b"]


def read(store: Store, key: str, start: int = 0) -> bytes:
    """Return an object's bytes."""
    with store.open(key, start) as file:
        return file.read()


def keys(store: Store, prefix: str = "") -> list[str]:
    """Return the keys that a store lists."""
    return [each.key for each in store.list(prefix)]


class StoreContract:
    """What every store and every wrapper of one must do."""

    # Whether an object has the same time in a listing as it has by itself.
    ONE_TIME: ClassVar[bool] = True

    def assert_lists_only(self, store: Store, put: ObjectInfo) -> None:
        """Demand that a store lists what was put, as it was put."""
        (listed,) = store.list()
        if not self.ONE_TIME:
            assert put.modified_at <= listed.modified_at
            put = replace(put, modified_at=listed.modified_at)
        assert listed == put

    def test_an_object_comes_back_as_it_was_put(self, store: Store) -> None:
        """Content, size and time of an object are what was stored."""
        before = datetime.now(UTC) - timedelta(seconds=2)
        put = store.put("shop/2026/dump", CHUNKS)

        assert read(store, "shop/2026/dump") == CONTENT
        assert (put.key, put.size_bytes) == ("shop/2026/dump", len(CONTENT))
        assert before <= put.modified_at <= datetime.now(UTC) + timedelta(seconds=2)
        assert store.stat("shop/2026/dump") == put
        self.assert_lists_only(store, put)

    def test_an_empty_object_is_an_object(self, store: Store) -> None:
        """No chunks at all make an object of no bytes."""
        assert store.put("a", []).size_bytes == 0
        assert read(store, "a") == b""

    @pytest.mark.parametrize("start", [0, 1, 6, len(CONTENT) - 1, len(CONTENT), 1000])
    def test_reading_starts_where_it_is_asked_to(
        self, store: Store, start: int
    ) -> None:
        """An offset leaves out what is before it, all of it beyond the end."""
        store.put("a", CHUNKS)

        assert read(store, "a", start) == CONTENT[start:]

    def test_reading_in_pieces_reads_everything(self, store: Store) -> None:
        """What `open` yields is a file that gives its bytes piece by piece."""
        store.put("a", CHUNKS)
        with store.open("a") as file:
            pieces = list(iter(lambda: file.read(4), b""))

        assert b"".join(pieces) == CONTENT
        assert len(pieces) > 1

    def test_objects_are_listed_in_the_order_of_their_keys(self, store: Store) -> None:
        """The order does not depend on when or how deep an object was put."""
        for key in reversed(KEYS):
            store.put(key, [key.encode()])

        assert keys(store) == sorted(KEYS)
        assert [each.size_bytes for each in store.list()] == [
            len(key.encode()) for key in sorted(KEYS)
        ]

    @pytest.mark.parametrize(
        "prefix",
        ["", "a", "a/", "a/b", "a/b.", "a/b.d/", "b/x/y", "b ", "c", "d", "a//"],
    )
    def test_a_prefix_is_the_beginning_of_a_key(
        self, store: Store, prefix: str
    ) -> None:
        """A prefix may end anywhere, also in the middle of a name."""
        for key in KEYS:
            store.put(key, [b"x"])

        assert keys(store, prefix) == sorted(k for k in KEYS if k.startswith(prefix))

    def test_an_object_is_never_overwritten(self, store: Store) -> None:
        """A key that is taken is refused, and what is there stays."""
        store.put("a", CHUNKS)
        with pytest.raises(ObjectExists, match="a exists"):
            store.put("a", [b"other"])

        assert read(store, "a") == CONTENT

    def test_of_many_that_put_one_key_one_succeeds(self, store: Store) -> None:
        """Writers at the same time do not overwrite each other."""
        together = threading.Barrier(4)
        refused = []

        def chunks(number: int) -> Iterator[bytes]:
            yield b"%d" % number
            together.wait(timeout=30)

        def put(number: int) -> None:
            try:
                store.put("a", chunks(number))
            except ObjectExists:
                refused.append(number)

        threads = [threading.Thread(target=put, args=[n]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = {0, 1, 2, 3} - set(refused)

        assert len(winners) == 1
        assert read(store, "a") == b"%d" % winners.pop()

    def test_nothing_is_visible_before_its_end(self, store: Store) -> None:
        """While an object is being put, it neither exists nor is listed."""
        seen: list[object] = []

        def chunks() -> Iterator[bytes]:
            for chunk in CHUNKS:
                yield chunk
                seen.extend(store.list())
                with pytest.raises(ObjectNotFound):
                    store.stat("a/b")

        store.put("a/b", chunks())

        assert seen == []
        assert keys(store) == ["a/b"]
        assert list(store.unfinished()) == []

    @pytest.mark.parametrize("after", range(len(CHUNKS) + 1))
    @pytest.mark.parametrize(
        "error",
        [
            ValueError("no"),
            FileNotFoundError(2, "no"),
            FileExistsError(17, "no"),
            StoreError("no"),
            KeyboardInterrupt(),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_an_object_is_stored_as_a_whole_or_not_at_all(
        self, store: Store, after: int, error: BaseException
    ) -> None:
        """If the chunks raise, at whichever, nothing is stored; the error comes out."""

        def chunks() -> Iterator[bytes]:
            yield from CHUNKS[:after]
            raise error

        with pytest.raises(type(error)) as raised:
            store.put("a/b", chunks())

        assert raised.value is error
        assert keys(store) == []
        assert list(store.unfinished()) == []
        assert store.put("a/b", CHUNKS).size_bytes == len(CONTENT)

    def test_a_large_object_comes_back_as_it_was_put(self, store: Store) -> None:
        """What is too large for one request is one object, readable from anywhere."""
        content = b"".join(LARGE)
        put = store.put("a/b", LARGE)

        assert read(store, "a/b") == content
        assert read(store, "a/b", 8 * 1024**2 - 1) == content[8 * 1024**2 - 1 :]
        assert read(store, "a/b", len(content)) == b""
        assert put.size_bytes == len(content)
        self.assert_lists_only(store, put)
        assert list(store.unfinished()) == []

    def test_a_large_object_overwrites_nothing(self, store: Store) -> None:
        """A key that is taken is refused also for what comes in parts."""
        store.put("a", CHUNKS)
        with pytest.raises(ObjectExists, match="a exists"):
            store.put("a", LARGE)

        assert read(store, "a") == CONTENT
        assert list(store.unfinished()) == []

    def test_a_large_object_that_breaks_off_leaves_nothing(self, store: Store) -> None:
        """Parts that were stored before the chunks raised are removed."""
        error = ValueError("no")

        def chunks() -> Iterator[bytes]:
            yield from LARGE
            raise error

        with pytest.raises(ValueError, match="no") as raised:
            store.put("a/b", chunks())

        assert raised.value is error
        assert keys(store) == []
        assert list(store.unfinished()) == []

    def test_of_two_large_objects_for_one_key_one_is_stored(self, store: Store) -> None:
        """Whoever ends second is refused, also if both began before."""

        def chunks() -> Iterator[bytes]:
            yield from LARGE
            store.put("a", [b"first"])

        with pytest.raises(ObjectExists):
            store.put("a", chunks())

        assert read(store, "a") == b"first"
        assert list(store.unfinished()) == []

    def test_a_missing_object_is_told(self, store: Store) -> None:
        """What is not there is an error that names the store and the key."""
        store.put("a/b", CHUNKS)
        for key in ("c", "a/c", "a/b/c", "b/c/d"):
            with pytest.raises(ObjectNotFound, match=rf"{store.name}.* {key}$"):
                store.stat(key)
            with (
                pytest.raises(ObjectNotFound, match=rf"{store.name}.* {key}$"),
                store.open(key),
            ):
                pass

    def test_a_folder_is_no_object(self, store: Store) -> None:
        """The beginning of a key is not a key."""
        store.put("a/b", CHUNKS)

        with pytest.raises(ObjectNotFound):
            store.stat("a")
        with pytest.raises(ObjectNotFound), store.open("a"):
            pass

    def test_a_deleted_object_is_gone(self, store: Store) -> None:
        """Deleting takes one object, and succeeds if there is none."""
        for key in ("a/b", "a/b-c", "a/c/d"):
            store.put(key, CHUNKS)
        store.delete("a/b")
        store.delete("a/b")
        store.delete("x/y/z")

        assert keys(store) == ["a/b-c", "a/c/d"]
        with pytest.raises(ObjectNotFound):
            store.stat("a/b")
        assert store.put("a/b", [b"new"]).size_bytes == 3

    def test_discarding_takes_what_is_below_a_prefix(self, store: Store) -> None:
        """Everything below the prefix goes, its neighbours stay."""
        for key in ("a/b/1", "a/b/c/2", "a/b-c/3", "a/bc", "b/a/b/4"):
            store.put(key, CHUNKS)
        store.discard("a/b/")
        store.discard("a/b/")
        store.discard("x/y/")

        assert keys(store) == ["a/b-c/3", "a/bc", "b/a/b/4"]

    @pytest.mark.parametrize("key", [*ODD_KEYS, "a/.b", ".a"], ids=repr)
    def test_odd_keys_are_refused(self, store: Store, key: str) -> None:
        """Keys that some store could not hold, or that climb out of it, are refused."""
        with pytest.raises(StoreError, match="is not a key"):
            store.put(key, CHUNKS)
        with pytest.raises(StoreError, match="is not a key"), store.open(key):
            pass
        with pytest.raises(StoreError, match="is not a key"):
            store.stat(key)
        with pytest.raises(StoreError, match="is not a key"):
            store.delete(key)

        assert keys(store) == []
