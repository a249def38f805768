"""Slots: how many jobs may use one server or one store at once."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from opskit.config import Settings
from opskit.errors import OpskitError
from opskit.fleet.queue import LOCK_CLASS, session
from opskit.log import logger
from opskit.operations.schedule import Job
from opskit.postgres.connect import query_value
from opskit.postgres.parameters import server_of

WITHOUT_CAPS = ("smoke", "report")
_SERVER = "server "


class NoSlot(Exception):
    """No slot is free in a place that a job uses.

    If that is a server, jobs of other servers may still get one.
    """

    def __init__(self, place: str) -> None:
        self.is_of_server = place.startswith(_SERVER)


def take(settings: Settings, job: Job) -> ExitStack:
    """Return what holds a slot in each place that a job uses.

    A slot is an advisory lock in the queue's database, of a session that lives as long
    as the job: it dies with its holder.

    Raises:
        NoSlot: one of the places has none, or the queue does not answer.
    """
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(
                session(settings.fleet, f"fleet slots of {job.name}")
            )
            for place, number in caps(settings, job).items():
                taken = query_value(
                    connection,
                    "SELECT i FROM generate_series(1, %s) i WHERE"
                    " pg_try_advisory_lock(%s, hashtext(%s || ' ' || i)) LIMIT 1",
                    number,
                    LOCK_CLASS,
                    place,
                )
                if taken is None:
                    raise NoSlot(place)
            return stack.pop_all()
    except OpskitError as error:
        logger().info("no slot can be asked for", reason=error.message)
        raise NoSlot("the queue") from error


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
