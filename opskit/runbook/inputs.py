"""Inputs of a runbook: typed values, which its commands get by the environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from opskit.errors import UsageError

_NAME = re.compile(r"\w[\w.-]*")
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a runbook must know; one without a default has to be given."""

    name: str
    kind: str
    about: str
    default: str = ""


def check_value(known: Input, value: str) -> str:
    """Return the value of an input if it is one of its type.

    Raises:
        UsageError: it is not.
    """
    fits, allowed = KINDS[known.kind]
    if value.isprintable() and value.strip() and fits(value):
        return value
    raise UsageError(
        f"{known.name} must be {allowed}, not {value!r}",
        hint=f"{known.name} is {known.about or 'an input of this runbook'}.",
    )


def parse(known: Sequence[Input], given: Iterable[str]) -> dict[str, str]:
    """Return the values of `name=value` texts, each checked.

    Raises:
        UsageError: one is unknown, given twice, or not of its type.
    """
    by_name = {each.name: each for each in known}
    values: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in by_name:
            raise UsageError(
                f"the runbook has no input {name}"
                if equals
                else f"--input needs name=value, not {text!r}",
                hint=f"Its inputs: {', '.join(by_name) or 'none'}.",
            )
        if name in values:
            raise UsageError(
                f"the input {name} is given already",
                hint=f"Give {name} once. --resume keeps the inputs: to change one, "
                "begin anew without it.",
            )
        values[name] = check_value(by_name[name], value)
    return values


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return bool(
            parts.scheme
            and (parts.netloc or parts.path)
            and "://" in value
            and " " not in value
        )
    except ValueError:
        return False


def _is_time(value: str) -> bool:
    try:
        return bool(_TIME.fullmatch(value) and datetime.fromisoformat(value))
    except ValueError:
        return False


# By the name of a type: what its values must be like.
KINDS: dict[str, tuple[Callable[[str], object], str]] = {
    "name": (_NAME.fullmatch, "a name: letters, digits, _, - and ."),
    "backup": (_NAME.fullmatch, "the ID of a backup set, its beginning, or latest"),
    "url": (_is_url, "a URL"),
    "path": (lambda value: value.startswith("/"), "an absolute path"),
    "number": (_NUMBER.fullmatch, "a number from 0 on"),
    "time": (_is_time, "a time as 2026-11-30T09:00:00Z"),
    "text": (lambda _value: True, "one line of text"),
}
