"""Report: what a rehearsal found out, its verdict, and its text for people."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from opskit.checks import Check, cell, count, duration, size
from opskit.config.release import AcceptedWarning, BudgetSettings
from opskit.log import mask
from opskit.release.classes import Kind, Warning
from opskit.release.locks import (
    BLOCKS_READS,
    BLOCKS_WRITES,
    HeldLock,
    Rewrite,
    blocked_seconds,
)
from opskit.release.revisions import Revision

_STATEMENT_SHOWN = 300
_LOCKS_SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What migrations did to the copy, and for how long they blocked others."""

    locks: tuple[HeldLock, ...]
    rewrites: tuple[Rewrite, ...]
    scans: dict[str, int]
    seconds: float
    wal_bytes: int
    temporary_bytes: int
    growth_bytes: int
    invalid_indexes: tuple[str, ...]
    touched: frozenset[str]
    tables: frozenset[str]

    def longest(self, modes: Sequence[str]) -> tuple[float, str]:
        """Return for how long a table was locked in such modes, and which one."""
        blocked = blocked_seconds(self.locks, modes)
        table = max(blocked, key=blocked.__getitem__, default="")
        return blocked.get(table, 0.0), table


@dataclass(kw_only=True)
class Rehearsal:
    """What is known of a rehearsal; it has passed if all checks that were made did."""

    backup_id: str
    started_at: datetime
    database_bytes: int = 0
    machine: dict[str, str] = field(default_factory=dict)
    production: dict[str, str] = field(default_factory=dict)
    revisions: list[Revision] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    changes: dict[str, list[str]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    cost: Cost | None = None
    waits: list[str] = field(default_factory=list)
    kinds: dict[str, Kind] = field(default_factory=dict)
    warnings: list[Warning] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether something was checked, and every check that was made passed."""
        made = [each for each in self.checks if each.passed is not None]
        return bool(made) and not any(each.failed for each in made)

    @property
    def seconds_per_gib(self) -> float | None:
        """How long the migrations took for each GiB of the database."""
        if self.cost is None or not self.database_bytes:
            return None
        return round(self.cost.seconds / (self.database_bytes / 1024**3), 3)

    def differences(self) -> Iterator[tuple[str, str, str]]:
        """Yield in what the two servers differ, as far as production is known."""
        for name, here in self.machine.items():
            there = self.production.get(name, "not known")
            if here != there:
                yield name, here, there

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        cost = self.cost
        return {
            "backup_id": self.backup_id,
            "revisions": [
                each.as_json()
                | {
                    "seconds": self.timings.get(each.id),
                    "class": self.kinds.get(each.id),
                    "changes": self.changes.get(each.id),
                }
                for each in self.revisions
            ],
            "locks": [
                {
                    "table": each.table,
                    "mode": each.mode,
                    "seconds": round(each.seconds, 3),
                    "statement": _shown(each.statement),
                    "sampled": each.sampled,
                }
                for each in (cost.locks[:_LOCKS_SHOWN] if cost else ())
            ],
            "rewrites": [
                {
                    "table": each.name,
                    "reason": each.reason,
                    "statement": _shown(each.statement),
                }
                for each in (cost.rewrites if cost else ())
            ],
            "scans": dict(cost.scans) if cost else {},
            "seconds": round(cost.seconds, 3) if cost else None,
            "wal_bytes": cost.wal_bytes if cost else None,
            "temporary_bytes": cost.temporary_bytes if cost else None,
            "disk_bytes": cost.growth_bytes if cost else None,
            "database_bytes": self.database_bytes,
            "waits_for_writers": [_shown(each) for each in self.waits],
            "warnings": [
                {
                    "warning": each.rule,
                    "revision": each.revision,
                    "statement": _shown(each.statement),
                    "message": each.message,
                }
                for each in self.warnings
            ],
            "seconds_per_gib": self.seconds_per_gib,
            "server": self.machine.get("server_version", ""),
            "differences": [
                {"name": name, "rehearsed": here, "production": there}
                for name, here, there in self.differences()
            ],
            "checks": [each.as_json() for each in self.checks],
            "budgets": [
                each.as_json()
                for each in self.checks
                if each.name.startswith("budget ")
            ],
        }


def _shown(statement: str) -> str:
    return mask(" ".join(statement.split()))[:_STATEMENT_SHOWN]


def budget_checks(budgets: BudgetSettings, cost: Cost) -> Iterator[Check]:
    """Compare what migrations cost with what they may cost."""
    reads, table_read = cost.longest(BLOCKS_READS)
    writes, table_written = cost.longest(BLOCKS_WRITES)
    for name, limit, seconds, table in (
        ("reads blocked", budgets.reads_blocked, reads, table_read),
        ("writes blocked", budgets.writes_blocked, writes, table_written),
        ("duration", budgets.duration, cost.seconds, ""),
    ):
        if limit is not None:
            yield Check(
                name=f"budget {name}",
                passed=seconds <= limit.total_seconds(),
                expected=f"at most {duration(limit.total_seconds())}",
                observed=duration(seconds) + (f" on {table}" if table else ""),
            )
    yield Check(
        name="budget rewrites",
        passed=budgets.rewrites or not cost.rewrites,
        expected="any" if budgets.rewrites else "none",
        observed=", ".join(each.name for each in cost.rewrites) or "none",
        detail="; ".join(f"{each.name}: {each.reason}" for each in cost.rewrites),
    )
    for name, most, number in (
        ("WAL", budgets.wal_bytes, cost.wal_bytes),
        ("disk", budgets.disk_bytes, cost.growth_bytes),
    ):
        if most is not None:
            yield Check(
                name=f"budget {name}",
                passed=number <= most,
                expected=f"at most {size(most)}",
                observed=size(number),
            )
    yield Check(
        name="invalid indexes",
        passed=not cost.invalid_indexes,
        expected="none",
        observed=", ".join(cost.invalid_indexes) or "none",
    )


def warning_checks(
    warnings: Sequence[Warning],
    revisions: Sequence[Revision],
    accepted: Sequence[AcceptedWarning],
) -> Iterator[Check]:
    """Compare what was warned of with what is accepted.

    What belongs to the contract phase runs when the code before it is gone.
    """
    late = {each.id for each in revisions if each.phase == "contract"}
    for each in warnings:
        reasons = [
            a.reason
            for a in accepted
            if a.warning == each.rule and a.revision in ("", each.revision)
        ]
        excuse = f"accepted: {reasons[0]}" if reasons else ""
        if each.revision in late:
            excuse = excuse or "the migration is of the contract phase"
        yield Check(
            name=f"warning {each.rule}",
            passed=bool(excuse),
            expected="none that is not accepted",
            observed=f"migration {each.revision}",
            detail="; ".join(filter(None, (each.message, excuse))),
        )


def render(made: Rehearsal) -> str:
    """Return the report of a rehearsal, in Markdown."""
    cost = made.cost
    verdict = "YES" if made.passed else "NO"
    lines = [
        f"# Rehearsal on {made.backup_id}: {verdict}",
        "",
        "The pending migrations ran on a restored copy of the set "
        f"({size(made.database_bytes)}), in a throw-away server on a machine with "
        f"{count(os.cpu_count() or 1, 'processor')} and "
        f"{size(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} of memory.",
        "Nobody else works on it, and with fsync and synchronous_commit off it waits",
        "for no disk: on production all takes longer. Locks, rewrites and amounts are",
        "the same.",
        "",
        "| differs from production | rehearsal | production |",
        "|---|---|---|",
        *(f"| {name} | {cell(a)} | {cell(b)} |" for name, a, b in made.differences()),
        "",
        "| migration | phase | class | seconds |",
        "|---|---|---|---|",
        *(
            f"| {cell(each.id)} {cell(each.title)} | {each.phase} "
            f"| {made.kinds.get(each.id, '')} "
            f"| {made.timings.get(each.id, '')} |"
            for each in made.revisions
        ),
        *_changes(made),
        "",
        "| check | expected | observed | |",
        "|---|---|---|---|",
        *(_check_row(each) for each in made.checks),
    ]
    if cost is not None:
        per_gib = made.seconds_per_gib
        per_gigabyte = "" if per_gib is None else f", {per_gib:.1f} s per GiB"
        lines += [
            "",
            f"Time: {duration(cost.seconds)}{per_gigabyte}. Written ahead: "
            f"{size(cost.wal_bytes)}. Temporary files: {size(cost.temporary_bytes)}. "
            "At its largest the database had grown, with temporary files, by "
            f"{size(cost.growth_bytes)}.",
            *(
                f"{cell(name)} was read whole ({count(rows, 'row')})."
                for name, rows in cost.scans.items()
            ),
            "",
            "| table | lock | held for | statement |",
            "|---|---|---|---|",
            *(
                f"| {cell(e.table)} | {e.mode} | {e.seconds:.3f} s | "
                f"{cell(_shown(e.statement))} |"
                for e in cost.locks[:_LOCKS_SHOWN]
            ),
            "",
            "While a session that has written holds its transaction open, "
            + (
                "these statements wait for it, and others queue behind them:"
                if made.waits
                else "nothing waits for it."
            ),
            *(f"- `{_shown(each)}`" for each in made.waits),
        ]
    lines += ["", f"**{verdict}**"]
    return "\n".join(lines) + "\n"


def _changes(made: Rehearsal) -> Iterator[str]:
    """Yield what the migrations changed in the schema."""
    for name, lines in made.changes.items():
        yield from ("", f"Migration {cell(name)} changes in the schema:", "")
        yield from (f"- `{_shown(each)}`" for each in lines or ["nothing"])


def _check_row(check: Check) -> str:
    outcome = {True: "passed", False: "**DID NOT PASS**", None: "not checked"}
    return (
        f"| {cell(check.name)} | {cell(check.expected)} | {cell(check.observed)} | "
        f"{outcome[check.passed]} {cell(check.detail)} |"
    )
