"""Room for parts: bounded for all uploads together, and never a standstill."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from opskit.store.s3.client import Room

MIB = 1024**2
TIB = 1024**4
_SECONDS = 30.0


def _fits(room: Room, part_bytes: int) -> int:
    """Return how many parts can be taken before a taker has to wait."""
    taken = 0
    while True:
        waiting = threading.Thread(target=room.take, args=(part_bytes,), daemon=True)
        waiting.start()
        while waiting.is_alive() and not room._changed._waiters:  # type: ignore[attr-defined]
            waiting.join(0.01)
        if waiting.is_alive():
            room.give_back()  # it takes this one's place
            waiting.join(_SECONDS)
            assert not waiting.is_alive()
            return taken
        taken += 1


@pytest.mark.parametrize(
    ("uploads", "part_bytes", "count"),
    [
        (1, 0, 3),
        (1, 8 * MIB, 3),
        (1, 16 * MIB, 3),
        (1, 17 * MIB, 2),
        (1, TIB, 2),
        (2, 8 * MIB, 3),
        (2, TIB, 3),
        (5, 8 * MIB, 6),
    ],
)
def test_a_few_parts_are_held(uploads: int, part_bytes: int, count: int) -> None:
    """Fewer of large ones, and one more than there are uploads."""
    room = Room()
    with ExitStack() as stack:
        for _ in range(uploads):
            stack.enter_context(room.upload())

        assert _fits(room, part_bytes) == count


@pytest.mark.parametrize("uploads", [1, 2, 8])
def test_uploads_do_not_hold_each_other_up(uploads: int) -> None:
    """Each gathers a part while another of its own is sent; all of them end."""
    room = Room()

    def upload() -> int:
        sent = 0
        with room.upload(), ThreadPoolExecutor(2) as pool:
            for _ in range(50):
                room.take(8 * MIB)
                sent += 1
                pool.submit(room.give_back)
        return sent

    with ThreadPoolExecutor(uploads) as pool:
        jobs = [pool.submit(upload) for _ in range(uploads)]
        assert [each.result(_SECONDS) for each in jobs] == [50] * uploads


def test_who_waits_goes_on_when_an_upload_has_begun() -> None:
    """Its own part counts, whoever holds the others."""
    room = Room()
    for _ in range(3):
        room.take(1)
    waiting = threading.Thread(target=room.take, args=(1,), daemon=True)
    waiting.start()

    with room.upload(), room.upload(), room.upload():
        waiting.join(_SECONDS)
        assert not waiting.is_alive()
