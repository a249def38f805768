"""What several jobs of pg_restore do not keep in order by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from opskit.postgres.archive.entry import TocEntry

_NOT_VALID = re.compile(r" NOT VALID;?\s*\Z")


def not_validated(entries: Iterable[TocEntry]) -> set[int]:
    """Return the dump ids of constraints that rows may break.

    They have to wait for all rows, of other tables too (those of partitions and
    children, or of tables that use a domain), but depend on none of them, so that
    another job may make them before the rows are in.
    """
    return {
        entry.dump_id
        for entry in entries
        if "CONSTRAINT" in entry.kind
        and (entry.kind == "CHECK CONSTRAINT" or _NOT_VALID.search(entry.definition))
    }


def event_triggers(entries: Iterable[TocEntry]) -> set[int]:
    """Return the dump ids of event triggers, which act on what is restored after them.

    Some act in a replica's session too, and before PostgreSQL 17 nothing else turns
    them off.
    """
    return {entry.dump_id for entry in entries if entry.kind == "EVENT TRIGGER"}


def sequence_values(entries: Iterable[TocEntry]) -> set[int]:
    """Return the dump ids of sequences' values.

    A function that runs in the load may count a sequence on, which depends on no rows.
    """
    return {entry.dump_id for entry in entries if entry.kind == "SEQUENCE SET"}


def reads_elsewhere(entries: Sequence[TocEntry]) -> set[int]:
    """Return the dump ids of the refreshes of views that read foreign tables."""
    foreign = {entry.dump_id for entry in entries if entry.kind == "FOREIGN TABLE"}
    refreshes = {e.dump_id for e in entries if e.kind == "MATERIALIZED VIEW DATA"}
    return refreshes & with_dependents(entries, foreign) if foreign else set()


def dependents(entries: Sequence[TocEntry], chosen: Iterable[int]) -> set[int]:
    """Return the dump ids of all that needs one of those chosen, themselves aside."""
    wanted = set(chosen)
    direct = {
        entry.dump_id for entry in entries if wanted.intersection(entry.dependencies)
    }
    return with_dependents(entries, direct)


def with_dependents(entries: Sequence[TocEntry], chosen: Iterable[int]) -> set[int]:
    """Return the dump ids chosen, and of all that needs them: comments, say."""
    found = set(chosen)
    while added := {
        entry.dump_id
        for entry in entries
        if entry.dump_id not in found and found.intersection(entry.dependencies)
    }:
        found |= added
    return found
