"""The ledger as one run sees it: in a file of this host, with copies in the stores."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from opskit import log
from opskit.errors import (
    ConfigurationError,
    OpskitError,
    StoreError,
    machine_faults,
)
from opskit.ledger import Ledger, LedgerEntry, copies
from opskit.ledger.copies import LedgerReport
from opskit.ledger.ledger import first_number, read_sent, sent_names
from opskit.operations.outcome import Record
from opskit.operations.schedule import SCHEDULER
from opskit.store import Store


@dataclass(frozen=True, kw_only=True)
class RunLedger:
    """The ledger of one host and state folder, as one run sees it."""

    folder: Path
    stores: Sequence[Store]
    clock: Callable[[], datetime]
    name: str = ""
    # Where a ledger with a name was made from copies: the stores that were not read.
    # What the ones that were read lack may be there.
    unread: list[StoreError] = field(default_factory=list)

    @property
    def id(self) -> str:
        """What the ledger is called in the stores."""
        return self.name or copies.ledger_id(
            socket.gethostname(), self.folder.resolve()
        )

    @cached_property
    def _ledger(self) -> Ledger:
        ledger = copies.connected(
            self.folder / "ledger.jsonl",
            ledger_id=self.id,
            stores=self.stores,
            warn=log.logger().warning,
            unread=self.unread if self.name else None,
        )
        if self.name:
            if others := sent_names(ledger.path) - {self.name}:
                raise ConfigurationError(
                    f"{self.folder} holds the ledger {min(others)}, not {self.name}",
                    hint="Give it a folder of its own with state_dir.",
                )
            ledger.recover(now=self.clock(), run_id=log.run_id())
            if self.unread and not ledger.lines():
                raise self.unread[0]
        return ledger

    def entries(self) -> list[LedgerEntry]:
        """Return every record, oldest first.

        Raises:
            IntegrityError: a line is not a record.
        """
        return self._ledger.entries()

    def lines(self) -> list[bytes]:
        """Return the finished records as they are stored, oldest first."""
        return self._ledger.lines()

    def readable(self) -> tuple[list[LedgerEntry], list[str]]:
        """Return the records that can be read, oldest first, and what is wrong here.

        No store is asked.
        """
        entries, faults = self._ledger.readable()
        return entries, faults + copies.lost_here(
            self._ledger, ledger_id=self.id, stores=self.stores
        )

    @property
    def records_lost(self) -> int:
        """How many records could not be had back when the file was made from copies."""
        return first_number(self._ledger.lines())

    def records_of_others(
        self, store: Store, since: datetime
    ) -> list[LedgerEntry] | None:
        """Return what other hosts have recorded in a store since a time.

        Their timetables are left out. None, with a warning, if it cannot be read.
        """
        try:
            with machine_faults("ledger"):
                records = copies.records_of_others(store, self.id, since=since)
        except OpskitError as error:
            log.logger().warning(
                "what other hosts have recorded is not known",
                store=store.name,
                reason=error.message,
            )
            return None
        return [each for each in records if each.operation != SCHEDULER]

    @property
    def state(self) -> tuple[int, int]:
        """What is another when the file has changed."""
        return self._ledger.state

    def verify(self) -> LedgerReport:
        """Compare the records with each other and with their copies."""
        return copies.verify_with_copies(
            self._ledger, ledger_id=self.id, stores=self.stores
        )

    def faults_since(self, number: int) -> list[str]:
        """Return what is wrong with the chain from a record on; no store is asked."""
        return self._ledger.verify(since=number)

    def add(self, record: Record) -> None:
        """Append how an operation ended, and copy it to every store."""
        self.append(record)
        self.copy(record)

    def append(self, record: Record) -> bool:
        """Append a record; return whether that could be done.

        What was done is done, and is reported as it ended, with or without a record.
        """
        try:
            with machine_faults("ledger"):
                record.entry = self._ledger.append(
                    now=self.clock(),
                    run_id=record.run_id,
                    operation=record.operation,
                    outcome=record.ended,
                    details=record.details,
                    started_at=record.started_at,
                    seconds=record.seconds,
                )
        except OpskitError as error:
            log.logger().error(
                "this run is not on record: the ledger cannot be written",
                path=str(self.folder),
                reason=error.message,
            )
            return False
        return True

    def note(
        self, run_id: str, operation: str, details: dict[str, Any], *, failed: bool
    ) -> bool:
        """Append a record of a part of an operation, which does not wait for its end.

        If the ledger has a name, it is copied before going on. Return whether it is
        where the next run looks for it: a machine that exists for one job takes its own
        file with it when it dies.
        """
        record = Record(
            operation=operation,
            run_id=run_id,
            started_at=self.clock(),
            ended="failed" if failed else "ok",
            details=details,
        )
        record.end()
        if not self.append(record):
            return False
        if not self.name:
            return True
        self.copy(record)
        entry = record.entry
        return entry is not None and any(
            read_sent(self._ledger.path, self.id, each.name) > entry.sequence
            for each in self.stores
        )

    def copy(self, record: Record) -> None:
        """Copy a record, and what was not copied before it, to every store.

        What cannot be copied now is copied by a later run.
        """
        if record.entry is None:
            return  # it could not be appended
        left_out = record.details.get("failed_stores", ())
        # A store that has just failed is not waited for once more.
        stores = () if record.store_failed else self.stores
        try:
            with machine_faults("ledger"):
                warnings = copies.push(
                    self._ledger,
                    ledger_id=self.id,
                    stores=[each for each in stores if each.name not in left_out],
                )
        except OpskitError as error:
            log.logger().warning("the ledger was not copied", reason=error.message)
            return
        for each in warnings:
            log.logger().warning(each)
