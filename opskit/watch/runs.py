"""Runs of the command line and the daemon, with the observers that settings ask for."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from opskit.config import Settings
from opskit.operations import run as operations
from opskit.operations.outcome import Failure, Record
from opskit.operations.run import Observer, Run
from opskit.threads import Thread


def start() -> Run:
    """Load the configuration, set up the logs, and return an observed run.

    Raises:
        ConfigurationError: see `config.load`; or a receiver cannot be used.
    """
    return observed(operations.start())


def observed(run: Run) -> Run:
    """Return a run whose operations are observed as its settings ask for.

    Raises:
        ConfigurationError: a receiver cannot be used.
    """
    return replace(run, observers=_observers(run.settings))


def record_event(
    run: Run,
    operation: str,
    ended: str,
    failure: Failure,
    *,
    run_id: str = "",
    **details: Any,
) -> Thread:
    """Record what no operation could record itself, and notify the observers.

    They are notified in a thread, after stores have got their copy: the next job does
    not wait for either.

    For instance a missed run (`ended` is `missed`), or a job that was killed
    (`failed`, with the id of its run). `details` go to the ledger; `source` is the
    source that it is about.
    """
    record = Record(
        operation=operation,
        run_id=run_id or run.run_id,
        started_at=run.now(),
        subject=str(details.get("source", "")),
        details={"error": failure.message, "code": failure.exit_code} | details,
        on_record=True,
        ended=ended,
        failures=[failure],
    )
    record.end()
    run.ledger.append(record)
    return Thread(_follow_up, run, record, name=f"{operation} {ended}")


def _follow_up(run: Run, record: Record) -> None:
    run.ledger.copy(record)
    run.notify(record)


def _observers(settings: Settings) -> tuple[Observer, ...]:
    """Return those that have something to do; hooks prepare before all others."""
    notify, hooks = settings.notify, settings.hooks
    observers: list[Observer] = []
    if hooks.before or hooks.after or hooks.failed:
        from opskit.watch.hooks import Hooks

        observers.append(Hooks(hooks))
    if notify.urls or notify.webhooks or notify.heartbeats or notify.drill_heartbeats:
        from opskit.watch.notify import Notifier

        observers.append(Notifier(settings))
    # Without an address as well, if there was one before: its client has to end.
    if notify.sentry_dsn.get_secret_value() or "sentry_sdk" in sys.modules:
        from opskit.watch.tracking import Tracking

        observers.append(Tracking(notify))
    if settings.scheduler.textfile is not None:
        from opskit.watch.metrics import Textfile

        observers.append(Textfile(settings.scheduler.textfile))
    return tuple(observers)
