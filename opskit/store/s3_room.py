"""Room for parts in memory: for all uploads of a store together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

# One that is being gathered, and two on their way.
_PARTS = 3
_SMALL_PART_BYTES = 16 * 1024**2


class Room:
    """Counts the parts that are held, from before their first byte until they are sent.

    However many uploads there are, each can hold the part that it gathers, and there is
    always room for one more: so one of them is on its way, or can be.
    """

    def __init__(self) -> None:
        self._held = self._uploads = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def upload(self) -> Iterator[None]:
        """Count an upload while the block lasts."""
        self._count(uploads=1)
        try:
            yield
        finally:
            self._count(uploads=-1)

    def take(self, part_bytes: int) -> None:
        """Wait until there is room for another part, of about the size given."""
        with self._changed:
            self._changed.wait_for(lambda: self._held < self._limit(part_bytes))
            self._held += 1

    def give_back(self) -> None:
        """A part is no longer held."""
        self._count(held=-1)

    def _limit(self, part_bytes: int) -> int:
        one_more = self._uploads + 1
        return one_more if part_bytes > _SMALL_PART_BYTES else max(_PARTS, one_more)

    def _count(self, *, uploads: int = 0, held: int = 0) -> None:
        with self._changed:
            self._uploads += uploads
            self._held += held
            self._changed.notify_all()
