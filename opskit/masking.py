"""Hides passwords and private keys in any text that a person or a log is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s@]+@")
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


def mask(text: str, known: Iterable[str] = ()) -> str:
    """Return the text with every password and key hidden that can be told for one.

    `known` are secrets to hide wherever they stand.
    """
    for secret in known:
        if secret:
            text = text.replace(secret, MASK)
    text = _PRIVATE_KEY.sub(MASK, text)
    return _ASSIGNED.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1{MASK}@", text))
