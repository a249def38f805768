"""SQL as text: quoted names, and the statements of a script."""

from __future__ import annotations

import re
from collections.abc import Iterator


def quoted(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def unquoted(identifier: str) -> str:
    """Return the name that an identifier stands for, whether it is quoted or not."""
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier


def statements(sql: str) -> Iterator[str]:
    """Yield the statements of a script of pg_dumpall, but no comments and commands.

    Semicolons and line ends inside quotes belong to a name or a value.
    """
    statement: list[str] = []
    quote = ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", sql):
        if (
            not quote
            and not "".join(statement).strip()
            and line.startswith(("--", "\\"))
        ):
            continue
        for character in line:
            if quote:
                quote = "" if character == quote else quote
            elif character in "'\"":
                quote = character
            if character == ";" and not quote:
                yield "".join(statement).strip()
                statement = []
            else:
                statement.append(character)
    rest = "".join(statement).strip()
    if rest:
        yield rest


def statements_by_role(text: str) -> Iterator[str]:
    """Yield the statements; one that is run as another role together with that."""
    unit: list[str] = []
    for statement in statements(text):
        unit.append(statement)
        as_another = unit[0].startswith("SET SESSION AUTHORIZATION")
        if not as_another or statement.startswith("RESET SESSION AUTHORIZATION"):
            yield "; ".join(unit)
            unit = []
    if unit:
        yield "; ".join(unit)
