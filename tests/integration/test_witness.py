"""Locks of migrations: each mode, however it is taken, is noticed on its table."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from opskit.postgres import witness
from opskit.postgres.connect import connect, query, query_value
from opskit.postgres.servers.programs import Installation, find_server
from opskit.postgres.servers.throwaway import Server, throwaway
from opskit.postgres.witness import Sampled
from opskit.release import locks
from opskit.release.locks import HeldLock, Rewrite
from tests.planted import (
    COMMANDS,
    LOG,
    MODES,
    SAMPLER,
    TRIGGER,
    WAYS,
    Planted,
    Way,
    matrix,
)
from tests.support import execute, value

TABLES = """
    SET search_path = public;
    CREATE TABLE t (id int PRIMARY KEY, n int, text text);
    INSERT INTO t SELECT i, i, repeat('x', 100) FROM generate_series(1, 1000) i;
    CREATE INDEX t_n ON t (n);
    CREATE TABLE other (id int PRIMARY KEY, t_id int);
    INSERT INTO other SELECT i, i FROM generate_series(1, 100) i;
    CREATE TABLE parts (id int, n int) PARTITION BY RANGE (id);
    CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
    CREATE TABLE "Odd Name" (i int);
    CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM t;
    ANALYZE;
"""
ROOT = Path(__file__).resolve().parents[2]
# For so long do statements that only the sampler sees sleep in their lock.
HELD_SECONDS = 0.5
# So often at most are they run on a machine too slow for a whole look meanwhile.
TRIES = 20


@pytest.fixture(scope="module", params=[16, 18])
def server(
    request: pytest.FixtureRequest, installations: list[Installation]
) -> Iterator[Server]:
    """A server that writes down what a witness reads."""
    installation = find_server(installations, major=request.param)
    with throwaway(installation, settings=witness.SETTINGS) as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    """A database with tables of each kind."""
    execute(server.url(), "DROP DATABASE IF EXISTS rehearsed WITH (FORCE)")
    execute(server.url(), "CREATE DATABASE rehearsed")
    made = server.url("rehearsed")
    # What this session has read is counted when it says so, or at its end.
    execute(made, TABLES + "SELECT pg_stat_force_next_flush()")
    return made


class Looks:
    """The looks of a sampler: when each began and ended, once its locks are kept."""

    def __init__(self) -> None:
        self._kept: list[tuple[float, float]] = []
        self._last: list[tuple[float, float]] = []

    def query(self, *arguments: Any) -> list[Any]:
        """Run a query as `witness` does; note it if it is a look."""
        if threading.current_thread().name != "sampler":
            return query(*arguments)
        self._kept += self._last  # its locks were kept before this look
        began = time.monotonic()
        rows = query(*arguments)
        self._last = [(began, time.monotonic())]
        return rows

    def until_seen(
        self, statement: str, is_seen: Callable[[], bool], *after: str
    ) -> Iterator[str]:
        """Yield a statement that sleeps in its lock, until the lock must be seen.

        It is yielded again only if no whole look fell within the time in which the lock
        was surely held.
        """
        for _ in range(TRIES):
            began = time.monotonic()
            yield statement
            ended = time.monotonic()
            # It was taken before the sleep and given back after it, whatever else of
            # this time went by before and afterwards.
            held_from, held_until = ended - HELD_SECONDS, began + HELD_SECONDS
            must_be_seen = any(
                held_from <= first and last <= held_until
                for first, last in tuple(self._kept)
            )
            yield from after
            if is_seen():
                return
            assert not must_be_seen, statement


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """The looks of the sampler in this test."""
    made = Looks()
    monkeypatch.setattr(witness, "query", made.query)
    return made


class Watched:
    """What was seen of statements that a session ran."""

    held: list[HeldLock]
    rewritten: list[Rewrite]
    scanned: dict[str, int]

    def __init__(
        self,
        server: Server,
        url: str,
        *statements: str | Iterable[str] | Callable[[Sampled], Iterable[str]],
        autocommit: bool = True,
    ) -> None:
        with connect(server.url(), purpose="test") as beside:
            with connect(url, purpose="test") as own:
                before = witness.relations(own)
            begin = witness.position(beside)
            with (
                witness.witnessed(url),
                witness.sampled(server.url(), "rehearsed") as seen,
                suppress(psycopg.errors.LockNotAvailable),
                psycopg.connect(url, autocommit=autocommit) as session,
            ):
                for several in statements:
                    made = several(seen) if callable(several) else several
                    for each in [made] if isinstance(made, str) else made:
                        session.execute(each.encode())
            lines = witness.read_log(beside, "rehearsed", begin)
            witness.wait_for_sessions(beside, "rehearsed")
            with connect(url, purpose="test") as own:
                after = witness.relations(own)
        self.before = before
        self.ran = locks.statements(lines)
        self.held = locks.held_locks(self.ran, before, seen)
        self.rewritten = locks.rewrites(self.ran, before, after)
        self.scanned = locks.scans(before, after)

    def noticed_by(self, held: HeldLock) -> str:
        """Say what noticed a lock: the first that did, as the matrix names it."""
        noted = {
            (self.before[lock.relation].table, lock.mode)
            for statement in self.ran
            for note in statement.notes
            for lock in note.locks
            if lock.relation in self.before
        }
        if held.sampled:
            return SAMPLER
        return TRIGGER if (held.table, held.mode) in noted else LOG

    def of(self, table: str, mode: str) -> list[HeldLock]:
        return [each for each in self.held if (each.table, each.mode) == (table, mode)]

    def modes(self, table: str) -> set[str]:
        return {each.mode for each in self.held if each.table == table}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.title)
def test_each_mode_is_noticed(server: Server, url: str, way: Way, looks: Looks) -> None:
    """Whether a statement takes it, a DO block, or something that is rolled back."""
    tries: Counter[str] = Counter()

    def taking(mode: str) -> Callable[[Sampled], Iterator[str]]:
        def statements(seen: Sampled) -> Iterator[str]:
            if way.by != SAMPLER:
                yield from way.of(mode)
                yield "ROLLBACK"
                return
            (statement,) = way.of(mode)
            is_seen = lambda: _is_seen(seen, MODES[mode])  # noqa: E731
            for each in looks.until_seen(statement, is_seen, "ROLLBACK"):
                tries[mode] += each == statement
                yield each

        return statements

    watched = Watched(server, url, *(taking(mode) for mode in MODES), autocommit=False)

    assert watched.modes("public.other") == set()
    for mode, taken in MODES.items():
        found = watched.of("public.t", taken)
        # What was seen of a try only after the next one had begun is there as well.
        assert 1 <= len(found) <= max(tries[mode], 1)
        _require_apart(found)
        for held in found:
            assert f"LOCK TABLE public.t IN {mode} MODE" in held.statement
            assert watched.noticed_by(held) == way.by


def _is_seen(seen: Sampled, mode: str, since: datetime | None = None) -> bool:
    """Return whether the sampler has seen a lock in that mode, if given, since then."""
    return any(
        lock.mode == mode and (since is None or first >= since)
        for (*_, lock), (first, _last) in seen.locks.copy().items()
    )


def _require_apart(found: Iterable[HeldLock]) -> None:
    """Require that one lock ended before the next one began."""
    for one, other in itertools.pairwise(sorted(found, key=lambda e: e.began_at)):
        assert one.ended_at < other.began_at


def test_a_lock_that_was_given_back_does_not_count_until_it_is_taken_again(
    server: Server, url: str, looks: Looks
) -> None:
    """Whatever the same session did in between, and however long nobody looked."""
    hidden = (
        "DO $$ BEGIN LOCK TABLE public.t IN SHARE MODE; PERFORM pg_sleep(0.5); END $$"
    )

    begins: list[datetime] = []
    tries: list[int] = []

    def twice(seen: Sampled) -> Iterator[str]:
        for _ in range(2):
            begin = datetime.now(UTC)
            begins.append(begin)
            is_seen = partial(_is_seen, seen, "ShareLock", begin)
            yielded = 0
            for each in looks.until_seen(hidden, is_seen):
                yielded += 1
                yield each
            tries.append(yielded)
            yield "SELECT pg_sleep(0.5)"

    watched = Watched(server, url, twice)

    found = sorted(watched.of("public.t", "ShareLock"), key=lambda e: e.began_at)
    first = [each for each in found if each.began_at < begins[1]]
    last = [each for each in found if each.began_at >= begins[1]]
    assert 1 <= len(first) <= tries[0]
    assert 1 <= len(last) <= tries[1]
    _require_apart(found)
    unlocked = (last[0].began_at - first[-1].ended_at).total_seconds()
    blocked = locks.blocked_seconds(found, locks.BLOCKS_WRITES)["public.t"]
    assert unlocked >= 0.5
    assert blocked == pytest.approx(sum(each.seconds for each in found))


@pytest.mark.parametrize("planted", COMMANDS, ids=lambda planted: planted.statement)
def test_each_command_is_noticed(server: Server, url: str, planted: Planted) -> None:
    """Those of which event triggers learn, and those of which they never do."""
    if "VALIDATE" in planted.statement:
        execute(url, "ALTER TABLE public.t ADD CONSTRAINT c CHECK (n > 0) NOT VALID")
    watched = Watched(server, url, planted.statement)

    (held,) = watched.of(planted.table, planted.mode)
    major = int(value(url, "SHOW server_version_num")) // 10_000
    assert watched.noticed_by(held) == planted.noticed_by(major)


def test_the_matrix_is_in_the_document() -> None:
    """As `python -m tests.planted` prints it."""
    text = (ROOT / "docs" / "migrations.md").read_text()

    assert "\n".join(matrix()) in text


def test_a_lock_is_held_until_the_transaction_ends(server: Server, url: str) -> None:
    """Not only as long as the statement runs that took it."""
    watched = Watched(
        server, url, "ALTER TABLE t ADD c int", "SELECT pg_sleep(1)", autocommit=False
    )

    blocked = locks.blocked_seconds(watched.held, locks.BLOCKS_READS)
    assert 1 <= blocked["public.t"] < 60


@pytest.mark.parametrize(
    ("statement", "name", "reason"),
    [
        ("ALTER TABLE t ALTER n TYPE int8", "public.t", "type of a column"),
        ("ALTER TABLE t ADD r float8 DEFAULT random()", "public.t", "default"),
        ("ALTER TABLE t SET UNLOGGED", "public.t", "persistence"),
        ("VACUUM FULL t", "public.t", "another file"),
        ("TRUNCATE other", "public.other", "another file"),
        ("REINDEX INDEX t_n", "public.t_n", "another file"),
    ],
)
def test_rewrites_are_noticed(
    server: Server, url: str, statement: str, name: str, reason: str
) -> None:
    """Those that an event trigger tells of with its reason, and all others."""
    watched = Watched(server, url, statement)

    (found,) = [each for each in watched.rewritten if each.name == name]
    assert reason in found.reason


def test_who_looks_is_not_in_the_log(server: Server, url: str, looks: Looks) -> None:
    """A log of hours would hold nothing else, and be too large to be read."""
    with connect(server.url(), purpose="test") as beside:
        begin = witness.position(beside)
        with (
            witness.sampled(server.url(), "rehearsed") as seen,
            psycopg.connect(url, autocommit=True) as session,
        ):
            for each in looks.until_seen(
                "SELECT pg_sleep(0.5) FROM (VALUES (1)) one, public.t LIMIT 1",
                lambda: bool(seen.locks),
            ):
                session.execute(each.encode())
        assert seen.locks
        witness.read_log(beside, "rehearsed", begin)
        log = query_value(
            beside,
            "SELECT convert_from(pg_read_binary_file('log/witness.csv', %s, 1000000), "
            "'UTF8')",
            begin,
        )
    assert "pg_sleep(0.5)" in log
    assert "FROM pg_locks" not in log


def test_what_only_reads_rewrites_nothing(server: Server, url: str) -> None:
    """A whole table is read for NOT NULL; nothing is written anew."""
    watched = Watched(server, url, "ALTER TABLE t ALTER text SET NOT NULL")

    assert watched.rewritten == []
    assert watched.scanned == {"public.t": 1000}


def test_a_wait_in_vain_is_told(server: Server, url: str) -> None:
    """The statement that waited ended with its SQLSTATE."""
    with connect(url, purpose="writer", autocommit=False) as writer:
        writer.execute("LOCK TABLE public.t IN ROW EXCLUSIVE MODE")
        watched = Watched(
            server, url, "SET lock_timeout = 300", "ALTER TABLE t ADD c int"
        )

    (waited,) = [each for each in watched.ran if each.waited_in_vain]
    assert waited.text == "ALTER TABLE t ADD c int"
    assert locks.blocked_seconds(watched.held, locks.BLOCKS_READS) == {}
