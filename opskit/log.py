"""Structured logs on standard error: a run id on every line, secrets masked."""

from __future__ import annotations

import logging
import re
import secrets
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any, Literal

import structlog

_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s@]+@")
_ASSIGNED_PASSWORD = re.compile(r"(?i)\b(password\s*=\s*)('[^']*'|[^\s&'\"]+)")
_MASK = "***"


def new_run_id() -> str:
    """Return the id that ties every line, lock and record of one run together."""
    return secrets.token_hex(6)


def mask(text: str, known: Iterable[str] = ()) -> str:
    """Return the text with passwords in URLs and connection strings hidden."""
    for secret in known:
        if secret:
            text = text.replace(secret, _MASK)
    text = _URL_PASSWORD.sub(rf"\1{_MASK}@", text)
    return _ASSIGNED_PASSWORD.sub(rf"\1{_MASK}", text)


def configure(
    *,
    run_id: str,
    form: Literal["auto", "console", "json"],
    known_secrets: Iterable[str] = (),
) -> None:
    """Send logs to standard error in the form asked for, until called again."""
    hidden = [secret for secret in known_secrets if secret]

    def mask_all(
        _logger: object, _name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = mask(value, hidden)
        return event

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
