"""Logs: JSON lines on standard error, with the request's id and without secrets."""

from __future__ import annotations

import logging
import logging.config
import re
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_MASK = "***"
_NAMES = re.compile(r"authorization|cookie|key|passw|secret|signature|token", re.I)
# Keys of the service, JSON Web Tokens, passwords in URLs, and credentials in headers.
_VALUES = re.compile(
    r"svc_[0-9a-f]{8}_[\w-]+"
    r"|eyJ[\w-]+\.[\w-]+\.[\w-]*"
    r"|(?<=:)[^:@/\s]+(?=@)"
    r"|(?<=password=)\S+|(?<=token=)[^&\s]+"
    r"|(?<=bearer )\S+",
    re.IGNORECASE,
)


def configure(level: str) -> None:
    """Send all logs, the libraries' too, to standard error as JSON."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "foreign_pre_chain": shared,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            mask,
            structlog.processors.JSONRenderer(default=str),
        ],
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": formatter},
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "json"}
            },
            "root": {"handlers": ["stderr"], "level": level.upper()},
        }
    )
    logging.getLogger("uvicorn.error").addFilter(_is_true)


def _is_true(record: logging.LogRecord) -> bool:
    # Uvicorn says it of each WebSocket that was refused, and answered, by us.
    return "without completing handshake" not in str(record.msg)


def request_id() -> str:
    """Return the id of the request that is answered now; a command has none."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what is secret by its name, or looks like a secret."""
    return {name: _masked(name, value) for name, value in event.items()}


def _masked(name: str, value: Any) -> Any:
    if _NAMES.search(name) and value is not None:
        return _MASK
    if isinstance(value, dict):
        return {key: _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", inner) for inner in value]
    if isinstance(value, bool | int | float | None):
        return value
    return _VALUES.sub(_MASK, str(value))
