"""Runs of the command line and the daemon, with the observers that settings ask for."""

from __future__ import annotations

import sys
from dataclasses import replace

from opskit.config import Settings
from opskit.operations import run as operations
from opskit.operations.run import Observer, Run


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
