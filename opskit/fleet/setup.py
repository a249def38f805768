"""Setup: making a fleet, and running its jobs now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from opskit.checks import Check, attempt
from opskit.errors import ConfigurationError, ObjectExists, ObjectNotFound, UsageError
from opskit.fleet import queue
from opskit.fleet.queue import LOCK_CLASS, session
from opskit.fleet.sources import with_known
from opskit.fleet.tick import defer
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run
from opskit.operations.schedule import jobs
from opskit.postgres.connect import query, query_value
from opskit.store import Store

# No source has such a name.
_CLAIM = "_fleet/fleet.json"
_BYTES_MAX = 4096


@dataclass(frozen=True, kw_only=True)
class Made:
    """The schema of a fleet, made or brought up to date."""

    fleet: str
    is_new: bool
    stores: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {
            "fleet": self.fleet,
            "new": self.is_new,
            "schema": queue.SCHEMA,
            "stores": list(self.stores),
        }


def init(run: Run, *, take_over: bool = False) -> Outcome[Made]:
    """Make the schema of the fleet or bring it up to date, and claim the stores."""
    with run.recorded("fleet-init") as record:
        with session(run.settings.fleet, "fleet-init") as connection:
            record.begin()
            fleet, is_new = queue.init(connection)
        for store in run.stores:
            claim(store, fleet, take_over=take_over)
        stores = tuple(each.name for each in run.stores)
        record.result = Made(fleet=fleet, is_new=is_new, stores=stores)
    return record.outcome


def claim(store: Store, fleet: str, *, take_over: bool = False) -> None:
    """Have a store belong to this fleet: two would back up its sources twice.

    Raises:
        ConfigurationError: it belongs to another.
        StoreError: it does not answer.
    """
    content = json.dumps({"fleet": fleet}).encode()
    try:
        store.put(_CLAIM, [content])
    except ObjectExists:
        if not take_over:
            require_own(store, fleet)
            return
        store.delete(_CLAIM)
        store.put(_CLAIM, [content])


def require_own(store: Store, fleet: str) -> str:
    """Require that a store belongs to this fleet, and say so.

    Raises:
        ConfigurationError: it belongs to another, or to none.
        StoreError: it does not answer.
    """
    try:
        with store.open(_CLAIM) as file:
            owner = json.loads(file.read(_BYTES_MAX))["fleet"]
    except ObjectNotFound:
        raise ConfigurationError(
            f"store {store.name} belongs to no fleet yet",
            hint="Claim it for this one: `inv fleet-init`.",
        ) from None
    except (ValueError, KeyError, TypeError):
        owner = "which does not say its name"
    if owner != fleet:
        raise ConfigurationError(
            f"store {store.name} belongs to another fleet ({owner})",
            hint="Let the `url` of the store name a folder or prefix of this fleet's "
            "own. If the other one is gone, take its stores over: "
            "`inv fleet-init --take-over`.",
        )
    return "belongs to this fleet"


def examine(run: Run) -> Iterator[Check]:
    """Yield whether the queue and the stores can be used by this fleet."""
    fleet = ""

    def look() -> str:
        nonlocal fleet
        with session(run.settings.fleet, "doctor") as connection:
            fleet = queue.require_schema(connection)
        return f"fleet {fleet}"

    yield attempt("fleet: queue", look)
    for store in run.stores if fleet else ():
        yield attempt(f"fleet: store {store.name}", partial(require_own, store, fleet))


@dataclass(frozen=True, kw_only=True)
class Queued:
    """Runs that were put into the queue."""

    due: str
    names: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {"due": self.due, "jobs": list(self.names)}


def run_now(
    run: Run, *, sources: Sequence[str] = (), operation: str = "backup"
) -> Outcome[Queued]:
    """Put a run of each source, or of those named, into the queue."""
    with run.recorded("fleet-run") as record:
        with session(run.settings.fleet, "fleet-run") as connection:
            queue.require_schema(connection)
            settings = with_known(connection, run.settings)
            wanted = [each for each in jobs(settings) if each.operation == operation]
            known = {each.source for each in wanted}
            if unknown := set(sources) - known:
                raise UsageError(
                    f"no {operation} of {min(unknown)} is in the timetable",
                    hint="`inv fleet-status` lists the sources, and those that rules "
                    "discovered. Give this one a `schedule`, or name another.",
                )
            if not wanted:
                raise UsageError(
                    f"no {operation} is in the timetable",
                    hint="Give the sources a `schedule`, and drills a line in "
                    "[scheduler]. What rules of [discover] find is known once a worker "
                    "with their label runs: `inv fleet-worker --label NAME`.",
                )
            if sources:
                wanted = [each for each in wanted if each.source in sources]
            with connection.transaction():
                # Somebody else may ask for the same at this moment.
                query(connection, "SELECT pg_advisory_xact_lock(%s, 1)", LOCK_CLASS)
                now = query_value(connection, "SELECT date_trunc('second', now())")
                defer(connection, settings, [(each, now) for each in wanted])
                # Each may be tried again, however often it has failed before.
                connection.execute(
                    "UPDATE turns SET failures = 0 WHERE operation = %s"
                    " AND source = ANY(%s)",
                    (operation, [each.source for each in wanted]),
                )
        record.result = Queued(
            due=now.isoformat(), names=tuple(each.name for each in wanted)
        )
    return record.outcome
