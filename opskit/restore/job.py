"""What to make of which archive, how to reach the copy, and with whose rights."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from opskit.catalog.manifest import DatabaseManifest
from opskit.config import LoadSettings
from opskit.errors import DatabaseError, ServerFault
from opskit.log import logger
from opskit.postgres import roles as postgres_roles
from opskit.postgres import survey
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import reads_elsewhere
from opskit.postgres.connect import Connection, server_major
from opskit.postgres.parameters import with_database, with_settings
from opskit.postgres.roles import RowsRole, superusers
from opskit.postgres.servers.programs import Installation
from opskit.preflight.concessions import Concessions
from opskit.restore.surroundings import Place
from opskit.workspace import Limits

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
    if survey.is_superuser(connection):
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


_FIRST_WITH_EVENT_TRIGGERS_SETTING = 17


@dataclass(frozen=True, kw_only=True)
class FillJob:
    """What to make of which archive, and where.

    `entries` are the wanted ones of the archive, `is_whole` says whether that
    is all of them. In the `last_try`, rows are loaded without CHECK constraints, which
    are put back afterwards, and an error is judged. `trust` is called where code of
    these roles will run with the rights of a superuser. Where it is `offline`, nothing
    that is loaded connects to foreign servers. `loaded` is called for entries that are
    in already, see `load.LoadJob.finished`; `is_over` says whether the run's time is
    over.
    """

    place: Place
    manifest: DatabaseManifest
    archive: Path
    entries: Sequence[TocEntry]
    is_whole: bool = True
    installations: Sequence[Installation]
    limits: Limits
    concessions: Concessions = field(default_factory=Concessions)
    loading: LoadSettings = field(default_factory=LoadSettings)
    last_try: bool = False
    loaded: Callable[[int], None] = lambda _dump_id: None
    trust: Callable[[Sequence[str]], None] = warn_of_code
    is_over: Callable[[], bool] = lambda: False
    offline: bool = False

    def require_time(self) -> None:
        """Refuse what was seen once the run's sessions were being ended."""
        if self.is_over():
            raise ServerFault("the time for the load is over")

    def as_last_try(self) -> FillJob:
        """Return the same with one job, so that no error is a matter of timing."""
        return replace(self, limits=replace(self.limits, jobs=1), last_try=True)

    @functools.cached_property
    def outside(self) -> set[int]:
        """The dump ids of entries that would read foreign tables where nothing may."""
        return reads_elsewhere(self.entries) if self.offline else set()

    @property
    def url(self) -> str:
        """How to connect to the copy so that nothing in it acts by itself.

        Its triggers and event triggers, its rules, its libraries and settings are the
        service's; loading and comparing must meet the tables alone.
        """
        settings = self.silencing()
        return with_settings(self.plain_url, settings) if settings else self.plain_url

    @property
    def plain_url(self) -> str:
        """How a role that is no superuser connects to the copy."""
        connection, place = self.place.connection, self.place
        settings = {"default_transaction_read_only": "off", "role": "none"}
        money = self.manifest.inventory.money_locale
        if money and survey.has_locale(connection, money):
            settings["lc_monetary"] = money
        settings |= survey.of_sessions(connection, self.loading.settings)
        return with_settings(with_database(place.server_url, place.name), settings)

    def silencing(self) -> dict[str, str]:
        """Return the settings that only a superuser can give a session."""
        connection = self.place.connection
        if not survey.is_superuser(connection):
            return {}
        settings = {"session_replication_role": "replica"}
        settings["session_preload_libraries"] = ""
        if server_major(connection) >= _FIRST_WITH_EVENT_TRIGGERS_SETTING:
            settings["event_triggers"] = "off"
        return settings
