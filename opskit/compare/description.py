"""Description: what pg_dump says of a database, in a form that is the same anywhere."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from opskit.errors import ArchiveError, DatabaseError
from opskit.postgres import client
from opskit.postgres.archive import toc
from opskit.postgres.archive.entry import ABOUT_OBJECTS, CONTENT_KINDS, TocEntry
from opskit.postgres.archive.toc import Contents
from opskit.postgres.connect import client_connection, client_environment
from opskit.postgres.scratch import without_mark
from opskit.postgres.servers.programs import Installation
from opskit.postgres.sql_text import statements, statements_by_role

# What is compared elsewhere, or only tells how to read the others.
_NOT_DEFINITIONS = CONTENT_KINDS | {"ENCODING", "STDSTRINGS", "SEARCHPATH"}
_LARGE_OBJECT = "LARGE OBJECT"

# Many statements, which the server keeps in no order.
_IN_ANY_ORDER = ("ACL", "DEFAULT ACL", "DATABASE PROPERTIES")

_NO_COMMENT = "COMMENT ON DATABASE * IS '';\n"
_DATABASE_NAME = re.compile(r'\bDATABASE (?:"(?:[^"]|"")*"|[^\s;]+)')

Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class CopyToDescribe:
    """Where the copy is and how it may rightly differ.

    `names` are the source's database and the copy's; `first_roles` those of the
    superusers that initdb made on either server, who own what is built in.
    """

    url: str = field(repr=False)
    installation: Installation
    folder: Path
    timeout_seconds: float
    names: tuple[str, str]
    first_roles: tuple[str, str]
    with_owners: bool = True
    with_tablespaces: bool = True
    without_settings: bool = False

    def at(self, url: str) -> CopyToDescribe:
        """Return the same for another database."""
        return replace(self, url=url)


@dataclass(frozen=True, order=True)
class Definition:
    """What is compared of one entry; `text` may be settled, the rest never."""

    text: str
    owner: str
    tablespace: str
    access_method: str

    @property
    def belongings(self) -> tuple[str, str, str]:
        return self.owner, self.tablespace, self.access_method


Definitions = dict[Key, list[Definition]]


def describe(copy: CopyToDescribe) -> Contents:
    """Return what pg_dump says of a database's definitions.

    Raises:
        DatabaseError: it failed.
    """
    path = copy.folder / "definitions.pgdump"
    client.run(
        [
            copy.installation.program("pg_dump"),
            f"--dbname={client_connection(copy.url)}",
            "--format=custom",
            "--compress=0",
            "--schema-only",
            "--no-password",
            f"--file={path}",
        ],
        client_environment(copy.url),
        doing="pg_dump of the copy",
        timeout_seconds=copy.timeout_seconds,
    )
    try:
        return toc.read(path)
    except ArchiveError as error:
        # Of this machine's pg_dump, which says nothing of the set.
        raise DatabaseError(
            "what pg_dump says of the copy is not understood",
            said=error.message,
            hint=error.hint,
        ) from error
    finally:
        path.unlink()


def by_key(
    entries: Iterable[TocEntry],
    copy: CopyToDescribe,
    *,
    of_source: bool,
    archive: Sequence[TocEntry] = (),
) -> Definitions:
    """Return what is compared of entries; `archive` is what they were taken out of."""
    found: Definitions = defaultdict(list)
    entries = list(entries)
    made = {entry.dump_id for entry in archive or entries}
    for entry in entries:
        if _is_compared(entry, copy):
            key, definition = _normal(entry, copy, of_source=of_source)
            if entry.is_about_others(made):
                definition = replace(definition, owner="")
            # A copy beside others may have a comment for its mark's sake alone.
            if definition.text != _NO_COMMENT:
                found[key].append(definition)
    for each in found.values():
        each.sort()
    return dict(found)


def _without_name(text: str) -> str:
    """Return statements about the database itself without its name."""
    return "".join(
        # The first mention is the object; later ones are somebody's words.
        _DATABASE_NAME.sub("DATABASE *", statement, count=1) + ";\n"
        for statement in statements(text)
    )


def _is_compared(entry: TocEntry, copy: CopyToDescribe) -> bool:
    if entry.kind in _NOT_DEFINITIONS or (
        entry.kind in ABOUT_OBJECTS and entry.name.startswith(_LARGE_OBJECT)
    ):
        return False
    if entry.kind in ("ACL", "DEFAULT ACL") and not copy.with_owners:
        return False
    return not (entry.kind == "DATABASE PROPERTIES" and copy.without_settings)


def _normal(
    entry: TocEntry, copy: CopyToDescribe, *, of_source: bool
) -> tuple[Key, Definition]:
    source_name, copy_name = copy.names
    source_first, copy_first = copy.first_roles
    name, text, owner = entry.name, entry.definition, entry.owner
    # Only what is built in is the first role's without anybody's doing.
    if not of_source and entry.kind in ABOUT_OBJECTS and owner == copy_first:
        owner = source_first
    if source_name != copy_name and (
        entry.kind.startswith("DATABASE")
        or (entry.kind in ABOUT_OBJECTS and name.startswith("DATABASE "))
    ):
        name = "*" if entry.kind.startswith("DATABASE") else "DATABASE *"
        text = _without_name(text if of_source else without_mark(text))
    if entry.kind == "DATABASE":
        text = ""  # encoding and locale have checks of their own
    elif entry.kind in _IN_ANY_ORDER:
        text = ";\n".join(sorted(statements_by_role(text)))
    return (entry.kind, entry.schema, name), Definition(
        text=text,
        owner=owner if copy.with_owners else "",
        tablespace=entry.tablespace if copy.with_tablespaces else "",
        access_method=entry.access_method,
    )
