"""Defects of lists that are answered in parts."""

from __future__ import annotations

from tests.defects.defect import Defect, Edit, planted_in

_FILE = "service/pages.py"
_pages = planted_in(_FILE)

_PART = (
    '"SELECT * FROM ({}) AS found WHERE id > %(after)s ORDER BY id LIMIT %(number)s"'
)
_AFTER = "    after: int = Field(\n        default=0, ge=0, le=2**63 - 1,"
_NEXT = 'rows[limit - 1]["id"] if len(rows) > limit else None'

DEFECTS = (
    _pages(
        "default-of-a-thousand",
        "        default=20, ge=1,",
        "        default=1000, ge=1,",
        probe="pagination.default-size",
        what="Without a limit, as many are answered as may be.",
    ),
    _pages(
        "another-default",
        "        default=20, ge=1,",
        "        default=10, ge=1,",
        probe="pagination.default-size",
        what="The size of a page without a limit is another than documented.",
    ),
    _pages(
        "no-cap",
        "limit = min(wanted.limit, _LIMIT_MAX)",
        "limit = wanted.limit",
        probe="pagination.size-max",
        what="The largest page is as large as the caller likes.",
    ),
    _pages(
        "cap-of-a-million",
        "_LIMIT_MAX = 100\n",
        "_LIMIT_MAX = 1_000_000\n",
        probe="pagination.size-max",
        what="The cap is so high that it is none.",
    ),
    _pages(
        "no-order",
        _PART,
        _PART.replace("ORDER BY id", "ORDER BY random()"),
        probe="pagination.order",
        what="The order of a page changes from one request to the next.",
    ),
    _pages(
        "one-is-skipped",
        _NEXT,
        'rows[limit]["id"] if len(rows) > limit else None',
        probe="pagination.order",
        what="The first item of each further page is left out.",
    ),
    _pages(
        "one-is-repeated",
        "WHERE id > %(after)s",
        "WHERE id >= %(after)s",
        probe="pagination.order",
        what="The last item of a page is also the first of the next one.",
    ),
    _pages(
        "no-next",
        _NEXT,
        "None",
        probe="pagination.metadata",
        what="No page names the next one.",
    ),
    _pages(
        "always-a-next",
        _NEXT,
        'rows[:limit][-1]["id"] if rows else 0',
        probe="pagination.metadata",
        what="The last page names a next one.",
    ),
    _pages(
        "total-of-the-page",
        '"total": total["total"] if total else 0',
        '"total": len(rows[:limit]) if total else 0',
        probe="pagination.metadata",
        what="The total is the number of items on the page.",
    ),
    _pages(
        "limit-as-asked-for",
        """\
                "limit": limit,
""",
        """\
                "limit": 20,
""",
        probe="pagination.metadata",
        what="The answer names another limit than it keeps.",
    ),
    _pages(
        "invalid-cursor-begins-again",
        _AFTER,
        '    after: __import__("typing").Annotated[\n'
        '        int, __import__("pydantic").BeforeValidator(\n'
        "            lambda text: int(text) if str(text).isdigit() else 0\n"
        "        )\n"
        "    ] = Field(\n"
        "        default=0, ge=0, le=2**63 - 1,",
        probe="pagination.cursor",
        what="After an invalid cursor comes the first page, and so on for ever.",
    ),
    Defect(
        name="cursor-reaches-the-database",
        what="An invalid cursor is refused by PostgreSQL only, and ends in 500.",
        probe="pagination.cursor",
        edits=(
            Edit(
                file=_FILE,
                old=_AFTER,
                new='    after: str = Field(\n        default="0",',
            ),
            Edit(file=_FILE, old="id > %(after)s", new="id > %(after)s::bigint"),
        ),
    ),
)
