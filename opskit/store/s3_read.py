"""The bytes of an object as they come from the server, short ones noticed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from opskit.errors import StoreUnavailable
from opskit.store.s3.errors import Where, translated

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Body(io.RawIOBase):
    """An answer's body; reading raises the store's errors.

    Args:
        body: boto3's stream.
        length_bytes: how many bytes must come.
    """

    def __init__(self, body: Any, length_bytes: int, where: Where, key: str) -> None:
        super().__init__()
        self._body, self._left_bytes = body, length_bytes
        self._where, self._key = where, key

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read as much as the server has sent.

        Raises:
            StoreUnavailable: the connection was cut, or the bytes ended early.
        """
        view = memoryview(buffer)
        with translated(self._where, self._key, reading=True):
            got = self._body.read(len(view))
        view[: len(got)] = got
        self._left_bytes -= len(got)
        if not got and len(view) and self._left_bytes > 0:
            raise StoreUnavailable(
                f"{self._where.text(self._key)}: {self._left_bytes} bytes are missing "
                "at the end of the server's answer",
                hint="Look at the network between here and the store; run again.",
            )
        return len(got)

    def skip(self, count: int) -> None:
        """Read and forget bytes that were not asked for."""
        while count > 0 and (got := self.read(min(count, 1024**2))):
            count -= len(got)

    def close(self) -> None:
        """Give the connection up."""
        if not self.closed:
            self._body.close()
        super().close()
