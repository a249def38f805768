"""Reads the SQL files of this package, item by item."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent
_HEAD = re.compile(
    r"^--- (?P<title>[^\n]+?)"
    r"(?: => (?P<noticed_by>[^\n]+?))?"
    r"(?: \{(?P<conditions>(?:since|before|needs)=[^\n{}]+)\})?\n",
    re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """A few statements that belong together, and what they need of the server."""

    title: str
    sql: str
    noticed_by: str
    since: int
    before: int
    needs: tuple[str, ...]

    def fits(self, major: int, have: Collection[str]) -> bool:
        """Return whether a server of that major, with that at hand, can run it."""
        return self.since <= major < self.before and set(self.needs) <= set(have)


def read_items(folder: str, area: str) -> list[Item]:
    """Return the items of one file in their order; none if there is no such file."""
    path = _FOLDER / folder / f"{area}.sql"
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return [
        _item(head, text[head.end() : end])
        for head, end in zip(heads, ends, strict=True)
    ]


def _item(head: re.Match[str], sql: str) -> Item:
    conditions = [
        condition.split("=", 1) for condition in (head["conditions"] or "").split()
    ]
    found = dict(conditions)
    return Item(
        title=head["title"],
        sql=sql,
        noticed_by=head["noticed_by"] or "",
        since=int(found.get("since", 0)),
        before=int(found.get("before", 1000)),
        needs=tuple(value for key, value in conditions if key == "needs"),
    )
