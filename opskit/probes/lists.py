"""Lists: what the service hands out in pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from opskit.config.access import ListSettings
from opskit.probes.probe import Inconclusive, WrongAnswer
from opskit.probes.session import Session


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page; `next` is the cursor or the address of the one after it, or empty."""

    items: list[dict[str, Any]]
    ids: list[str]
    next: str
    total: int | None
    limit: int | None


def with_parameters(path: str, parameters: dict[str, object]) -> str:
    """Return a path with these parameters, and those that it has."""
    if not parameters:
        return path
    return path + ("&" if "?" in path else "?") + urlencode(parameters)


def value(document: Any, field: str) -> Any:
    """Return a field of a JSON document, with dots between levels; None if missing."""
    for part in field.split(".") if field else ():
        document = document.get(part) if isinstance(document, dict) else None
    return document


def page(
    session: Session,
    settings: ListSettings,
    *,
    key: str = "",
    limit: int | None = None,
    cursor: str = "",
) -> Page:
    """Read one page; `key` is another user's, if it is not the list's own.

    Raises:
        WrongAnswer: it is not a page.
    """
    if cursor.startswith(("/", "http://", "https://")):
        address = urlsplit(cursor)
        path = session.below(address.path)
        path += f"?{address.query}" if address.query else ""
    else:
        parameters: dict[str, object] = {}
        if limit is not None:
            parameters[settings.limit_parameter] = limit
        if cursor:
            parameters[settings.cursor_parameter] = cursor
        path = with_parameters(settings.path, parameters)
    answer = session.get(path, key=key or settings.key)
    if answer.status != 200:
        raise WrongAnswer(
            expected=f"200 for GET {settings.path}", observed=str(answer.status)
        )
    document = answer.json()
    items = _items(document, settings)
    following = value(document, settings.next)
    return Page(
        items=items,
        ids=[name_of(each, settings) for each in items],
        next="" if following is None else str(following),
        total=_number(document, settings.total),
        limit=_number(document, settings.limit),
    )


def name_of(document: Any, settings: ListSettings) -> str:
    """Return the id of an item.

    Raises:
        WrongAnswer: it has none.
    """
    if (found := value(document, settings.id)) is None:
        raise WrongAnswer(
            expected=f"an item of {settings.path} with {settings.id}",
            observed="one without",
        )
    return str(found)


def _items(document: Any, settings: ListSettings) -> list[dict[str, Any]]:
    found = value(document, settings.items)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        place = settings.items or "the answer"
        raise WrongAnswer(
            expected=f"a list of objects in {place} of GET {settings.path}",
            observed=type(found).__name__,
        )
    return found


def _number(document: Any, field: str) -> int | None:
    if not field:
        return None
    number = value(document, field)
    if isinstance(number, bool) or not isinstance(number, int):
        raise WrongAnswer(
            expected=f"a whole number in {field}", observed=type(number).__name__
        )
    return number


def pages(
    session: Session, settings: ListSettings, *, key: str = "", limit: int
) -> Iterator[Page]:
    """Read the pages to the last one.

    Raises:
        WrongAnswer: one is not a page, or leads back.
        Inconclusive: there are more than are read.
    """
    cursor, seen = "", {""}
    for _ in range(settings.pages_max):
        read = page(session, settings, key=key, limit=limit, cursor=cursor)
        yield read
        if not (cursor := read.next):
            return
        if cursor in seen:
            raise WrongAnswer(
                expected=f"pages of {settings.path} that come to an end",
                observed="a page whose next one was read already",
            )
        seen.add(cursor)
    raise Inconclusive(f"{settings.path} has more than {settings.pages_max} pages")
