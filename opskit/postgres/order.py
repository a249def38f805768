"""What several jobs of pg_restore do not keep in order by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from opskit.postgres.toc_entry import TocEntry


def out_of_order(entries: Sequence[TocEntry]) -> set[int]:
    """Return the dump ids of what must wait for all rows, though nothing says so.

    Constraints of a domain that are not validated: rows may break them, and they depend
    on no table, so that another job may make them before the rows are in.
    """
    kinds = {entry.dump_id: entry.kind for entry in entries}
    return {
        entry.dump_id
        for entry in entries
        if entry.kind == "CHECK CONSTRAINT"
        and not any("TABLE" in kinds.get(each, "") for each in entry.dependencies)
    }
