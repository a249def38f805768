"""Queue: the schema of a fleet, and procrastinate's jobs with fences around them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from procrastinate import App, PsycopgConnector, RetryDecision
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as QueuedJob
from procrastinate.jobs import Status
from procrastinate.manager import JobManager, NotificationCallback
from procrastinate.retry import BaseRetryStrategy
from procrastinate.schema import SchemaManager

from opskit.config.fleet import FleetSettings
from opskit.errors import ConfigurationError, DatabaseError, OpskitError
from opskit.log import logger
from opskit.postgres.connect import (
    Connection,
    connect,
    is_pooled,
    limit_statements,
    query,
    query_value,
)
from opskit.postgres.parameters import arguments, parse

SCHEMA = "opskit_fleet"
VERSION = 1
TASK = "opskit"
# "opsf": the first half of the keys of a fleet's advisory locks.
LOCK_CLASS = 0x6F707366
_AGAIN_SECONDS = 2.0
_POOL_SECONDS = 5.0
_STATEMENT_SECONDS = 30.0
# A queue that vanished without a word is noticed within about 15 seconds.
_QUICK = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


def _url(settings: FleetSettings) -> str:
    """Return the URL of the queue, with waits that are shorter than usual.

    Raises:
        ConfigurationError: there is none.
    """
    url = settings.resolve_url()
    if not url:
        raise ConfigurationError(
            "no queue is configured",
            hint='Name its database: [fleet] with url = "postgresql://…", then '
            "`inv fleet-init`.",
        )
    own = {key: value for key, value in _QUICK.items() if key not in parse(url)}
    return f"{url}{'&' if '?' in url else '?'}{urlencode(own)}"


@contextmanager
def session(settings: FleetSettings, purpose: str) -> Iterator[Connection]:
    """Yield a connection to the queue's database, in the schema of the fleet.

    Raises:
        ConfigurationError: there is no queue, or a pooler stands in between.
        DatabaseError: it cannot be reached.
    """
    wait = timedelta(seconds=_STATEMENT_SECONDS)
    pooled = ConfigurationError(
        "fleet.url leads to a connection pooler",
        hint="Name the server itself: LISTEN and advisory locks belong to a session, "
        "which a pooler in transaction mode shares.",
    )
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(
                connect(_url(settings), purpose=purpose, lock_wait=wait)
            )
        except DatabaseError as error:
            # Most poolers refuse the parameters of a session, or drop them.
            if "pooler" in f"{error.message} {error.hint}":
                raise pooled from error
            raise error.replace(summary=f"the queue: {error.summary}") from error
        if is_pooled(connection):
            raise pooled
        limit_statements(connection, _STATEMENT_SECONDS)
        query(connection, "SELECT set_config('search_path', %s, false)", SCHEMA)
        yield connection


def migrations() -> list[Path]:
    """Return procrastinate's migrations in their order."""
    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))


def init(connection: Connection) -> tuple[str, bool]:
    """Make the schema or bring it up to date; return the fleet's id, and if it is new.

    What old workers could not stand is left out while any worker is alive.
    """
    with connection.transaction():
        query(connection, "SELECT pg_advisory_xact_lock(%s, 0)", LOCK_CLASS)
        is_new = query_value(connection, "SELECT to_regclass('fleet') IS NULL")
        if is_new:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            own = (resources.files("opskit.fleet") / "schema.sql").read_text()
            for text in (SchemaManager.get_schema(), own):
                connection.execute(text)
            connection.execute(
                "INSERT INTO fleet (version, migration) VALUES (%s, %s)",
                (VERSION, migrations()[-1].stem),
            )
        else:
            _migrate(connection)
        return str(query_value(connection, "SELECT id FROM fleet")), bool(is_new)


