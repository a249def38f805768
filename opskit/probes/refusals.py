"""Refusals: what a clean error answer is, whatever the request was."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from opskit.config.smoke import SmokeSettings
from opskit.probes.probe import Inconclusive, WrongAnswer
from opskit.probes.session import BALANCERS, Answer, Session

T = TypeVar("T")
# One connection in ten may break on its way.
_ATTEMPTS = 5
# Traces, debug pages and messages of databases, as frameworks show them.
_TRACES = re.compile(
    rb"Traceback \(most recent call last\)"
    rb'|File "[^"\n]+", line \d+'
    rb"|\bat [\w.$<>]+\([\w.]+\.(?:java|kt|scala):\d+\)"
    rb"|\bat [^\n]{1,200}\.(?:js|mjs|cjs|ts):\d+:\d+"
    rb"|\bat [\w.`<>]+\([^)\n]*\) in [^\n]+:line \d+"
    rb"|\.rb:\d+:in [`']"
    rb"|\.php(?:\(\d+\)| on line \d+|</b> on line)"
    rb"|\bgoroutine \d+ \["
    rb"|thread '[^'\n]*' panicked at"
    rb"|Werkzeug Debugger|You're seeing this error because you have|Whoops, looks like"
    rb"|\b(?:java|javax|org|com)\.[\w.]+(?:Exception|Error)\b"
    rb"|\b(?:psycopg2?|sqlalchemy|asyncpg|pymysql|sqlite3|django\.\w+)\.\w+"
    rb"|\bSQLSTATE\b|PG::\w+Error|syntax error at or near"
    rb"|invalid byte sequence for encoding|\bSELECT\b.{1,200}\bFROM\b|\bINSERT INTO\b"
)


def fault(answer: Answer, fields: Sequence[str]) -> str:
    """Return what is wrong with the body of an error answer; empty if it is clean.

    With `fields` it is JSON in which each of them is a text that is not empty.
    """
    if _TRACES.search(answer.body):
        return "shows a trace or words of a database"
    if not fields:
        return ""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return "is no JSON"
    for name in fields:
        value: Any = document
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not (isinstance(value, str) and value):
            return f"lacks {name}"
    return ""


def described(answer: Answer, fields: Sequence[str]) -> str:
    """Return the status of an answer, and what is wrong with its body."""
    wrong = fault(answer, fields) if answer.status >= 400 else ""
    return f"{answer.status} that {wrong}" if wrong else str(answer.status)


def has(document: object, fields: Mapping[str, object]) -> bool:
    """Whether an object has these fields with these values, among others."""
    return isinstance(document, dict) and all(
        document.get(name) == value for name, value in fields.items()
    )


def insist(session: Session, settings: SmokeSettings, attempt: Callable[[], T]) -> T:
    """Return the answer to a request; a service that is there must give one.

    Raises:
        WrongAnswer: there was none several times, or twice where that took long, while
            other requests were answered.
        Inconclusive: there was none, nor to others; or it is not the service's.
    """
    silence, began = "", time.monotonic()
    for number in range(_ATTEMPTS):
        if number > 1 and time.monotonic() - began > session.target.timeout_seconds:
            break
        try:
            return attempt()
        except Inconclusive as error:
            if error.__cause__ is None:
                raise
            silence = str(error)
        session.get(settings.version.path, own=BALANCERS)
    raise WrongAnswer(expected="an answer", observed=silence)
