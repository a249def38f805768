"""Outcome: what became of an operation, for the ledger, `--json` and every caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from opskit.errors import ConfigurationError, OpskitError, StoreError

if TYPE_CHECKING:
    # `--list` shows the tasks without what the ledger needs.
    from opskit.ledger import LedgerEntry

# Of several failures the first of these decides about the exit code: what is known
# about data before what could not be done.
_WORST_FIRST = (1, 50, 20, 40, 41, 10, 30, 61, 11, 2)


class Result(Protocol):
    """What an operation learnt or made, as the contract's fields."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract, without those of every document."""
        ...


ResultT = TypeVar("ResultT", bound=Result, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An error as a value: what failed, what to do, and what else is known.

    The summary is the message without the words of a server, which may hold rows.
    """

    exit_code: int
    message: str
    summary: str = ""
    hint: str = ""
    details: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, error: OpskitError) -> Failure:
        """Return what an error says."""
        return cls(
            exit_code=error.exit_code,
            message=error.message,
            summary=error.summary,
            hint=error.hint,
            details=error.details,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields of every document about a failure."""
        return {"code": self.exit_code, "error": self.message, "hint": self.hint}


def worst(failures: Sequence[Failure]) -> Failure:
    """Return the failure that says most of what is wrong; the first of equal ones."""
    return min(
        failures,
        key=lambda each: (
            _WORST_FIRST.index(each.exit_code)
            if each.exit_code in _WORST_FIRST
            else len(_WORST_FIRST)
        ),
    )


def not_recorded(error: StoreError) -> Failure:
    """Return the failure of evidence that could not be stored beside its set."""
    return Failure(
        exit_code=error.exit_code,
        message=f"the evidence could not be stored: {error.message}",
        summary=f"the evidence could not be stored: {error.summary}",
        hint=error.hint or "Let these credentials write evidence beside the sets.",
        details=error.details,
    )


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[ResultT]):
    """How an operation ended, and with what.

    The first of the `errors` decides about the exit code. There may be a result beside
    them: a drill that did not pass has evidence. `subject` is the source that
    the operation was about, where it was about one.
    """

    operation: str
    status: str
    run_id: str
    started_at: datetime
    seconds: float
    subject: str = ""
    result: ResultT | None = None
    errors: tuple[Failure, ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code of the contract."""
        return self.errors[0].exit_code if self.errors else 0

    def as_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints."""
        envelope: dict[str, Any] = {"status": self.status, "run_id": self.run_id}
        known: dict[str, Any] = {}
        if self.errors:
            envelope |= self.errors[0].as_json()
            known |= self.errors[0].details
        return (
            envelope | known | (self.result.as_json() if self.result else {}) | envelope
        )


@dataclass(kw_only=True)
class Record:
    """An operation while it runs: what will be its outcome and its ledger record.

    `details` are for the ledger, which gets a record only after `begin`. The status is
    `ok`, or `error` where something failed, unless it is set.
    """

    operation: str
    run_id: str
    started_at: datetime
    subject: str = ""
    status: str = ""
    result: Any = None
    details: dict[str, Any] = field(default_factory=dict)
    on_record: bool = False
    # How it ended, as the ledger says it: `ok`, `failed`, `interrupted`, `missed`.
    ended: str = "failed"
    # The record in the ledger; none before the end, or if it could not be written.
    entry: LedgerEntry | None = None
    # Raises where the ledger cannot be written, before anything is done.
    require_ledger: Callable[[], object] = lambda: None
    # Called once this is going to be on record.
    on_begin: Callable[[Record], None] = lambda _record: None
    failures: list[Failure] = field(default_factory=list)
    # The store that failed is not asked to take a copy of the record.
    store_failed: bool = False
    _began: float = field(default_factory=time.monotonic)
    _seconds: float | None = None

    @property
    def seconds(self) -> float:
        """How long the operation has taken, so far or in all."""
        if self._seconds is not None:
            return self._seconds
        return time.monotonic() - self._began

    def begin(self, **details: Any) -> None:
        """Have the ledger record how this ends, from now on whatever happens.

        Raises:
            OpskitError: the ledger cannot be written, or an observer refuses.
        """
        self.require_ledger()
        self.on_record = True
        self.details |= details
        self.on_begin(self)

    def keep(self) -> None:
        """Have an error on record that came before the beginning."""
        with suppress(ConfigurationError):  # the error is shown all the same
            self.require_ledger()
            self.on_record = True
            self.details |= {"source": self.subject} if self.subject else {}

    def report(self, *errors: OpskitError | Failure) -> None:
        """Report errors of an operation that did its work all the same."""
        self.failures += [
            each if isinstance(each, Failure) else Failure.of(each) for each in errors
        ]

    def fail(self, error: OpskitError) -> None:
        """Note the error that ended the operation; it decides about the exit code."""
        self.failures.insert(0, Failure.of(error))
        self.store_failed = isinstance(error, StoreError)

    def end(self) -> None:
        """Stop the clock; the details say what failed, if anything did."""
        self._seconds = self.seconds
        if self.failures:
            first = self.failures[0]
            self.details.setdefault("error", first.summary or first.message)
            self.details.setdefault("code", first.exit_code)

    @property
    def outcome(self) -> Outcome[Any]:
        """What became of the operation, once it has ended."""
        return Outcome(
            operation=self.operation,
            status=self.status
            or ("ok" if self.ended == "ok" and not self.failures else "error"),
            run_id=self.run_id,
            started_at=self.started_at,
            seconds=round(self.seconds, 3),
            subject=self.subject,
            result=self.result,
            errors=tuple(self.failures),
        )
