"""Logs on standard error, secrets masked: for people on a terminal, else as JSON."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal
from urllib.parse import quote

import structlog

from opskit.terminal import printable

MASK = "***"
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)\S+@")
_PRIVATE_KEY = re.compile(
    r"(?is)AGE-SECRET-KEY-[A-Z0-9]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)"
)
# As connection strings, URLs, variables and JSON write it.
_ASSIGNED = re.compile(
    r"""(?ix)
    ( (?: password | passwd | secret | token ) ["']? \s* [=:] \s* )
    ( '(?: \\. | [^'\\] )*' | "(?: \\. | [^"\\] )*" | (?: \\. | [^\s&] )+ )
    """
)
# A literal of SQL, also one that is cut off.
_LITERAL = r"'(?:''|[^'])*(?:'|\Z)"
# The clauses of a statement that may hold a secret: the options of servers and user
# mappings, the connection of a subscription, the password of a role.
_CLAUSE = re.compile(
    rf"(?is)\bOPTIONS\s*\((?:[^'()]|{_LITERAL})*|\b(?:CONNECTION|PASSWORD)\s+E?{_LITERAL}"
)
_IN_CLAUSE = re.compile(_LITERAL)
# What cuts a password in two where somebody writes it into a URL as it is.
_CUTS = re.compile(r"[\s/@:]+")
# Shorter ones are masked where they are written as passwords, not wherever they stand.
_PIECE_LENGTH_MIN = 3
_hidden: set[str] = set()


def hide(secret: str) -> None:
    """Have a secret masked from now on, wherever it or a longer piece of it stands."""
    for form in (secret, quote(secret, safe=""), *_CUTS.split(secret)):
        if len(form) >= _PIECE_LENGTH_MIN:
            _hidden.add(form)


def mask(text: str) -> str:
    """Return the text with every password and key in it masked.

    Those that `hide` was given are known, as whole words; others are recognized by
    how they are written.
    """
    if any(each in text for each in _hidden):
        longest_first = sorted(_hidden, key=len, reverse=True)
        known = "|".join(re.escape(each) for each in longest_first)
        text = re.sub(rf"(?<![\w-])(?:{known})(?![\w-])", MASK, text)
    text = _PRIVATE_KEY.sub(MASK, text)
    text = _CLAUSE.sub(lambda clause: _IN_CLAUSE.sub(f"'{MASK}'", clause[0]), text)
    return _ASSIGNED.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1{MASK}@", text))


def masked(value: Any) -> Any:
    """Return a value with its texts masked, however deep they lie in it.

    What is neither a text nor JSON becomes the text that is written of it.
    """
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {key: masked(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [masked(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return mask(str(value))


_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m"}
_PLAIN = "\x1b[0m"
# Details that a person sees of an event only if everything is asked for.
_DETAILS = ("run_id", "timestamp", "level", "event", "reason", "error")
_wanted: Literal["quiet", "usual", "verbose"] = "usual"


def run_id() -> str:
    """Return the id of this run, or a new one where none has begun."""
    return str(structlog.contextvars.get_contextvars().get("run_id") or new_run_id())


def new_run_id() -> str:
    """Return the id that ties every line, lock and record of one run together."""
    return secrets.token_hex(6)


def want(*, quiet: bool, verbose: bool) -> None:
    """Say how much is to be logged, for runs that are configured from now on."""
    global _wanted
    _wanted = "verbose" if verbose else "quiet" if quiet else "usual"


def configure(
    *,
    run_id: str,
    form: Literal["auto", "console", "json"],
) -> None:
    """Send logs to standard error in the form asked for, until called again.

    Steps are logged where JSON was asked for, or all of them with `want`; else only
    what is not as it should be.
    """

    def mask_all(
        _logger: object, _name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {key: masked(value) for key, value in event.items()}

    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    usual = logging.INFO if form == "json" else logging.WARNING
    levels = {"quiet": logging.ERROR, "usual": usual, "verbose": logging.DEBUG}
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            mask_all,
            _for_people
            if console
            else structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(levels[_wanted]),
        # Looked up each time: a bar that is drawn keeps lines above it.
        logger_factory=lambda *_names: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(run_id=run_id)


def _for_people(_logger: object, _name: str, event: MutableMapping[str, Any]) -> str:
    level = str(event["level"])
    because = event.get("reason") or event.get("error")
    text = f"{event['event']}: {because}" if because else str(event["event"])
    details = [f"{k} {v}" for k, v in event.items() if k not in _DETAILS and v != ""]
    if details:
        text += f" ({', '.join(details)})"
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR") and level in _COLOURS:
        level = f"{_COLOURS[level]}{level}{_PLAIN}"
    line = f"{level}: {printable(text)}"
    if _wanted == "verbose":
        line = f"{event['timestamp']} {event['run_id']} {line}"
    return line


def logger() -> Any:
    """Return the logger; structlog's own type says no more than Any."""
    return structlog.get_logger()
