"""Chooses what single tables need from an archive: pure, over its contents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opskit.errors import UsageError
from opskit.postgres.archive.entry import TocEntry

# What belongs to a table and comes along with it.
_BELONGS = {
    "TABLE DATA",
    "DEFAULT",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "INDEX",
    "INDEX ATTACH",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "STATISTICS",
    "COMMENT",
    "ACL",
    "SECURITY LABEL",
    "TABLE ATTACH",
}
_TABLES = {"TABLE", "FOREIGN TABLE"}
# An entry that only says how to read the others.
_ALWAYS = {"ENCODING", "STDSTRINGS", "SEARCHPATH"}


def parse_table(text: str) -> tuple[str, str]:
    """Return schema and name of `SCHEMA.TABLE`.

    Raises:
        UsageError: it has another form.
    """
    schema, dot, name = text.partition(".")
    if not (schema and dot and name):
        raise UsageError(
            f"{text} is not SCHEMA.TABLE",
            hint="Name the schema as well, for instance public.orders.",
        )
    return schema, name


def entries_for(
    entries: Sequence[TocEntry], tables: Iterable[tuple[str, str]]
) -> tuple[list[TocEntry], set[tuple[str, str]]]:
    """Return the entries that these tables need, and the tables themselves.

    A partitioned table brings its partitions. What refers to a table that was not asked
    for (a foreign key, say) is left out.

    Raises:
        UsageError: the archive holds no such table.
    """
    by_id = {entry.dump_id: entry for entry in entries}
    roots = {_find(entries, table) for table in tables}
    wanted_tables = _with_partitions(entries, by_id, roots)
    chosen = _with_needs(by_id, wanted_tables, wanted_tables)
    # In rounds, for what belongs to an index or a default belongs to the table too.
    while (
        added := {
            each
            for entry in entries
            if entry.kind in _BELONGS
            and entry.dump_id not in chosen
            and chosen.intersection(entry.dependencies)
            and _is_own(entry, by_id, chosen)
            # Of a table that is only needed, as a parent is, the rows stay behind.
            and (
                entry.kind != "TABLE DATA"
                or wanted_tables.intersection(entry.dependencies)
            )
            for each in _with_needs(by_id, {entry.dump_id}, wanted_tables)
        }
        - chosen
    ):
        chosen |= added
    selected = [e for e in entries if e.dump_id in chosen or e.kind in _ALWAYS]
    names = {(by_id[each].schema, by_id[each].name) for each in wanted_tables}
    return selected, names


def _find(entries: Sequence[TocEntry], table: tuple[str, str]) -> int:
    for entry in entries:
        if entry.kind in _TABLES and (entry.schema, entry.name) == table:
            return entry.dump_id
    raise UsageError(
        f"the set holds no table {table[0]}.{table[1]}",
        hint="`tables` in the set's manifest.json lists what it holds.",
    )


def _with_partitions(
    entries: Sequence[TocEntry], by_id: dict[int, TocEntry], roots: set[int]
) -> set[int]:
    found = set(roots)
    attachments = [entry for entry in entries if entry.kind == "TABLE ATTACH"]
    while (
        added := {
            each
            for entry in attachments
            if found.intersection(entry.dependencies)
            for each in entry.dependencies
            if each in by_id
            and by_id[each].kind in _TABLES
            and _is_child(entry, by_id[each])
        }
        - found
    ):
        found |= added
    return found


def _is_child(attachment: TocEntry, table: TocEntry) -> bool:
    return (attachment.schema, attachment.name) == (table.schema, table.name)


def _is_own(entry: TocEntry, by_id: dict[int, TocEntry], chosen: set[int]) -> bool:
    """Return whether an entry needs no table or data outside of what is chosen."""
    needs = _with_needs(by_id, {entry.dump_id}, chosen)
    return all(by_id[each].kind not in _TABLES or each in chosen for each in needs)


def _with_needs(
    by_id: dict[int, TocEntry], start: set[int], tables: set[int]
) -> set[int]:
    """Return the entries with all that they depend on, but no foreign table's data."""
    found: set[int] = set()
    todo = list(start)
    while todo:
        each = todo.pop()
        if each in found or each not in by_id:
            continue
        if by_id[each].kind == "TABLE DATA" and each not in start:
            # Post-data entries wait for data; those of our own tables come anyway.
            continue
        found.add(each)
        todo.extend(by_id[each].dependencies)
    return found
