"""Standard output and error: a fault of theirs, or a closed one, ends no run."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


class Lasting(io.TextIOWrapper):
    """A stream that goes silent where it cannot be written to any more."""

    failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write a text, or nothing where that fails."""
        try:
            return super().write(text)
        except OSError as error:
            self._silence(error)
            return len(text)

    def flush(self) -> None:
        """Write what was held back, or nothing where that fails."""
        try:
            super().flush()
        except OSError as error:
            self._silence(error)

    def _silence(self, error: OSError) -> None:
        # What is left in the buffer would fail once more when the process ends.
        self.failure = error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        with suppress(OSError):
            super().flush()


def ready() -> None:
    """Let the standard streams survive failures, and print any name."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The next file that is opened would become a standard stream.
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream is not getattr(
            sys, f"__{name}__"
        ):
            stream.reconfigure(errors="backslashreplace")
        elif not isinstance(stream, Lasting):
            made = Lasting(
                os.fdopen(number, "wb", closefd=False),
                errors="backslashreplace",
                line_buffering=True,
            )
            setattr(sys, name, made)


def printable(text: str) -> str:
    """Return a text whose control characters are written out, but for ends of lines.

    Names come from servers and stores, and may hold what moves a cursor.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else ascii(each)[1:-1]
        for each in text
    )
