"""Builds states of what is watched: ninety days of two sources, well or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from opskit.catalog.documents import EvidenceName
from opskit.catalog.sets import Copy, ListedSet
from opskit.ledger import LedgerEntry
from opskit.watch.fleet import Doing, Failing, FleetState, GoneSource, WorkerState
from opskit.watch.state import (
    DrillRecord,
    Room,
    SourceState,
    State,
    StoreState,
)
from tests.memory_store import MemoryStore

NOW = datetime(2026, 11, 30, 10, 12, tzinfo=UTC)
STORES = (MemoryStore("local"), MemoryStore("offsite"))
_START = "0" * 64


@dataclass
class Records:
    """A ledger in the making; what it holds is put into the order of time."""

    entries: list[LedgerEntry] = field(default_factory=list)

    def add(
        self,
        at: datetime,
        operation: str,
        outcome: str = "ok",
        seconds: float = 1.0,
        **details: Any,
    ) -> LedgerEntry:
        """Add how a run ended that began at a time."""
        made = LedgerEntry(
            sequence=len(self.entries),
            time=(at + timedelta(seconds=seconds)).isoformat(),
            run_id=f"{len(self.entries):012x}",
            operation=operation,
            outcome=outcome,
            details=details,
            previous=_START,
            started_at=at.isoformat(),
            seconds=seconds,
        )
        self.entries.append(made)
        return made

    def in_order(self) -> tuple[LedgerEntry, ...]:
        """Return the records, the oldest first."""
        ordered = sorted(self.entries, key=lambda each: each.time)
        return tuple(replace(e, sequence=n) for n, e in enumerate(ordered))


def _nights(days: int, hour: int) -> Iterator[tuple[int, datetime]]:
    """Yield the number and the time of each night, the last one today's."""
    last = NOW.replace(hour=hour, minute=0)
    for number in range(days):
        yield number, last - timedelta(days=days - 1 - number)


def _wobble(number: int) -> float:
    """Return something between -1 and 1 that looks like chance."""
    return ((number * 7919) % 211) / 105.5 - 1


def record_nights(
    records: Records,
    source: str,
    *,
    days: int = 90,
    hour: int = 9,
    size: float = 400e6,
    growth: float = 4e6,
    speed: float = 9e6,
    bad: dict[int, str] | None = None,
    drill_every: int = 7,
) -> None:
    """Record a backup of each night, and a drill of every seventh."""
    for number, at in _nights(days, hour):
        outcome = (bad or {}).get(days - 1 - number, "ok")
        size_bytes = round(size + growth * number + size * 0.02 * _wobble(number))
        seconds = size_bytes / speed * (1 + 0.08 * _wobble(number + 3))
        backup_id = f"{source}-{at:%Y%m%dT%H%M%SZ}-a1b2c3"
        if outcome == "ok":
            records.add(
                at,
                "backup",
                seconds=seconds,
                source=source,
                backup_id=backup_id,
                stores=["local", "offsite"],
                failed_stores=[],
                size_bytes=size_bytes,
            )
        elif outcome == "missed":
            due = {"first": at.isoformat(), "last": at.isoformat(), "number": 1}
            records.add(at, "backup", "missed", source=source, due=due)
        else:
            records.add(
                at,
                "backup",
                "failed",
                source=source,
                error=outcome,
                code=40,
                seconds=12.5,
            )
        if drill_every and number % drill_every == 3 and outcome == "ok":
            rto = size_bytes / 14e6 * (1 + 0.06 * _wobble(number)) + 6
            records.add(
                at + timedelta(hours=1),
                "restore-drill",
                seconds=rto * 2,
                source=source,
                backup_id=backup_id,
                passed=True,
                rto_seconds=round(rto, 3),
                rpo_seconds=3600.0,
                size_bytes=size_bytes,
                phases={
                    "fetch": round(rto * 0.2, 3),
                    "server": 4.1,
                    "restore": round(rto * 0.7, 3),
                    "compare": round(rto * 0.6, 3),
                },
            )


