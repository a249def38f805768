"""With whose rights entries are loaded, where rows run code of the source's roles."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from opskit.log import logger
from opskit.postgres import rows_role, surroundings
from opskit.postgres.connect import Connection
from opskit.postgres.roles import superusers
from opskit.postgres.rows_role import RowsRole
from opskit.postgres.toc_entry import TocEntry

# What of a table or domain is computed for each row; all that follows is looked at.
_COMPUTED = re.compile(r"\b(?:CHECK \(|GENERATED ALWAYS AS \(|PARTITION BY )")
_TEXT = re.compile(r"'(?:[^']|'')*'")
_BEFORE_PARENTHESIS = re.compile(r'([\w$."]+)\s*\(')
# Words of the language, types, and functions of PostgreSQL that call no other one.
_WORDS = """
    CHECK AS BY RANGE LIST HASH AND OR NOT IN ANY ALL IS LIKE CASE WHEN THEN ELSE
    BETWEEN FROM DISTINCT COALESCE LEAST GREATEST NULLIF
    bit varying character numeric time timestamp interval
    length char_length octet_length lower upper btrim abs round floor ceil
    num_nulls num_nonnulls array_length cardinality jsonb_typeof date_part now
"""
_HARMLESS = frozenset(_WORDS.split())
_WITH_ROWS = ("TABLE", "DOMAIN", "CHECK CONSTRAINT")
_CODE = ("FUNCTION", "PROCEDURE", "OPERATOR", "CAST")


def warn_of_code(authors: Sequence[str]) -> None:
    """Say that code runs with the rights of a superuser."""
    logger().warning(
        "code of the source runs with a superuser's rights while rows are loaded: the "
        "server lets no other role in",
        roles=list(authors),
    )


@dataclass(frozen=True, kw_only=True)
class Rights:
    """How to connect to load an entry: as ourselves, or as `role` if there is one."""

    url: str = field(repr=False)
    connection: Connection = field(repr=False)
    role: RowsRole | None = None

    @contextlib.contextmanager
    def by(self, entry: TocEntry) -> Iterator[str]:
        """Yield the URL for an entry that checks rows which are there."""
        if not self.checks(entry):
            yield self.url
            return
        assert self.role is not None
        with rows_role.member_of(self.connection, self.role, entry.owner):
            yield self.role.url

    def checks(self, entry: TocEntry) -> bool:
        """Return whether an entry has rows checked, with its owner's rights."""
        return (
            self.role is not None
            and entry.kind == "CHECK CONSTRAINT"
            and entry.owner not in superusers(self.connection)
        )


@contextlib.contextmanager
def rights(
    connection: Connection,
    url: str,
    entries: Sequence[TocEntry],
    *,
    settings: Mapping[str, str],
    trust: Callable[[Sequence[str]], None],
) -> Iterator[Rights]:
    """Yield by whom rows are loaded: never by a superuser where they run others' code.

    Where the server does not let another role in, `trust` is called with the names of
    the roles whose code it is, and raises if they are not to be trusted. `settings` are
    those that a superuser's session has.
    """
    ourselves = Rights(url=url, connection=connection)
    authors = (
        authors_of_code(entries, superusers(connection))
        if surroundings.is_superuser(connection)
        else []
    )
    if not authors:
        yield ourselves
        return
    with rows_role.rows_role(connection, url, settings) as role:
        if role is None:
            trust(authors)
        yield Rights(url=url, connection=connection, role=role)


def authors_of_code(entries: Iterable[TocEntry], trusted: Collection[str]) -> list[str]:
    """Return the roles, but for the trusted ones, whose code rows may run.

    Functions of PostgreSQL itself run such code too, where their arguments say so, and
    so do casts that no text shows. In doubt it is so.
    """
    entries = list(entries)
    computed = [
        entry
        for entry in entries
        if entry.kind in _WITH_ROWS and _COMPUTED.search(entry.definition)
    ]
    code = [entry for entry in entries if entry.kind in _CODE]
    has_casts = any(entry.kind == "CAST" for entry in code)
    if not any(has_casts or _calls(entry.definition) for entry in computed):
        return []
    return sorted({entry.owner for entry in (*computed, *code)} - set(trusted))


def _calls(definition: str) -> bool:
    found = _COMPUTED.search(definition)
    assert found is not None
    text = _TEXT.sub("''", definition[found.start() :])
    return not _HARMLESS.issuperset(_BEFORE_PARENTHESIS.findall(text))
