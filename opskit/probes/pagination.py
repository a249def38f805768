"""Pagination: lists come in pages of a bounded size, in a stable order, and whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from opskit.checks import Check
from opskit.config.access import ListSettings
from opskit.config.smoke import SmokeSettings
from opskit.probes.lists import Page, page, pages, with_parameters
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer, expecting
from opskit.probes.resources import named
from opskit.probes.session import Session

_FAR_TOO_MANY = 1_000_000
_NO_SIZES = (0, -1, "many")
_NO_CURSOR = "opskit-no-such-cursor"
_HUGE_CURSOR = "9" * 40
_PAGES = 4

Judge = Callable[[Session, ListSettings], Iterator[str]]


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield a probe for each question, which is asked of every list that is named."""
    names = settings.pagination.lists
    if not names:
        return
    lists = {name: named(settings.lists, name, "lists") for name in names}

    def ask(expected: str, judge: Judge) -> Callable[[Session], Check]:
        def faults(session: Session) -> Iterator[str]:
            for name, each in lists.items():
                _fill(session, name, each)
                yield from (f"{name}: {fault}" for fault in judge(session, each))

        return expecting(expected, faults)

    yield Probe(
        name="pagination.default-size",
        ask=ask("the default size, unless another is asked for", _default_size),
        what="Reads a page of each list without a size, and with a size of one.",
        why="A list without a default size grows until it takes the service down.",
        remedy="Give the parameter a default, and put it into the query as LIMIT.",
    )
    yield Probe(
        name="pagination.size-max",
        ask=ask("larger sizes are capped or refused", _size_max),
        what="Asks for more than the largest page, for a million items, and for the "
        "invalid sizes 0, -1 and `many`.",
        why="One request for everything costs as much as a thousand, and anybody who "
        "has a key can send it.",
        remedy="Cap the size in the service (`min(limit, 100)`), or answer 422.",
    )
    yield Probe(
        name="pagination.order",
        ask=ask("every item once, in one order", _order),
        what="Reads all of each list in large pages and in small ones, and compares.",
        why="Without a unique order, pages overlap: exports miss items and have others "
        "twice.",
        remedy="Order by a unique column (`ORDER BY created_at, id`), and let the "
        "cursor hold the last one of the page.",
    )
    yield Probe(
        name="pagination.metadata",
        ask=ask("size, total and next page are right", _metadata),
        what="Compares what pages say of themselves with what they hold.",
        why="Clients stop reading where there is no next page, and show the total.",
        remedy="Read one item more than the page holds to know whether there is a next "
        "page, and count with the same filters.",
    )
    yield Probe(
        name="pagination.cursor",
        ask=ask("a status from 400 to 499 for an invalid cursor", _cursor),
        what="Asks each list for the page after an invalid cursor, and after a huge "
        "number.",
        why="A cursor is text from outside: it must neither break the service nor "
        "begin the list again, which clients would read for ever.",
        remedy="Validate the cursor, its range too, and answer 422.",
    )


def _fill(session: Session, name: str, settings: ListSettings) -> None:
    """See to it that a list has more items than a page by default.

    Raises:
        Inconclusive: it has not, and is not to be filled.
    """

    def fill() -> str:
        read = pages(session, settings, limit=settings.size_max)
        missing = settings.default_size + 1
        for each in read:
            if (missing := missing - len(each.items)) <= 0:
                return ""
        if not settings.fill:
            raise Inconclusive(
                f"{name} has not more items than a page by default: add some, or set "
                f"fill in [smoke.lists.{name}]"
            )
        for _ in range(missing):
            answer = session.request(
                "POST", settings.path, key=settings.key, document=settings.fill
            )
            if not 200 <= answer.status <= 299:
                raise WrongAnswer(
                    expected=f"POST {settings.path} adds an item",
                    observed=str(answer.status),
                )
        return ""

    session.target.once.get(f"list {name}", fill)


def _default_size(session: Session, settings: ListSettings) -> Iterator[str]:
    for limit, wanted in ((None, settings.default_size), (1, 1)):
        read = page(session, settings, limit=limit)
        asked = f"size {limit}" if limit else "no size"
        if len(read.items) != wanted:
            yield f"{len(read.items)} items for {asked}"
        if read.limit not in (None, wanted):
            yield f"{settings.limit} is {read.limit} for {asked}"


def _size_max(session: Session, settings: ListSettings) -> Iterator[str]:
    most = settings.size_max
    for limit in (most + 1, _FAR_TOO_MANY, *_NO_SIZES):
        parameters: dict[str, object] = {settings.limit_parameter: limit}
        path = with_parameters(settings.path, parameters)
        status = session.get(path, key=settings.key).status
        if 400 <= status <= 499:
            continue
        if status != 200:
            yield f"{status} for size {limit}"
            continue
        read = page(session, settings.model_copy(update={"path": path}))
        if (size := max(len(read.items), read.limit or 0)) > most:
            yield f"a page of {size} for size {limit}"
        elif limit == _FAR_TOO_MANY and read.limit is None and not read.next:
            raise Inconclusive(
                f"{settings.path} has not more items than its largest page, and its "
                "pages do not name their size"
            )


def _order(session: Session, settings: ListSettings) -> Iterator[str]:
    large = _ids(session, settings, settings.size_max)
    small = _ids(session, settings, _small(settings, len(large)))
    for ids in (large, small):
        if doubled := len(ids) - len(set(ids)):
            yield f"{doubled} items twice"
    if missing := len({*large} ^ {*small}):
        yield f"{missing} items in pages of one size, and not in those of another"
    both = {*large} & {*small}
    if [each for each in large if each in both] != [
        each for each in small if each in both
    ]:
        yield "another order in pages of another size"


def _small(settings: ListSettings, number: int) -> int:
    """Return a size that makes several pages of so many items."""
    return max(1, min(settings.size_max - 1, number // _PAGES))


def _ids(session: Session, settings: ListSettings, limit: int) -> list[str]:
    return [id_ for read in pages(session, settings, limit=limit) for id_ in read.ids]


def _metadata(session: Session, settings: ListSettings) -> Iterator[str]:
    number = sum(
        len(each.items) for each in pages(session, settings, limit=settings.size_max)
    )
    limit = _small(settings, number)
    read = list(pages(session, settings, limit=limit))
    yield from _misled(settings, read, limit)


def _misled(settings: ListSettings, read: list[Page], limit: int) -> Iterator[str]:
    number = sum(len(each.items) for each in read)
    if any(each.total not in (None, number) for each in read):
        yield f"{settings.total} is not the number of items, which is {number}"
    if any(each.limit not in (None, limit) for each in read):
        yield f"{settings.limit} is another than was asked for"
    if any(len(each.items) != limit for each in read[:-1]):
        yield "a page before the last one is not full"
    if len(read) > 1 and not read[-1].items:
        yield f"{settings.next} leads to an empty page"


def _cursor(session: Session, settings: ListSettings) -> Iterator[str]:
    for cursor in (_NO_CURSOR, _HUGE_CURSOR):
        path = with_parameters(settings.path, {settings.cursor_parameter: cursor})
        status = session.get(path, key=settings.key).status
        # A number may well be valid, and then nothing comes after it.
        is_end = cursor == _HUGE_CURSOR and status == 200
        if is_end and not page(session, settings, cursor=cursor).items:
            continue
        if not 400 <= status <= 499:
            yield f"{status} for {cursor}"