def _sets(runs: Sequence[LedgerEntry]) -> tuple[ListedSet, ...]:
    """Return the sets of the last month that the records tell of, newest first."""
    made = []
    drilled = {
        each.details["backup_id"]: each
        for each in runs
        if each.operation == "restore-drill"
    }
    for run in runs:
        if run.operation != "backup" or run.outcome != "ok":
            continue
        details: dict[str, Any] = run.details
        at = datetime.fromisoformat(str(run.started_at))
        if NOW - at > timedelta(days=30):
            continue
        drill = drilled.get(details["backup_id"])
        evidence = () if drill is None else (_evidence(drill),)
        made.append(
            ListedSet(
                backup_id=details["backup_id"],
                source=details["source"],
                started_at=at,
                snapshot_at=at,
                finished_at=datetime.fromisoformat(run.time),
                size_bytes=details["size_bytes"],
                manifest_sha256="0" * 64,
                copies=tuple(
                    Copy(store=store, evidence=evidence)
                    for store in STORES
                    if store.name in details["stores"]
                ),
            )
        )
    return tuple(made[::-1])


def _evidence(drill: LedgerEntry) -> EvidenceName:
    return EvidenceName(
        time=f"{datetime.fromisoformat(drill.time):%Y%m%dT%H%M%SZ}",
        kind="drill",
        passed=bool(drill.details["passed"]),
        run_id=drill.run_id,
    )


def _drill(run: LedgerEntry) -> DrillRecord:
    details: dict[str, Any] = run.details
    return DrillRecord(
        finished_at=datetime.fromisoformat(run.time),
        passed=details["passed"],
        backup_id=details["backup_id"],
        run_id=run.run_id,
        rto_seconds=details.get("rto_seconds"),
        rpo_seconds=details.get("rpo_seconds"),
        phases=details.get("phases", {}),
    )


def source_state(
    name: str, entries: Sequence[LedgerEntry], **changes: Any
) -> SourceState:
    """Return the state of a source as its records tell it."""
    runs = tuple(each for each in entries if each.details.get("source") == name)
    sets = _sets(runs)
    newest: dict[str, datetime] = {}
    for each in sets[::-1]:
        newest |= dict.fromkeys((store.name for store in each.stores), each.finished_at)
    drills = [_drill(each) for each in runs if each.operation == "restore-drill"]
    fields: dict[str, Any] = {
        "name": name,
        "kind": "postgres",
        "schedule": "0 9 * * *",
        "interval_seconds": 86_400.0,
        "max_age": timedelta(hours=26),
        "drill_max_age": timedelta(days=8),
        "sets": sets,
        "unconfirmed_changes": (),
        "last_success": newest,
        "runs": runs,
        "drills": tuple(drills[::-1]),
        "latency_seconds": 0.004,
        "clock_offset_seconds": 0.01,
    }
    return SourceState(**fields | changes)


def state_of(sources: Sequence[SourceState], **changes: Any) -> State:
    """Return a state with these sources; everything else is well."""
    entries = {e.sequence: e for each in sources for e in each.runs}
    fields: dict[str, Any] = {
        "time": NOW,
        "version": "0.2.0",
        "sources": tuple(sources),
        "stores": (
            StoreState(name="local", latency_seconds=0.001, clock_offset_seconds=0.0),
            StoreState(name="offsite", latency_seconds=0.184, clock_offset_seconds=0.2),
        ),
        "entries": tuple(entries[number] for number in sorted(entries)),
        "ledger_faults": (),
        "notified": {},
        "disks": (
            Room(name="/var/lib/opskit", free_bytes=71 * 10**9, total_bytes=10**11),
        ),
        "memory": Room(name="memory", free_bytes=5 * 10**9, total_bytes=8 * 10**9),
    }
    return State(**fields | changes)


def well() -> State:
    """Return ninety days of a database and a folder, with little that went wrong."""
    records = Records()
    record_nights(records, "shop", bad={61: "pg_dump ended with 1", 33: "missed"})
    record_nights(
        records,
        "uploads",
        days=64,
        hour=8,
        size=60e6,
        growth=2e5,
        drill_every=14,
    )
    entries = records.in_order()
    return state_of(
        [
            source_state("shop", entries),
            source_state("uploads", entries, kind="files", schedule="0 8 * * *"),
        ],
        entries=entries,
    )


