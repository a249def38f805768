"""History: the releases and rollbacks that the ledger has, also those cut short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opskit.ledger import LedgerEntry
from opskit.operations.steps import (
    CHANGES,
    MIGRATES,
    STEP,
    UNTOUCHED,
    WAY_BACK,
    Released,
)

RELEASE, ROLLBACK = "release", "rollback"
_LOCK_HELD, _INCONCLUSIVE, _ROLLBACK_FAILED = 11, 61, 69


@dataclass(kw_only=True)
class Attempt:
    """A release or a rollback, with the last record of each of its steps.

    `begins` is the number of its first record in the ledger. `ending` is empty while it
    has not ended.
    """

    begins: int
    operation: str
    release: str
    version: str
    previous: str
    steps: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    ending: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """How it ended; empty if it was cut short."""
        return str(self.ending.get("status", ""))

    @property
    def is_resumable(self) -> bool:
        """Whether it was cut short, or ended without a verdict on the version."""
        return not self.status or self.ending.get("code") == _INCONCLUSIVE

    @property
    def is_settled(self) -> bool:
        """Whether it is known which version runs after it."""
        return not self.is_resumable and self.ending.get("code") != _ROLLBACK_FAILED

    @property
    def has_changed(self) -> bool:
        """Whether it got as far as to change anything."""
        if self.operation == ROLLBACK:
            return bool(self.steps) or self.status == "rolled-back"
        return self.status == "released" or bool(CHANGES & self.steps.keys())

    @property
    def has_deployed(self) -> bool:
        """Whether its version may run."""
        return self.status == "released" or "deploy" in self.steps

    @property
    def failure(self) -> str:
        """Why it had to be taken back; empty if it had not."""
        for each in self.steps.values():
            failed = each["state"] == "failed"
            failed = failed and each.get("code") not in (_LOCK_HELD, _INCONCLUSIVE)
            if failed and each["step"] in CHANGES | {"smoke"}:
                return str(each["error"])
        return "its rollback had begun" if WAY_BACK & self.steps.keys() else ""

    def teach(self, made: Released) -> None:
        """Have a release or rollback know what this one has found out."""
        for name, each in self.steps.items():
            made.learn(name, each["details"])
            if name in MIGRATES and not each["details"].get(UNTOUCHED):
                done = each["state"] == "done"
                made.migrated[name] = made.migrated.get(name, True) and done
        made.learn("", self.ending)


def history(entries: Iterable[LedgerEntry]) -> list[Attempt]:
    """Return releases and rollbacks, the newest last.

    Refused ones, and rollbacks that did nothing, are left out.
    """
    attempts: dict[str, Attempt] = {}
    for entry in entries:
        details: Mapping[str, Any] = entry.details
        if entry.operation not in (STEP, RELEASE, ROLLBACK) or "release" not in details:
            continue
        name, is_step = str(details["release"]), entry.operation == STEP
        known = attempts.pop(name, None) or Attempt(
            begins=entry.sequence,
            operation=str(details.get("operation")) if is_step else entry.operation,
            release=name,
            version=str(details["version"]),
            previous=str(details.get("previous", "")),
        )
        attempts[name] = known
        if is_step:
            known.steps[str(details["step"])] = details
        known.ending = {} if is_step else details
    return [
        each
        for each in attempts.values()
        if each.status != "refused" and (each.operation == RELEASE or each.has_changed)
    ]


def to_take_back(past: Sequence[Attempt]) -> list[Attempt]:
    """Return the releases that have changed something and were not taken back."""
    gone = taken_back(past)
    return [
        each
        for each in past
        if each.operation == RELEASE
        and each.has_changed
        and each.status != "rolled-back"
        and each.release not in gone
    ]


def taken_back(past: Sequence[Attempt]) -> set[str]:
    """Return the ids of the releases that a rollback has taken back."""
    return {
        str(name)
        for each in past
        if each.operation == ROLLBACK and each.status == "rolled-back"
        for name in each.ending.get("takes_back", ())
    }


def configuration_of(entries: Sequence[LedgerEntry], version: str) -> dict[str, str]:
    """Return the hashes of the configuration with which a version was deployed last."""
    for entry in reversed(entries):
        details = entry.details.get("details") if entry.operation == STEP else None
        if isinstance(details, dict) and details.get("deployed") == version:
            return dict(details.get("configuration", {}))
    return {}


def declared_of(entries: Sequence[LedgerEntry], version: str) -> str:
    """Return the oldest schema that a version was declared to run on; empty: none."""
    for entry in reversed(entries):
        details = entry.details.get("details") if entry.operation == STEP else None
        if not isinstance(details, dict) or details.get("deployed") != version:
            continue
        if "oldest_schema" in details:  # it was released, and not returned to
            return str(details["oldest_schema"])
    return ""
