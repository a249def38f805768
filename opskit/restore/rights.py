"""With whose rights entries are loaded, where rows run code of the source's roles."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from opskit.errors import DatabaseError, OpskitError, ServerFault
from opskit.log import logger
from opskit.postgres import capabilities, locks
from opskit.postgres import roles as postgres_roles
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import Connection, connect
from opskit.postgres.locks import Session
from opskit.postgres.roles import RowsRole, superusers
from opskit.threads import Thread

# What of a table or domain is computed for each row; all that follows is looked at.
_COMPUTED = re.compile(r"\b(?:CHECK \(|GENERATED ALWAYS AS \(|PARTITION BY )")
_TEXT = re.compile(r"'(?:[^']|'')*'")
_BEFORE_PARENTHESIS = re.compile(r'([\w$."]+)\s*\(')
# Words of the language, types, and functions of PostgreSQL that call no other one.
_WORDS = """
    CHECK AS BY RANGE LIST HASH AND OR NOT IN ANY ALL IS LIKE CASE WHEN THEN ELSE
    BETWEEN FROM DISTINCT COALESCE LEAST GREATEST NULLIF
    bit varying character numeric time timestamp interval
    length char_length octet_length lower upper btrim abs round floor ceil
    num_nulls num_nonnulls array_length cardinality jsonb_typeof date_part now
"""
_HARMLESS = frozenset(_WORDS.split())
_WITH_ROWS = ("TABLE", "DOMAIN", "CHECK CONSTRAINT")
_CODE = ("FUNCTION", "PROCEDURE", "OPERATOR", "CAST")


def warn_of_code(authors: Sequence[str]) -> None:
    """Say that code runs with the rights of a superuser."""
    logger().warning(
        "code of the source runs with a superuser's rights while rows are loaded: the "
        "server lets no other role in",
        roles=list(authors),
    )


@dataclass(frozen=True, kw_only=True)
class Rights:
    """How to connect to load an entry: as ourselves, or as a role made for it.

    There are such roles if there is a `login_url`, which names none yet; `settings` are
    those that only a superuser may give their sessions.
    """

    url: str = field(repr=False)
    connection: Connection = field(repr=False)
    login_url: str = field(default="", repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def for_rows(self) -> Iterator[str]:
        """Yield the URL for rows."""
        if not self.login_url:
            yield self.url
            return
        with self._role() as role:
            postgres_roles.allow_rows(self.url, role)
            yield role.url

    @contextlib.contextmanager
    def by(self, entry: TocEntry) -> Iterator[str]:
        """Yield the URL for an entry that checks rows which are there."""
        if not self.checks(entry):
            yield self.url
            return
        with self._role() as role:
            postgres_roles.become_member(self.connection, role, entry.owner)
            yield role.url

    def checks(self, entry: TocEntry) -> bool:
        """Return whether an entry has rows checked, with its owner's rights."""
        return (
            self.login_url != ""
            and entry.kind == "CHECK CONSTRAINT"
            and entry.owner not in superusers(self.connection)
        )

    def can_log_in(self) -> bool:
        """Return whether the server lets such a role in."""
        try:
            with self._role():
                return True
        except DatabaseError as error:
            logger().debug("no other role can log in", reason=error.message)
            return False

    def _role(self) -> contextlib.AbstractContextManager[RowsRole]:
        # A new one each time: code that it runs can make it known to others.
        return postgres_roles.rows_role(self.connection, self.login_url, self.settings)


def choose(
    ourselves: Rights,
    entries: Sequence[TocEntry],
    trust: Callable[[Sequence[str]], None],
) -> Rights:
    """Return with whose rights to load: no superuser's where rows run others' code.

    Where the server does not let another role in, `trust` is called with the names of
    the roles whose code it is, and raises if they are not to be trusted.
    """
    connection = ourselves.connection
    if capabilities.is_superuser(connection):
        authors = authors_of_code(entries, superusers(connection))
        if authors and ourselves.can_log_in():
            return ourselves
        if authors:
            trust(authors)
    return replace(ourselves, login_url="")


def authors_of_code(entries: Iterable[TocEntry], trusted: Collection[str]) -> list[str]:
    """Return the roles, but for the trusted ones, whose code rows may run.

    Functions of PostgreSQL itself run such code too, where their arguments say so, and
    so do casts that no text shows. In doubt it is so.
    """
    entries = list(entries)
    computed = [
        entry
        for entry in entries
        if entry.kind in _WITH_ROWS and _COMPUTED.search(entry.definition)
    ]
    code = [entry for entry in entries if entry.kind in _CODE]
    has_casts = any(entry.kind == "CAST" for entry in code)
    if not any(has_casts or _calls(entry.definition) for entry in computed):
        return []
    return sorted({entry.owner for entry in (*computed, *code)} - set(trusted))


def _calls(definition: str) -> bool:
    found = _COMPUTED.search(definition)
    assert found is not None
    text = _TEXT.sub("''", definition[found.start() :])
    return not _HARMLESS.issuperset(_BEFORE_PARENTHESIS.findall(text))


# What did not move in the last part of the time stands still.
_FIRST_LOOK = 0.8
_PAUSE_SECONDS = 0.2
_STATEMENT_SHOWN = 200


class NoProgress(DatabaseError):
    """A statement stood still until the time was over: it is not a slow machine."""


class Bound:
    """The time that a run may take, from now on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._passed = threading.Event()
        self._standing: list[Session] = []

    def passed(self) -> bool:
        """Return whether the time is over, and everything is being ended."""
        return self._passed.is_set()

    @contextmanager
    def over(self, url: str, databases: Sequence[str]) -> Iterator[None]:
        """End all sessions in some databases if the block takes too long.

        `url` leads to another database of the server.

        Raises:
            NoProgress: the time is over, and a statement made no progress.
            ServerFault: the time is over; with more of it, it might have gone well.
        """
        done = threading.Event()
        watch = Thread(self._watch, done, url, databases, name="bound")
        try:
            yield
        except OpskitError as error:
            if self.passed():
                raise self._fault() from error
            raise
        finally:
            done.set()
            watch.join()

    def _watch(self, done: threading.Event, url: str, databases: Sequence[str]) -> None:
        if done.wait(self._left_seconds(_FIRST_LOOK)):
            return
        try:
            with connect(url, purpose="bound") as connection:
                before = locks.working(connection, databases)
                if done.wait(self._left_seconds(1)):
                    return
                now = locks.working(connection, databases)
                self._standing = [each for each in now if each in before]
                self._passed.set()
                while not done.wait(_PAUSE_SECONDS):
                    locks.end(connection, databases)
        except DatabaseError as error:
            # Each program and statement has a limit of its own as well.
            logger().warning("the time cannot be watched", failed=error.message)

    def _left_seconds(self, share: float) -> float:
        return max(0.0, self._began + self._seconds * share - time.monotonic())

    def _fault(self) -> DatabaseError:
        what = f"the run took longer than {self._seconds:g} seconds and was stopped"
        if not self._standing:
            return ServerFault(
                what, hint="Raise timeout in [drill] if the machine needs longer."
            )
        statement = " ".join(self._standing[0].statement.split())[:_STATEMENT_SHOWN]
        return NoProgress(
            f"{what}; no progress in the last fifth of it",
            said=statement,
            hint="See which function of the database the statement runs; raise timeout "
            "in [drill] if it needs longer.",
        )
