"""The one gate for secrets: all that is printed, logged or recorded passes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

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
