"""Work that is fed in a thread: whoever feeds it is never held up by its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from opskit.threads import Feed

_BLOCKS = [b"%d" % number for number in range(50)]


@pytest.mark.parametrize("taken", [0, 1, 49, 50])
def test_work_may_end_before_its_blocks(taken: int) -> None:
    """What it does not take any more is taken off the hands of the feeder."""
    got: list[bytes] = []
    feed = Feed(
        lambda blocks: got.extend(islice(blocks, taken)), name="x", blocks_max=1
    )
    for block in _BLOCKS:
        feed.put(block, 60)
    feed.finish(60)

    assert got == _BLOCKS[:taken]
    assert feed.error is None


def test_the_error_of_the_work_is_kept() -> None:
    """Feeding goes on for nothing, and nobody waits."""

    def work(blocks: Iterator[bytes]) -> None:
        next(blocks)
        raise ValueError("no")

    feed = Feed(work, name="x", blocks_max=1)
    for block in _BLOCKS:
        feed.put(block, 60)
    feed.finish(60)

    assert str(feed.error) == "no"


def test_work_that_takes_nothing_is_waited_for_as_long_as_said() -> None:
    """It is no error of the work; abandoned, it never sees an end of the blocks."""
    allowed = threading.Event()
    got: list[bytes] = []

    def work(blocks: Iterator[bytes]) -> None:
        allowed.wait(60)
        got.extend(blocks)
        got.append(b"the end")

    feed = Feed(work, name="x", blocks_max=1)
    feed.put(b"one", 60)
    with pytest.raises(TimeoutError):
        feed.put(b"two", 0.05)
    with pytest.raises(TimeoutError):
        feed.finish(0.05)
    feed.abandon(0)
    allowed.set()
    feed.finish(60)

    assert b"the end" not in got
    assert feed.error is None
