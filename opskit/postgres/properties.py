"""Settings, grants and comments of a database itself, for one of another name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.database import quoted
from opskit.postgres.globals import statements

_PROPERTIES = ("DATABASE PROPERTIES", "ACL", "COMMENT", "SECURITY LABEL")


def property_script(
    entries: Iterable[TocEntry],
    source: str,
    target: str,
    *,
    without_settings: Collection[str] = (),
    without_roles: Collection[str] = (),
    with_grants: bool = True,
) -> str:
    """Return the archive's settings, grants and comments of the database itself.

    They name the source's database, which is another one here.
    """
    names = (source, quoted(source))
    tags = {source, *(f"DATABASE {name}" for name in names)}
    old = "|".join(map(re.escape, names))
    pattern = re.compile(rf"\bDATABASE (?:{old})(?=\s|\Z)")
    replacement = f"DATABASE {quoted(target)}".replace("\\", r"\\")
    return "".join(
        # The first mention is the object; later ones are somebody's words.
        f"{pattern.sub(replacement, statement, count=1)};\n"
        for entry in entries
        if entry.kind in _PROPERTIES and entry.name in tags and _is_of_database(entry)
        if with_grants or entry.kind != "ACL"
        for statement in statements(entry.definition)
        if not _sets_any(statement, without_settings)
        and not any(
            statement.startswith((f"ALTER ROLE {role} ", f"ALTER ROLE {quoted(role)} "))
            for role in without_roles
        )
    )


def _sets_any(statement: str, names: Collection[str]) -> bool:
    found = re.search(r" SET \"?([^\s\"]+)\"? (?:TO|=) ", statement)
    return found is not None and found[1].lower() in names


def _is_of_database(entry: TocEntry) -> bool:
    return "DATABASE" in entry.kind or entry.name.startswith("DATABASE ")
