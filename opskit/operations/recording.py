"""The record of what tasks do: every outcome into the ledger and its copies."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from opskit import log
from opskit.errors import (
    BackupFailed,
    DatabaseError,
    OpskitError,
    StoreError,
    machine_faults,
)
from opskit.ledger import Ledger, LedgerEntry, copies, sync
from opskit.ledger.sync import LedgerReport
from opskit.store import Store


@dataclass(frozen=True, kw_only=True)
class RunLedger:
    """The ledger of one host and state folder, as one run sees it."""

    folder: Path
    stores: Sequence[Store]
    run_id: str
    clock: Callable[[], datetime]

    @property
    def id(self) -> str:
        """What the ledger is called in the stores."""
        return copies.ledger_id(socket.gethostname(), self.folder.resolve())

    @cached_property
    def _ledger(self) -> Ledger:
        return sync.connected(
            self.folder / "ledger.jsonl",
            ledger_id=self.id,
            stores=self.stores,
            told=log.logger().warning,
        )

    def entries(self) -> list[LedgerEntry]:
        """Return every record, oldest first.

        Raises:
            IntegrityError: a line is not a record.
        """
        return self._ledger.entries()

    def verify(self) -> LedgerReport:
        """Compare the records with each other and with their copies."""
        return sync.verify_with_copies(
            self._ledger, ledger_id=self.id, stores=self.stores
        )

    @contextmanager
    def recorded(
        self, operation: str, details: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Append the outcome of the block to the ledger, whatever it is.

        The block may add to `details`. A copy goes to every store; one that cannot be
        made now is made by a later run.
        """
        outcome = "failed"
        stores = self.stores
        try:
            with machine_faults(operation):
                yield details
            outcome = "ok"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        except OpskitError as error:
            words = error.message
            if isinstance(error, DatabaseError | BackupFailed):
                # A server's words may hold rows, and the copies lie in the open.
                words = words.partition(":")[0]
            details |= {"error": words, "code": error.exit_code}
            if isinstance(error, StoreError):
                stores = ()  # what has just failed is not waited for once more
            raise
        finally:
            failed = details.get("failed_stores", ())
            if self._append(operation, outcome, details):
                self._copy([each for each in stores if each.name not in failed])

    def _append(self, operation: str, outcome: str, details: dict[str, Any]) -> bool:
        """Append a record; return whether that could be done.

        What was done is done, and is reported as it ended, with or without a record.
        """
        try:
            with machine_faults("ledger"):
                self._ledger.append(
                    now=self.clock(),
                    run_id=self.run_id,
                    operation=operation,
                    outcome=outcome,
                    details=details,
                )
        except OpskitError as error:
            log.logger().error(
                "this run is not on record: the ledger cannot be written",
                path=str(self.folder),
                reason=error.message,
            )
            return False
        return True

    def _copy(self, stores: Sequence[Store]) -> None:
        try:
            with machine_faults("ledger"):
                pushed = sync.push(self._ledger, ledger_id=self.id, stores=stores)
        except OpskitError as error:
            log.logger().warning("the ledger was not copied", reason=error.message)
            return
        for each in (*pushed.failures, *pushed.notes):
            log.logger().warning(each)
