"""Source: what can be backed up, and what it says of itself once it was read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from opskit.catalog.manifest import StoredObject
from opskit.catalog.writer import SetWriter


class OpenSource(Protocol):
    """A source that nobody changes, or one moment of it."""

    def write(self, writer: SetWriter) -> dict[str, Any]:
        """Store the contents and return the manifest's fields about them.

        Raises:
            BackupFailed: they are not whole.
        """

    def guide(
        self,
        backup_id: str,
        objects: Sequence[StoredObject],
        *,
        encrypted: bool,
        signed: bool,
    ) -> str:
        """Return RESTORE.md for what was written."""

    def require_held(self) -> None:
        """Check that no other run can have begun since.

        Raises:
            OpskitError: the lock was lost.
        """


class Source(Protocol):
    """Something that backup sets are made of."""

    @property
    def name(self) -> str:
        """The name that the configuration gives it."""

    def opened(
        self, *, run_id: str, clock: Callable[[], datetime]
    ) -> AbstractContextManager[OpenSource]:
        """Lock the source and yield it, ready to be read.

        Raises:
            LockHeld: another run has it.
        """
