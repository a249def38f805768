"""One of the dumps that make up a set: a pg_dump whose bytes are read as they pass."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from opskit.postgres import client
from opskit.postgres.archive import ArchiveReader
from opskit.postgres.table_sizes import Weights


class DumpStream:
    """A pg_dump under the snapshot, and what its bytes said once they have gone by.

    `locked` is called once, when the program holds the locks of all its tables.
    """

    def __init__(
        self,
        *,
        role: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        locked: Callable[[], None],
    ) -> None:
        self.role = role
        self.reader = ArchiveReader()
        self.dump_bytes = 0
        self._begun = self._begun_at = 0
        self._arguments, self._environment = arguments, environment
        self._locked = locked
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ended = False

    def blocks(self) -> Iterator[bytes]:
        """Yield the dump's bytes.

        Raises:
            BackupFailed: pg_dump did not end well.
            ArchiveError: what it wrote is no whole archive.
        """
        has_locks = False
        with client.streaming(
            self._arguments, self._environment, started=self._begin
        ) as blocks:
            for block in blocks:
                self.reader.feed(block)
                if not has_locks and self.reader.has_contents:
                    has_locks = True
                    self._locked()
                begun = len(self.reader.begun)
                if begun > self._begun:
                    self._begun, self._begun_at = begun, self.dump_bytes
                self.dump_bytes += len(block)
                yield block
        self.reader.close()
        if not has_locks:  # a head that is read only now, as a whole
            self._locked()

    def bytes_passed(self, weights: Weights) -> int:
        """Return the weights of what has passed by, and a part of what does now."""
        if not self.reader.begun:
            return 0
        *done, current = self.reader.begun
        part = weights.part(
            current,
            rows=self.reader.rows_of_current,
            size_bytes=self.dump_bytes - self._begun_at,
        )
        return sum(map(weights.of, done)) + part

    def end(self) -> None:
        """End the program from another thread, also one that is yet to be started."""
        with self._guard:
            self._is_ended = True
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()

    def _begin(self, process: subprocess.Popen[bytes]) -> None:
        with self._guard:
            self._process = process
            if self._is_ended:
                process.terminate()
