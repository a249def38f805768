"""Standard output and error: a run goes on if they fail or are closed."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


class SafeStream(io.TextIOWrapper):
    """A stream that discards its output once it cannot be written to."""

    failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write a text, or discard it if that fails."""
        try:
            return super().write(text)
        except OSError as error:
            self._silence(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, or discard it if that fails."""
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


def protect_streams() -> None:
    """Make the standard streams survive failures, and able to print any name."""
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
        elif not isinstance(stream, SafeStream):
            binary = os.fdopen(number, "wb", closefd=False)
            safe = SafeStream(binary, errors="backslashreplace", line_buffering=True)
            setattr(sys, name, safe)


def printable(text: str) -> str:
    """Return a text with control characters escaped, except ends of lines.

    Names come from servers and stores, and may hold escape sequences.
    """
    return "".join(
        each if each.isprintable() or each == "\n" else ascii(each)[1:-1]
        for each in text
    )
