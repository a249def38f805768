"""Locks: which ones statements held, on what and for how long, by a server's log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from opskit.postgres.witness import Line, Lock, Relation, Sampled
from opskit.release.statements import MODES, hides, locks_of, names

# What conflicts with ACCESS SHARE, which reading takes, and with ROW EXCLUSIVE.
BLOCKS_READS = MODES[7:]
BLOCKS_WRITES = MODES[4:]
_STATEMENT = "statement: "
_REWRITE_REASONS = {
    1: "its persistence was changed",
    2: "a column got a default that is not constant",
    4: "the type of a column was changed",
    8: "its access method was changed",
}
_ERROR_LOCK_WAIT = "55P03"


@dataclass(frozen=True, kw_only=True)
class HeldLock:
    """A lock on a table that was there before: mode, since when, until when.

    `statement` is the one that took it. An index and what a table holds out of line
    count as their table. `sampled` is a lock that only looking often has seen.
    """

    table: str
    mode: str
    began_at: datetime
    ended_at: datetime
    statement: str
    sampled: bool = False

    @property
    def seconds(self) -> float:
        """How long it was held."""
        return max(0.0, (self.ended_at - self.began_at).total_seconds())


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """A table or an index whose file was written anew, and why."""

    name: str
    reason: str
    statement: str = ""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A statement as it ran: when, in which session and transaction, and its notes."""

    text: str
    session: int
    transaction: str
    began_at: datetime
    ended_at: datetime
    sqlstate: str = ""
    notes: tuple[Line, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it ran."""
        return (self.ended_at - self.began_at).total_seconds()

    @property
    def waited_in_vain(self) -> bool:
        """Whether it ended because it waited too long for a lock."""
        return self.sqlstate == _ERROR_LOCK_WAIT


@dataclass
class _Open:
    """A statement that has begun, or the lines before the first one."""

    first: Line
    text: str
    last: Line = field(init=False)
    notes: list[Line] = field(default_factory=list)
    sqlstate: str = ""
    transaction: str = ""

    def __post_init__(self) -> None:
        self.last, self.transaction = self.first, self.first.transaction


def statements(lines: Iterable[Line]) -> list[Statement]:
    """Return the statements of a log in the order in which they began."""
    by_session = sorted(lines, key=lambda each: each.session)  # stable: in time
    made = [
        statement
        for _session, own in groupby(by_session, key=lambda each: each.session)
        for statement in _statements_of(own)
    ]
    return sorted(made, key=lambda each: each.began_at)


def _statements_of(lines: Iterable[Line]) -> Iterator[Statement]:
    current: _Open | None = None
    for line in lines:
        text = _begins(line)
        if text is not None:
            if current is not None:
                yield _closed(current)
            current = _Open(line, text)
            continue
        if current is None:
            continue
        current.last = line
        current.transaction = current.transaction or line.transaction
        if line.note is not None:
            current.notes.append(line)
        elif line.sqlstate not in ("", "00000"):
            current.sqlstate = line.sqlstate
    if current is not None:
        yield _closed(current)


def _begins(line: Line) -> str | None:
    """Return the text of the statement that a line begins, if it does."""
    if line.message.startswith(_STATEMENT):
        return line.message.removeprefix(_STATEMENT)
    if line.message.startswith("execute "):
        return line.message.partition(": ")[2]
    return None


def _closed(opened: _Open) -> Statement:
    return Statement(
        text=opened.text,
        session=opened.first.session,
        transaction=opened.transaction,
        began_at=opened.first.time,
        ended_at=opened.last.time,
        sqlstate=opened.sqlstate,
        notes=tuple(opened.notes),
    )


def held_locks(
    ran: Sequence[Statement], before: Mapping[int, Relation], seen: Sampled
) -> list[HeldLock]:
    """Return the locks on tables that were there before, the strongest first.

    A lock counts from the beginning of the statement that took it until the end of its
    transaction, also where a savepoint gives it back earlier. What event triggers do
    not see comes from the text of statements, and from what was seen by looking often.
    """
    held: dict[tuple[int, str, str, str], HeldLock] = {}
    for number, statement in enumerate(ran):
        noted = [lock for note in statement.notes for lock in note.locks]
        named = locks_of(statement.text, before.values())
        for table, mode in [*_on_tables(noted, before), *named]:
            key = (statement.session, statement.transaction, table, mode)
            if key in held:
                continue
            first = _taken_by(ran, number, table, before)
            held[key] = HeldLock(
                table=table,
                mode=mode,
                began_at=first.began_at,
                ended_at=_end_of_transaction(ran, number),
                statement=first.text,
            )
    known = {(session, table, mode) for session, _, table, mode in held}
    return sorted(
        [*held.values(), *_only_sampled(ran, before, seen, known)],
        key=lambda each: (-MODES.index(each.mode), -each.seconds, each.table),
    )


def _on_tables(
    locks: Iterable[Lock], before: Mapping[int, Relation]
) -> Iterator[tuple[str, str]]:
    for lock in locks:
        if lock.relation in before:
            yield before[lock.relation].table, lock.mode


def _taken_by(
    ran: Sequence[Statement], number: int, table: str, before: Mapping[int, Relation]
) -> Statement:
    """Return the statement that took a lock which was noted at the end of another.

    A note shows what earlier statements of the transaction took as well, which may be
    ones that run others unseen since the note before.
    """
    own = ran[number]
    if names(own.text, table, before.values()):
        return own
    taken_by = own
    for each in reversed(ran[:number]):
        if each.session != own.session:
            continue
        if each.notes or not own.transaction or each.transaction != own.transaction:
            break
        if hides(each.text):
            taken_by = each
    return taken_by


def _end_of_transaction(ran: Sequence[Statement], number: int) -> datetime:
    """Return when the transaction of a statement ended, by the last of its own."""
    own = ran[number]
    ended_at = own.ended_at
    if own.transaction:
        for each in ran[number:]:
            if (each.session, each.transaction) == (own.session, own.transaction):
                ended_at = max(ended_at, each.ended_at)
    return ended_at


def _only_sampled(
    ran: Sequence[Statement],
    before: Mapping[int, Relation],
    seen: Sampled,
    known: set[tuple[int, str, str]],
) -> Iterator[HeldLock]:
    made: dict[tuple[int, str, str, str], HeldLock] = {}
    for (session, transaction, lock), (first, last) in seen.locks.items():
        if lock.relation not in before:
            continue
        table = before[lock.relation].table
        if (session, table, lock.mode) in known:
            continue
        key = (session, transaction, table, lock.mode)
        other = made.get(key)
        made[key] = HeldLock(
            table=table,
            mode=lock.mode,
            began_at=min(first, other.began_at) if other else first,
            ended_at=max(last, other.ended_at) if other else last,
            statement=_running(ran, session, first),
            sampled=True,
        )
    yield from made.values()


def _running(ran: Sequence[Statement], session: int, at: datetime) -> str:
    """Return the statement that a session ran at a time."""
    own = [each for each in ran if each.session == session and each.began_at <= at]
    return own[-1].text if own else ""


def rewrites(
    ran: Sequence[Statement],
    before: Mapping[int, Relation],
    after: Mapping[int, Relation],
) -> list[Rewrite]:
    """Return which tables and indexes that were there before got another file."""
    made: dict[str, Rewrite] = {}
    for statement in ran:
        for note in statement.notes:
            oid, reasons = (note.note or {}).get("rewritten") or (0, 0)
            if oid in before:
                why = [text for bit, text in _REWRITE_REASONS.items() if reasons & bit]
                made[before[oid].name] = Rewrite(
                    name=before[oid].name,
                    reason="; ".join(why) or "the table was rewritten",
                    statement=statement.text,
                )
    for oid, relation in before.items():
        new = after.get(oid)
        is_own = relation.table == relation.name or relation.kind == "i"
        if new is not None and is_own and new.filenode != relation.filenode:
            made.setdefault(
                relation.name,
                Rewrite(name=relation.name, reason="it has another file than before"),
            )
    return list(made.values())


def scans(
    before: Mapping[int, Relation], after: Mapping[int, Relation]
) -> dict[str, int]:
    """Return which tables were read whole at least once, and how many rows of them."""
    return {
        relation.name: after[oid].rows_read - relation.rows_read
        for oid, relation in before.items()
        if oid in after
        and relation.rows
        and after[oid].rows_read - relation.rows_read >= relation.rows
    }


def blocked_seconds(held: Iterable[HeldLock], modes: Sequence[str]) -> dict[str, float]:
    """Return for how long each table was locked in one of the modes, taken together."""
    spans: dict[str, list[tuple[datetime, datetime]]] = {}
    for lock in held:
        if lock.mode in modes:
            spans.setdefault(lock.table, []).append((lock.began_at, lock.ended_at))
    return {table: _covered(sorted(own)) for table, own in spans.items()}


def _covered(spans: Sequence[tuple[datetime, datetime]]) -> float:
    seconds, until = 0.0, None
    for began_at, ended_at in spans:
        start = began_at if until is None else max(began_at, until)
        if ended_at > start:
            seconds += (ended_at - start).total_seconds()
            until = ended_at
        elif until is None:
            until = ended_at
    return seconds
