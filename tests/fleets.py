"""Fleets of the tests: a queue in a database of its own, and what is asked of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opskit.config import Settings
from opskit.config.fleet import FleetSettings
from opskit.fleet import queue
from opskit.postgres.connect import Connection

_QUIET = {"verify": "", "drill": "", "prune": "", "report": ""}


class Fleet:
    """A queue, and questions that a test asks of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fleet = FleetSettings.model_validate({"url": url})

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """Yield a connection in the fleet's schema."""
        with queue.session(self.fleet, "test") as connection:
            yield connection

    def init(self) -> str:
        """Make the schema, and return the fleet's id."""
        with self.session() as connection:
            return queue.init(connection)[0]

    def ask(self, statement: str, *parameters: object) -> list[Any]:
        """Run a statement, and return its rows; of one column its values."""
        with self.session() as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            rows = cursor.fetchall() if cursor.description else []
        return [row[0] if len(row) == 1 else row for row in rows]

    def settings(
        self, sources: dict[str, dict[str, Any]], **scheduler: str
    ) -> Settings:
        """Return settings with databases, which nothing connects to, and no drills."""
        databases = {
            name: {"url": f"postgresql://db/{name}", **own}
            for name, own in sources.items()
        }
        return Settings.model_validate(
            {
                "databases": databases,
                "fleet": {"url": self.url},
                "scheduler": _QUIET | scheduler,
            }
        )

    def jobs(self, what: str = "lock") -> list[Any]:
        """Return something of each job, in their order."""
        return self.ask(f"SELECT {what} FROM procrastinate_jobs ORDER BY id")

    def job(self, **own: object) -> int:
        """Put a job into the table as it is, and return its number."""
        values = {
            "task_name": "opskit",
            "queue_name": "default",
            "lock": "shop",
            "args": '{"operation": "backup", "source": "shop",'
            ' "due": "2026-03-01T02:00:00+00:00"}',
        } | own
        (number,) = self.ask(
            f"INSERT INTO procrastinate_jobs ({', '.join(values)})"
            f" VALUES ({', '.join(['%s'] * len(values))}) RETURNING id",
            *values.values(),
        )
        return int(number)

    def engine(self, *, seen: str = "0 s") -> int:
        """Put a worker of procrastinate into its table, last seen some time ago."""
        (number,) = self.ask(
            "INSERT INTO procrastinate_workers (last_heartbeat)"
            " VALUES (now() - %s::interval) RETURNING id",
            seen,
        )
        return int(number)


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make calls in threads that begin together; return what they return."""
    results: list[Any] = [None] * len(calls)
    gate = threading.Barrier(len(calls), timeout=60)

    def make(number: int, call: Callable[[], Any]) -> None:
        gate.wait()
        results[number] = call()

    threads = [
        threading.Thread(target=make, args=(number, call))
        for number, call in enumerate(calls)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
        assert not each.is_alive()
    return results
