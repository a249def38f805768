"""Defects of lists that are answered in parts."""

from __future__ import annotations

from tests.defects.defect import planted_in

_pages = planted_in("service/pages.py")

_PART = (
    '"SELECT * FROM ({}) AS found WHERE id > %(after)s ORDER BY id LIMIT %(number)s"'
)
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
)
