"""The table of game days in runbooks/README.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date

from tests.gamedays.registry import SCENARIOS
from tests.gamedays.scenario import RUNBOOKS

DOCUMENT = RUNBOOKS / "README.md"
HEAD = """\
| runbook | what was broken | what told | seconds to detect | seconds to recover | date |
|---|---|---|---|---|---|
"""
_BEGIN, _END = "<!-- gamedays -->\n", "<!-- end -->"
_LIMIT = re.compile(r"^Rehearse every (\d+) days\.$", re.M)


def rows(text: str) -> dict[str, str]:
    """Return the rows of the table by what was broken."""
    inside = text.partition(_BEGIN)[2].partition(_END)[0].strip()
    lines = inside.removeprefix(HEAD.strip()).splitlines()
    return {line.split(" | ")[1]: line for line in lines if line}


def with_row(text: str, row: str) -> str:
    """Return the document with a row in its table, in place of the one of its kind.

    Rows of what is no scenario any more go.
    """
    known = rows(text) | rows(_table([row]))
    kept = [known[e.broken] for e in SCENARIOS.values() if e.broken in known]
    before, _begin, rest = text.partition(_BEGIN)
    return before + _table(kept) + rest.partition(_END)[2]


def _table(lines: Sequence[str]) -> str:
    body = "".join(f"{each}\n" for each in lines)
    return f"{_BEGIN}\n{HEAD}{body}\n{_END}"


def record(row: str) -> None:
    """Write a row into the table."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(with_row(text, row), encoding="utf-8")


def overdue(text: str, runbooks: Mapping[str, str], today: date) -> list[str]:
    """Return what is not rehearsed: runbooks by their names, with their texts.

    Each needs a row, and no row of it may be older than the runbook allows.
    """
    days: dict[str, list[date]] = {}
    for row in rows(text).values():
        cells = row.strip("| ").split(" | ")
        name = cells[0].partition("](")[0].removeprefix("[")
        days.setdefault(name, []).append(date.fromisoformat(cells[-1]))
    found = []
    for name, runbook in runbooks.items():
        limit = _LIMIT.search(runbook)
        if limit is None:
            found.append(f"{name} does not say how often it is rehearsed")
        elif name not in days:
            found.append(f"{name} was never rehearsed")
        elif (age := (today - min(days[name])).days) > int(limit[1]):
            found.append(f"{name} was rehearsed {age} days ago")
    return found
