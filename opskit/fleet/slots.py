"""Slots: how many jobs may use one server or one store at once."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from datetime import timedelta

from opskit.config import Settings
from opskit.errors import OpskitError
from opskit.fleet.queue import LOCK_CLASS, session
from opskit.log import logger
from opskit.operations.schedule import Job
from opskit.postgres.connect import Connection, cut_off, query_value
from opskit.postgres.parameters import server_of

WITHOUT_CAPS = ("smoke", "report")
_SERVER = "server "
# After this, the end of the session gives the slots back.
_FREE = timedelta(seconds=5)


class NoSlot(Exception):
    """No slot is free in a place that a job uses.

    If that is a server, `before` is how many jobs wait for it that are more urgent;
    jobs of other servers may still get a slot.
    """

    def __init__(self, before: int | None = None) -> None:
        self.before = before


def take(settings: Settings, job: Job, number: int = 0) -> ExitStack:
    """Return what holds a slot in each place that a job uses.

    A slot is an advisory lock in the queue's database, of a session that lives as long
    as the job: it dies with its holder. Given the job's number in the queue, the job is
    called when a backup on its server ends and no job before it waits.

    Raises:
        NoSlot: one of the places has none, or the queue does not answer.
    """
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(
                session(settings.fleet, f"fleet slots of {job.name}")
            )
            places = caps(settings, job)
            for place, size in places.items():
                taken = query_value(
                    connection,
                    "SELECT i FROM generate_series(1, %s) i WHERE"
                    " pg_try_advisory_lock(%s, hashtext(%s || ' ' || i)) LIMIT 1",
                    size,
                    LOCK_CLASS,
                    place,
                )
                if taken is None and place.startswith(_SERVER):
                    raise NoSlot(_line_up(connection, place, number))
                if taken is None:
                    raise NoSlot
            connection.execute(
                "UPDATE procrastinate_jobs SET args = args - 'waits_for'"
                " WHERE id = %s AND args ? 'waits_for'",
                (number,),
            )
            for place in places:
                if place.startswith(_SERVER):
                    stack.callback(_call_next, connection, place)
            return stack.pop_all()
    except OpskitError as error:
        logger().info("no slot can be asked for", reason=error.message)
        raise NoSlot from error


def _line_up(connection: Connection, place: str, number: int) -> int:
    """Note what a job waits for; return how many that wait for it are more urgent."""
    before: int = query_value(
        connection,
        """
        WITH own AS (
            UPDATE procrastinate_jobs
            SET args = args || jsonb_build_object('waits_for', hashtext(%s))
            WHERE id = %s RETURNING id, priority, args
        )
        SELECT count(*) FROM procrastinate_jobs j, own
        WHERE j.status = 'todo' AND j.args->'waits_for' = own.args->'waits_for'
          AND (j.priority, -j.id) > (own.priority, -own.id)""",
        place,
        number,
    )
    return before


def _call_next(connection: Connection, place: str) -> None:
    """Give the slots back, and have the most urgent job that waits for one come.

    It lines up again if it does not get one: else it would be called for each.
    """
    with cut_off(connection, _FREE):
        connection.execute("SELECT pg_advisory_unlock_all()")
        connection.execute(
            """
            UPDATE procrastinate_jobs
            SET scheduled_at = now(), args = args - 'waits_for'
            WHERE id = (
                SELECT id FROM procrastinate_jobs
                WHERE status = 'todo' AND scheduled_at > now()
                  AND args->'waits_for' = to_jsonb(hashtext(%s))
                ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED
            )""",
            (place,),
        )


def free(slots: ExitStack) -> None:
    """Give slots back; with a lost connection they were free before."""
    with suppress(OpskitError):
        slots.close()


def caps(settings: Settings, job: Job) -> dict[str, int]:
    """Return how many jobs may use each place that a job uses."""
    if job.operation in WITHOUT_CAPS:
        return {}
    found: dict[str, int] = {}
    if job.operation == "backup" and job.source in settings.databases:
        # Where the URL cannot be read the job fails, and says so.
        with suppress(OpskitError):
            server = server_of(settings.databases[job.source].resolve_url())
            found[f"{_SERVER}{server}"] = settings.fleet.per_server
    # The stores come last: a job that its server has no slot for occupies none there.
    return found | {f"store {e}": settings.fleet.per_store for e in settings.stores}