def _migrate(connection: Connection) -> None:
    done = query_value(connection, "SELECT migration FROM fleet")
    is_busy = query_value(
        connection,
        "SELECT count(*) > 0 FROM workers WHERE seen_at > now() - interval '5 minutes'",
    )
    for path in migrations():
        if path.stem <= done:
            continue
        if is_busy and "_post_" in path.stem:
            logger().warning(
                "workers are alive: what those of an earlier version could not stand "
                "is left out",
                hint="When all are of this version: `inv fleet-init`.",
            )
            break
        connection.execute(path.read_text())
        connection.execute("UPDATE fleet SET migration = %s", (path.stem,))
    connection.execute("UPDATE fleet SET version = greatest(version, %s)", (VERSION,))


def require_schema(connection: Connection) -> str:
    """Return the fleet's id.

    Raises:
        ConfigurationError: the schema is missing, too old or too new for this opskit.
    """
    if query_value(connection, "SELECT to_regclass('fleet') IS NULL"):
        raise ConfigurationError(
            f"the queue's database has no schema {SCHEMA} that this role may use",
            hint="Make it, as the role that workers connect as: `inv fleet-init`.",
        )
    ((fleet, version, done),) = query(
        connection, "SELECT id, version, migration FROM fleet"
    )
    needed = [each.stem for each in migrations() if "_post_" not in each.stem]
    if version < VERSION or done < needed[-1]:
        raise ConfigurationError(
            f"the queue's schema is of an older version ({version}, {done})",
            hint="Bring it up to date: `inv fleet-init`. Workers of the version before "
            "go on meanwhile.",
        )
    if version > VERSION + 1:
        raise ConfigurationError(
            f"the queue's schema is of version {version}, this opskit knows {VERSION}",
            hint="Install the opskit of the other workers here.",
        )
    return str(fleet)


