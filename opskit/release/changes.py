"""Changes: what a migration does to a schema, by what the database says of itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from opskit.errors import MigrationFailed
from opskit.postgres import schema
from opskit.postgres.connect import connect
from opskit.release.revisions import Revision

# Roles may be other ones where a migration is rehearsed.
_OWNER = re.compile(r"^owner (?:\"[^\"]*\"|[^,\s]+)(?:, | )?")
# What belongs to opskit is no part of the service's schema.
_OWN = re.compile(r"(?:^|\s)opskit(?:_witness)?(?:\.|_witness_|$)")
_SHOWN = 3


def schema_of(url: str) -> set[str]:
    """Return every object of a database in words, but for opskit's own and owners."""
    with connect(url, purpose="migrate") as connection:
        return {
            f"{each.kind} {each.name}: {_OWNER.sub('', each.state)}"
            for each in schema.take(connection)
            if not _OWN.search(each.name)
        }


def changes(before: set[str], after: set[str]) -> list[str]:
    """Return what is there and was not (`+`), and what is not any more (`-`)."""
    gone = (f"- {each}" for each in sorted(before - after))
    new = (f"+ {each}" for each in sorted(after - before))
    return [*gone, *new]


def require_as_rehearsed(
    revision: Revision, made: Sequence[str], rehearsed: Sequence[str]
) -> None:
    """Compare what a migration has changed with what it changed in its rehearsal.

    Raises:
        MigrationFailed: it was something else.
    """
    differing = [f"missing: {each}" for each in rehearsed if each not in made]
    differing += [f"unexpected: {each}" for each in made if each not in rehearsed]
    if differing:
        raise MigrationFailed(
            f"migration {revision.id} left another schema than in its rehearsal: "
            f"{'; '.join(differing[:_SHOWN])}",
            hint="Compare it with the report of the rehearsal, then mend the schema by "
            "hand or take the migration back.",
        )
