"""Sources: the databases that rules discover, as a fleet knows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import timedelta

from opskit.config import Settings
from opskit.errors import DatabaseError, UsageError
from opskit.fleet.queue import LOCK_CLASS
from opskit.log import logger, mask
from opskit.operations.discovery import (
    Found,
    as_configuration,
    find,
    placeholder,
    with_found,
)
from opskit.operations.outcome import Failure
from opskit.operations.schedule import jobs
from opskit.postgres.connect import Connection, query, query_column
from opskit.scheduler.journal import Journal
from opskit.threads import Thread

_EVERY_SECONDS = 60.0
_PATIENCE_SECONDS = 120.0
_END_SECONDS = 5.0


class Search:
    """Asks the rules of some labels once a minute, in a thread: one may be slow.

    `settings` are those of the configuration, with what was found.
    """

    def __init__(
        self,
        settings: Settings,
        configuration: bytes,
        *,
        labels: Collection[str],
        wake: Callable[[], None],
    ) -> None:
        self.settings, self._given = settings, settings
        self._file, self._known = configuration, settings
        self._labels, self._wake = labels, wake
        # What was found last, what `settings` hold of it, and what the queue knows.
        self.found: Found | None = None
        self._used: Found | None = None
        self._recorded: Found | None = None
        self._started = self._began = time.monotonic()
        self._thread = Thread(self._ask, name="discover")

    @property
    def is_over(self) -> bool:
        """Whether the queue knows what was found, or there was time enough for it."""
        is_late = time.monotonic() > self._started + _PATIENCE_SECONDS
        return self._recorded is not None or is_late

    def look(self) -> Settings:
        """Take over what was found, and ask again if it is time; never waits."""
        is_due = time.monotonic() > self._began + _EVERY_SECONDS
        if is_due and not self._thread.is_alive():
            self._began = time.monotonic()
            self._thread = Thread(self._ask, name="discover")
        found = self.found
        if found is not None and found is not self._used:
            self._used = found
            self.settings = with_found(self._given, found)
            # What others found stays known until the queue has been asked again.
            databases = self._known.databases | self.settings.databases
            self._known = self.settings.model_copy(update={"databases": databases})
        return self.settings

    def _ask(self) -> None:
        before = self.found or Found()
        found = find(self._given, labels=self._labels, before=before)
        for rule, error in found.faults.items():
            if str(error) != str(before.faults.get(rule, "")):
                logger().error(error.message, hint=error.hint)
        self.found = found
        self._wake()

    def configuration(self, source: str) -> bytes:
        """Return the configuration for a job of a source, or of all.

        For all it has those that others found: their sets are pruned, too.
        """
        databases, listed = self._known.databases, self._given.databases
        found = {name: each for name, each in databases.items() if name not in listed}
        if source:
            found = {name: found[name] for name in found.keys() & {source}}
        return self._file + as_configuration(found)

    def is_known(self, operation: str, source: str) -> bool:
        """Whether there is such a job, also of a source that only others can reach."""
        return any(each.key == (operation, source) for each in jobs(self._known))

    def record(self, connection: Connection, journal: Journal) -> None:
        """Have the queue know what was found, and report what has changed."""
        if self._used is None or self._used is self._recorded:
            return
        # Nothing is reported before all of it is noted; what could not be noted, the
        # next search reports.
        with connection.transaction():
            changes = record(connection, self._given, self._used)
        for subject, failure in changes.items():
            journal.discovered(subject, failure)
        self._recorded = self._used
        self._known = with_known(connection, self.settings)

    def close(self) -> None:
        """Wait a moment for the end of a search."""
        self._thread.join(_END_SECONDS)


def _gone(source: str, rule: str) -> Failure:
    return Failure(
        exit_code=DatabaseError.exit_code,
        message=f"{source} is gone: discover.{rule} does not find it any more",
        hint="If it was dropped on purpose, confirm that: `inv fleet-status "
        f"--confirm-gone {source}`; else restore it: its sets stay.",
    )


def _failing(fault: str) -> Failure:
    return Failure(
        exit_code=DatabaseError.exit_code,
        message=f"new databases are not found: {fault}",
        hint="Correct the rule, or what it asks; `inv doctor` asks each rule.",
    )


def record(
    connection: Connection, settings: Settings, found: Found
) -> dict[str, Failure | None]:
    """Note what there is, and return what has changed: each change once in a fleet.

    A source or a rule that failed has its failure, one that works again or is new none.

    What no rule of the configuration finds any more is gone after a day: workers with
    the configuration before or after this one may still find it. What somebody lists
    in the configuration is there.
    """
    query(connection, "SELECT pg_advisory_xact_lock(%s, 2)", LOCK_CLASS)
    found = _without_older(connection, found)
    listed = [*settings.databases, *settings.files]
    names = [name for name, rule in found.rules.items() if rule in found.answered]
    seen = [
        names,
        [found.rules[each] for each in names],
        [found.databases[each].label for each in names],
    ]
    back = query_column(
        connection,
        "UPDATE sources SET gone_since = NULL, last_seen = now()"
        " WHERE gone_since IS NOT NULL AND name = ANY(%s) RETURNING name",
        names + listed,
    )
    appeared = query_column(
        connection,
        "INSERT INTO sources (name, rule, label)"
        " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[])"
        " ON CONFLICT DO NOTHING RETURNING name",
        *seen,
    )
    connection.execute(
        """
        UPDATE sources old SET rule = new.rule, label = new.label, last_seen = now()
        FROM unnest(%s::text[], %s::text[], %s::text[]) new (name, rule, label)
        WHERE old.name = new.name AND (last_seen < now() - interval '10 minutes'
            OR (old.rule, old.label) <> (new.rule, new.label))""",
        seen,
    )
    gone = query(
        connection,
        """
        UPDATE sources SET gone_since = now()
        WHERE gone_since IS NULL AND name <> ALL(%s) AND (rule = ANY(%s)
            OR rule <> ALL(%s) AND last_seen < now() - interval '1 day')
        RETURNING name, rule""",
        [*found.rules, *listed],
        list(found.answered),
        list(settings.discover),
    )
    connection.execute(
        """
        SELECT procrastinate_cancel_job_v1(id, false, false) FROM procrastinate_jobs
        WHERE status = 'todo' AND args ->> 'source' IN
            (SELECT name FROM sources WHERE gone_since IS NOT NULL)"""
    )
    if appeared or back:
        connection.execute("UPDATE fleet SET ticked_at = NULL")
    return (
        dict.fromkeys([*appeared, *back])
        | {name: _gone(name, rule) for name, rule in gone}
        | _faults(connection, settings, found)
    )


def _without_older(connection: Connection, found: Found) -> Found:
    """Leave out the answers of rules of which a later one may be known already.

    While a worker asked, another may have noted what appeared or went since.
    """
    newer = query_column(
        connection,
        "SELECT name FROM rules WHERE answered_at > clock_timestamp() - %s",
        timedelta(seconds=time.monotonic() - found.began),
    )
    faults = {name: each for name, each in found.faults.items() if name not in newer}
    return replace(found, answered=found.answered - set(newer), faults=faults)


def _faults(
    connection: Connection, settings: Settings, found: Found
) -> dict[str, Failure | None]:
    """Note which rules do not answer, or not well.

    Return those that have not for a while, and those that do again after that.
    """
    asked = sorted(found.answered | found.faults.keys())
    connection.execute(
        """
        INSERT INTO rules AS old (name, fault, answered_at)
        SELECT name, fault, CASE WHEN name = ANY(%s) THEN now() END
        FROM unnest(%s::text[], %s::text[]) new (name, fault)
        ON CONFLICT (name) DO UPDATE SET fault = excluded.fault,
            answered_at = coalesce(excluded.answered_at, old.answered_at),
            since = CASE WHEN (old.fault = '') = (excluded.fault = '') THEN old.since
                ELSE now() END""",
        (
            list(found.answered),
            asked,
            [mask(str(found.faults.get(each, ""))) for each in asked],
        ),
    )
    connection.execute(
        "DELETE FROM rules WHERE name <> ALL(%s)", ([*settings.discover],)
    )
    failing = query(
        connection,
        "UPDATE rules SET reported = true WHERE fault <> '' AND NOT reported"
        " AND since < now() - interval '15 minutes' RETURNING name, fault",
    )
    answering = query_column(
        connection,
        "UPDATE rules SET reported = false WHERE fault = '' AND reported"
        " RETURNING name",
    )
    return {f"rule {name}": _failing(fault) for name, fault in failing} | {
        f"rule {name}": None for name in answering
    }


def with_known(connection: Connection, settings: Settings) -> Settings:
    """Return the settings with what others found, or this worker in an earlier life.

    How to reach it stays unknown.
    """
    rows = query(connection, "SELECT name, rule FROM sources WHERE gone_since IS NULL")
    known = {
        name: placeholder(settings.discover[rule])
        for name, rule in rows
        if rule in settings.discover and name not in settings.files
    }
    databases = known | settings.databases
    return settings.model_copy(update={"databases": databases})


def confirm_gone(connection: Connection, name: str) -> None:
    """Forget a source that is gone; its sets stay.

    Raises:
        UsageError: it is none that is gone.
    """
    gone = query(
        connection,
        "DELETE FROM sources WHERE name = %s AND gone_since IS NOT NULL RETURNING name",
        name,
    )
    if not gone:
        raise UsageError(
            f"no source {name} is gone",
            hint="`inv fleet-status` lists those that are.",
        )
    connection.execute("DELETE FROM turns WHERE source = %s", (name,))
