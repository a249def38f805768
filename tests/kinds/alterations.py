"""What is altered in a restored copy, and what must name it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from tests.kinds import AREAS
from tests.kinds.items import read_items

# Kinds of alterations that ask for more of the copy than to be there: its tablespaces,
# or a server whose roles may be changed.
PLACES = "tablespaces"
ROLES = "roles"
_DATABASE = "{database}"


@dataclass(frozen=True, kw_only=True)
class Alteration:
    """Statements for the copy, and words that a failed check must hold.

    The words stand in the check's name and detail together: `table schema.name` for
    rows, `sequence schema.name`, and otherwise the kind and name that pg_dump's table
    of contents gives the object.
    """

    area: str
    name: str
    sql: str
    noticed_by: str

    def is_named_in(self, text: str) -> bool:
        """Return whether the words stand in a text, whole: `far` is not `far_away`."""
        words = re.escape(self.noticed_by)
        return (
            re.search(rf"{words}(?!\w)" if words[-1].isalnum() else words, text)
            is not None
        )


def alterations(
    major: int,
    have: Collection[str] = (),
    *,
    database: str = "kinds",
    areas: Collection[str] = (*AREAS, ROLES),
) -> tuple[Alteration, ...]:
    """Return what can be altered on a server of a major that can do what it `have`s.

    All can be applied to one copy in this order, each execution a transaction of its
    own: none hides or hinders another.
    """
    quoted = '"' + database.replace('"', '""') + '"'
    return tuple(
        Alteration(
            area=area,
            name=item.title,
            sql=item.sql.replace(_DATABASE, quoted).strip(),
            noticed_by=item.noticed_by.replace(_DATABASE, database),
        )
        for area in areas
        for item in read_items("altered", area)
        if item.fits(major, have)
    )