def sick() -> State:
    """Return a state whose database has had no backup for days."""
    records = Records()
    error = "pg_dump could not lock public.orders: canceling statement due to timeout"
    record_nights(
        records,
        "shop",
        bad=dict.fromkeys((0, 1), error) | dict.fromkeys((2, 3), "missed"),
    )
    records.add(
        NOW - timedelta(hours=5),
        "restore-drill",
        seconds=88.0,
        source="shop",
        backup_id="shop-20261126T090000Z-a1b2c3",
        passed=False,
        rto_seconds=71.5,
        rpo_seconds=331_200.0,
        size_bytes=740_000_000,
        phases={"fetch": 12.0, "server": 4.0, "restore": 55.5},
    )
    entries = records.in_order()
    error = "store offsite: connection to https://s3.example refused"
    return state_of(
        [source_state("shop", entries)],
        entries=entries,
        stores=(
            StoreState(name="local", latency_seconds=0.001, clock_offset_seconds=0.0),
            StoreState(name="offsite", error=error, hint="See that the server runs."),
        ),
    )


def crowded() -> State:
    """Return a state with long names and errors, hourly backups, and few drills."""
    records = Records()
    names = [f"{letter * 60}-{number}" for number, letter in enumerate("wmi")]
    for name in names:
        record_nights(records, name, days=40, drill_every=30, size=9e11, growth=2e9)
    for hour in range(24 * 20):
        records.add(
            NOW - timedelta(hours=hour),
            "backup",
            "failed" if hour % 50 == 7 else "ok",
            seconds=0.4 + hour % 5,
            source="state",
            backup_id=f"state-{hour}",
            stores=["local"],
            failed_stores=["offsite"] if hour == 3 else [],
            size_bytes=2000 + hour,
            **({"error": "/very/long" * 40, "code": 40} if hour % 50 == 7 else {}),
        )
    entries = records.in_order()
    return state_of(
        [
            *(source_state(name, entries) for name in names),
            source_state("state", entries, kind="files", schedule="@hourly"),
        ],
        entries=entries,
        ledger_faults=("record 7 does not follow the record before it: " + "x" * 300,),
        stores=(
            StoreState(name="local", latency_seconds=0.001, clock_offset_seconds=-400),
            StoreState(name="offsite", error="https://s3.example/" + "a" * 300),
        ),
    )


def fleet(number: int = 200, **changes: Any) -> State:
    """Return a fleet of many sources, of which some lack sets, drills or both."""
    records = Records()
    for index in range(number):
        name = f"customer-{index:04}"
        if index % 50 == 49:
            continue
        every = 0 if index % 20 == 19 else 2 + index % 3
        record_nights(records, name, days=6, hour=index % 9, drill_every=every)
    entries = records.in_order()
    sources = [source_state(f"customer-{index:04}", entries) for index in range(number)]
    labels = {
        each.name: ("default", "eu-west", "us-east")[index % 3]
        for index, each in enumerate(sources)
    }
    workers = tuple(
        WorkerState(
            name=f"backup-{index}.example-opskit",
            host=f"backup-{index}.example",
            version="0.2.0",
            labels=("default", "eu-west"),
            capacity=4,
            seen_seconds=3.0 + index,
            clock_offset_seconds=0.1,
            state="working",
        )
        for index in range(3)
    )
    doing = tuple(
        Doing(
            name=f"backup customer-{index:04}",
            label="default",
            worker=workers[index % 3].name,
            since=NOW - timedelta(seconds=30 * index),
        )
        for index in range(6)
    )
    fields: dict[str, Any] = {
        "labels": labels,
        "todo": {"default": 21, "eu-west": 4},
        "doing": doing,
        "workers": workers,
        "ends_at": NOW + timedelta(hours=2),
    }
    return state_of(sources, entries=entries, fleet=FleetState(**fields | changes))


def sick_fleet(number: int = 200) -> State:
    """Return a fleet in which most things are wrong."""
    known = fleet(0).fleet
    assert known is not None
    dead, off, *others = known.workers
    return fleet(
        number,
        workers=(
            replace(dead, state="dead", seen_seconds=400.0),
            replace(off, state="clock-off", reason="its clock is off by +3600 seconds"),
            *others,
        ),
        todo={"default": 171, "us-east": 12},
        failing=(Failing(name="backup customer-0003", failures=4),),
        late=("backup customer-0007",),
        rules={"customers": "", "erp": "discover.erp: connection refused"},
        gone=(GoneSource(name="customer-0999", rule="customers", since=NOW),),
    )
