"""Structured logs on standard error: a run id on every line, secrets masked."""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from opskit.masking import masked


def new_run_id() -> str:
    """Return the id that ties every line, lock and record of one run together."""
    return secrets.token_hex(6)


def configure(
    *,
    run_id: str,
    form: Literal["auto", "console", "json"],
) -> None:
    """Send logs to standard error in the form asked for, until called again."""

    def mask_all(
        _logger: object, _name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {key: masked(value) for key, value in event.items()}

    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            mask_all,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(run_id=run_id)


def logger() -> Any:
    """Return the logger; structlog's own type says no more than Any."""
    return structlog.get_logger()
