"""Logs on standard error, secrets masked: for people on a terminal, else as JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from opskit.terminal import printable

MASK = "***"
# How much is shown of what a program wrote, and how much of it is masked for that.
WORDS_SHOWN, WORDS_READ = 600, 64 * 1024
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
# One as long as this is no part of an ordinary word: it is masked inside of words, too.
_KEY_LENGTH_MIN = 16
# A JSON Web Token.
_JWT = re.compile(r"eyJ[\w-]+\.eyJ[\w.-]+")
_Event = MutableMapping[str, Any]
_Amount = Literal["quiet", "usual", "verbose"]


@dataclass(frozen=True)
class _Run:
    """What the lines of one run have in common; its threads share it."""

    run_id: str = ""
    form: Literal["auto", "console", "json"] = "auto"
    amount: _Amount = "usual"
    hidden: set[str] = field(default_factory=set)


# Of the run that this thread works for: several may go on in one process.
_run: ContextVar[_Run | None] = ContextVar("run", default=None)


def _this_run() -> _Run:
    run = _run.get()
    if run is None:
        run = _Run()
        _run.set(run)
    return run


def hide(secret: str) -> None:
    """Have a secret masked by this run, wherever it or a longer piece of it stands."""
    for form in (secret, quote(secret, safe=""), *_CUTS.split(secret)):
        if len(form) >= _PIECE_LENGTH_MIN:
            _this_run().hidden.add(form)


def mask(text: str) -> str:
    """Return the text with every password and key in it masked.

    Those that `hide` was given are known, short ones as whole words; others are
    recognized by how they are written.
    """
    hidden = _this_run().hidden.copy()  # another thread of the run may add to it
    if any(each in text for each in hidden):
        longest_first = sorted(hidden, key=len, reverse=True)
        text = re.sub("|".join(map(_known, longest_first)), MASK, text)
    text = _JWT.sub(MASK, _PRIVATE_KEY.sub(MASK, text))
    text = _CLAUSE.sub(lambda clause: _IN_CLAUSE.sub(f"'{MASK}'", clause[0]), text)
    return _ASSIGNED.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1{MASK}@", text))


def last_words(text: str) -> str:
    """Return the end of what a program wrote, masked.

    It is masked before it is cut: the end of a secret alone is not recognized.
    """
    return mask(text[-WORDS_READ:].strip())[-WORDS_SHOWN:]


def _known(secret: str) -> str:
    """Return the pattern of a secret that is known."""
    pattern = re.escape(secret)
    if len(secret) >= _KEY_LENGTH_MIN:
        return pattern
    return rf"(?<![\w-]){pattern}(?![\w-])"


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
_amount: ContextVar[_Amount] = ContextVar("amount", default="usual")


def run_id() -> str:
    """Return the id of this run, or a new one where none has begun."""
    return _this_run().run_id or new_run_id()


def new_run_id() -> str:
    """Return the id that ties every line, lock and record of one run together."""
    return secrets.token_hex(6)


def want(*, quiet: bool, verbose: bool) -> None:
    """Say how much is to be logged, for runs that are configured from now on."""
    _amount.set("verbose" if verbose else "quiet" if quiet else "usual")


def configure(*, run_id: str, form: Literal["auto", "console", "json"]) -> None:
    """Begin a run: send its logs to standard error in the form asked for.

    It is the run of this thread and of those that it starts from now on. Steps are
    logged where JSON was asked for, or all of them with `want`; else only what is not
    as it should be.
    """
    _run.set(_Run(run_id=run_id, form=form, amount=_amount.get()))
    import structlog  # not where only tasks are listed

    # For the whole process, and for every run the same.
    structlog.configure(
        processors=[
            _of_this_run,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _masked_event,
            _rendered,
        ],
        # Looked up each time: a bar that is drawn keeps lines above it.
        logger_factory=lambda *_names: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _of_this_run(_logger: object, name: str, event: _Event) -> _Event:
    run = _this_run()
    usual = logging.INFO if run.form == "json" else logging.WARNING
    least = {"quiet": logging.ERROR, "usual": usual, "verbose": logging.DEBUG}
    if logging.getLevelNamesMapping()[name.upper()] < least[run.amount]:
        from structlog import DropEvent

        raise DropEvent
    return {"run_id": run.run_id, **event}


def _masked_event(_logger: object, _name: str, event: _Event) -> _Event:
    return {key: masked(value) for key, value in event.items()}


def _rendered(_logger: object, _name: str, event: _Event) -> str:
    form = _this_run().form
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    return _for_people(event) if console else json.dumps(event, ensure_ascii=False)


def _for_people(event: _Event) -> str:
    level = str(event["level"])
    because = event.get("reason") or event.get("error")
    text = f"{event['event']}: {because}" if because else str(event["event"])
    details = [f"{k} {v}" for k, v in event.items() if k not in _DETAILS and v != ""]
    if details:
        text += f" ({', '.join(details)})"
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR") and level in _COLOURS:
        level = f"{_COLOURS[level]}{level}{_PLAIN}"
    line = f"{level}: {printable(text)}"
    if _this_run().amount == "verbose":
        line = f"{event['timestamp']} {event['run_id']} {line}"
    return line


def logger() -> Any:
    """Return the logger; structlog's own type says no more than Any."""
    import structlog

    return structlog.get_logger()