class Again(Exception):
    """A job is put back into the queue, for a later time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class _PutBack(BaseRetryStrategy):
    def get_retry_decision(
        self, *, exception: BaseException, job: QueuedJob
    ) -> RetryDecision | None:
        if isinstance(exception, Again):
            return RetryDecision(retry_in={"seconds": int(exception.seconds) or 1})
        reason = repr(exception)
        if isinstance(exception, OpskitError):
            reason = exception.message
        logger().error("a job has failed", job=job.lock, reason=reason)
        # Another machine may have the threads, the memory or the file that this lacks.
        lacks = isinstance(exception, (RuntimeError, MemoryError, OSError))
        return RetryDecision(retry_in={"seconds": 60}) if lacks else None


class FencedJobs(JobManager):
    """The jobs as procrastinate keeps them, with what a worker must not do.

    procrastinate ends a job by its number alone: a worker that was stopped and wakes up
    would end that of its successor. And it ends the worker when its database is away
    for a moment.
    """

    def __init__(
        self,
        connector: PsycopgConnector,
        *,
        is_ending: Callable[[], bool],
        is_pausing: Callable[[], bool],
    ) -> None:
        super().__init__(connector)
        self._is_ending, self._is_pausing = is_ending, is_pausing
        # The numbers of the jobs that this worker has got and not ended yet.
        self._held: set[int] = set()

    async def finish_job(
        self, job: QueuedJob, status: Status, delete_job: bool
    ) -> None:
        await self._persist(
            job, "procrastinate_finish_job_v1(id, %(status)s, false)",
            status=status.value,
        )  # fmt: skip

    async def retry_job(
        self,
        job: QueuedJob,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> None:
        # By the queue's clock: this machine's may be wrong.
        wait = (retry_at - datetime.now(UTC)) if retry_at else timedelta(0)
        await self._persist(
            job,
            "procrastinate_retry_job_v2("
            "id, now() + %(wait)s, %(priority)s, %(queue)s, %(lock)s)",
            wait=wait,
            priority=priority,
            queue=queue,
            lock=lock,
        )

    async def _persist(self, job: QueuedJob, call: str, **values: Any) -> None:
        """Change a job if it is still this worker's, as soon as the database answers.

        While its worker lives, nobody else would. One that ends leaves it to others.
        """
        text = (
            f"SELECT {call} FROM (SELECT id FROM procrastinate_jobs WHERE id = %(job)s"  # noqa: S608
            " AND status = 'doing' AND attempts = %(attempts)s"
            " AND worker_id = %(worker)s FOR UPDATE) AS mine"
        )
        while True:
            try:
                changed = await self.connector.execute_query_all_async(
                    text,
                    job=job.id,
                    attempts=job.attempts,
                    worker=job.worker_id,
                    **values,
                )
            except ConnectorException as error:
                _away(error)
                if self._is_ending():
                    break
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                if not changed:
                    logger().warning("a job is another worker's by now", job=job.lock)
                break
        self._held.discard(job.id or 0)

    async def fetch_job(self, queues: Any, worker_id: int) -> QueuedJob | None:
        if self._is_pausing():
            return None
        try:
            job = await super().fetch_job(queues, worker_id)
            if job is None:
                await self._put_back_unheld(worker_id)
        except ConnectorException as error:
            _away(error)
            return None
        if job is not None and job.id is not None:
            self._held.add(job.id)
        return job

    async def _put_back_unheld(self, worker_id: int) -> None:
        """Put back what was given to this worker, but the answer was lost on the way.

        Nobody would do it, and nobody take it over while this worker lives.
        """
        await self.connector.execute_query_async(
            "SELECT procrastinate_retry_job_v2(id, now(), NULL, NULL, NULL)"
            " FROM (SELECT id FROM procrastinate_jobs WHERE worker_id = %(worker)s"
            " AND status = 'doing' AND id <> ALL(%(held)s::bigint[])"
            " FOR UPDATE) AS lost",
            worker=worker_id,
            held=list(self._held),
        )

    async def update_heartbeat(self, worker_id: int) -> None:
        await _patiently(super().update_heartbeat(worker_id))

    async def listen_for_jobs(
        self, *, on_notification: NotificationCallback, queues: Any = None
    ) -> None:
        while True:
            await _patiently(
                super().listen_for_jobs(on_notification=on_notification, queues=queues)
            )
            await asyncio.sleep(_AGAIN_SECONDS + random.random())  # noqa: S311


async def _patiently(asked: Awaitable[object]) -> None:
    try:
        await asked
    except ConnectorException as error:
        _away(error)


def _away(error: Exception) -> None:
    logger().info("the queue does not answer", reason=str(error.__cause__ or error))


def application(
    settings: FleetSettings,
    do: Callable[..., Awaitable[None]],
    *,
    connections: int,
    is_ending: Callable[[], bool] = lambda: False,
    is_pausing: Callable[[], bool] = lambda: False,
) -> App:
    """Return procrastinate's application with the one task of a fleet.

    While `is_ending`, it does not wait for the queue to note the end of a job: another
    worker does that job again. While `is_pausing`, it takes no job.
    """
    given = arguments(parse(_url(settings)) | {"application_name": "opskit fleet"})
    options = f"{given.get('options', '')} -c search_path={SCHEMA}".lstrip()
    connector = PsycopgConnector(
        kwargs=given | {"options": options},
        min_size=1,
        max_size=connections,
        timeout=_POOL_SECONDS,
        reconnect_timeout=10,
    )
    app = App(connector=connector)
    app.job_manager = FencedJobs(connector, is_ending=is_ending, is_pausing=is_pausing)
    app.task(name=TASK, pass_context=True, retry=_PutBack())(do)
    return app


def sweep(connection: Connection, dead_after: timedelta) -> int:
    """Put the jobs of dead workers back into the queue; return how many.

    One statement: what another sweeper has just put back is not touched.
    """
    rows = query(
        connection,
        """
        SELECT procrastinate_retry_job_v2(id, now(), NULL, NULL, NULL)
        FROM (
            SELECT id FROM procrastinate_jobs j
            WHERE status = 'doing' AND NOT EXISTS (
                SELECT FROM procrastinate_workers w
                WHERE w.id = j.worker_id AND w.last_heartbeat > now() - %s
            )
            FOR UPDATE SKIP LOCKED
        ) AS stalled""",
        dead_after,
    )
    return len(rows)
