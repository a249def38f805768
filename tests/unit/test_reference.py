"""Reference: the archive's own statements, one after the other, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pytest

from opskit.compare import definitions
from opskit.errors import DatabaseError
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import Contents
from opskit.postgres.connect import Connection
from tests.unit.entries import contents, entry

SETTINGS = b"SET check_function_bodies = false; SET xmloption = content;"


class FakeConnection:
    """Takes statements down; refuses one that is `x`."""

    def __init__(self) -> None:
        self.executed: list[bytes] = []

    def execute(self, statement: bytes) -> None:
        if statement == b"x":
            raise DatabaseError("refused")
        self.executed.append(statement)


def _built(
    archive: Contents, kept: Iterable[TocEntry] | None = None, ahead: str = ""
) -> list[bytes]:
    connection = FakeConnection()
    wanted = list(archive.entries if kept is None else kept)
    definitions.build(cast(Connection, connection), archive, wanted, ahead)
    return connection.executed


def test_statements_run_in_the_archives_order() -> None:
    """That order is pg_dump's, by which nothing is needed before it is there."""
    made = contents(
        entry(9, "ENCODING", "ENCODING", definition="SET client_encoding = 'UTF8';\n"),
        entry(5, "TABLE", "t", 7, definition="CREATE TABLE t ();\n"),
        entry(7, "VIEW", "v", definition="CREATE VIEW v AS SELECT 1;\n"),
    )

    assert _built(made) == [
        SETTINGS,
        b"SET client_encoding = 'UTF8';\n",
        b"CREATE TABLE t ();\n",
        b"CREATE VIEW v AS SELECT 1;\n",
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "TABLE DATA", "SEQUENCE SET", "BLOB", "BLOBS", "BLOB METADATA",
        "BLOB COMMENTS", "MATERIALIZED VIEW DATA", "STATISTICS DATA", "DATABASE",
        "SUBSCRIPTION", "DATABASE PROPERTIES", "ACL", "DEFAULT ACL", "COMMENT",
        "SECURITY LABEL",
    ],
)  # fmt: skip
def test_neither_data_nor_what_is_the_servers_is_made(kind: str) -> None:
    """A subscription would connect, a database would be another one."""
    assert _built(contents(entry(1, kind, "t", definition="x"))) == [SETTINGS]


@pytest.mark.parametrize(
    "kind",
    [
        "EXTENSION", "SCHEMA", "TABLE", "TABLE ATTACH", "DEFAULT", "CONSTRAINT",
        "FK CONSTRAINT", "INDEX", "INDEX ATTACH", "TRIGGER", "RULE", "POLICY",
        "ROW SECURITY", "EVENT TRIGGER", "PUBLICATION", "USER MAPPING",
        "SEQUENCE OWNED BY", "a kind of tomorrow",
    ],
)  # fmt: skip
def test_every_other_kind_is_made(kind: str) -> None:
    """What the reference lacks would be told as a difference of the copy."""
    assert _built(contents(entry(1, kind, "t", definition="y"))) == [SETTINGS, b"y"]


def test_only_what_is_kept_is_made() -> None:
    """The archive's other entries were left out of the copy as well."""
    made = [entry(n, "VIEW", f"v{n}", definition=f"y{n}") for n in range(4)]

    assert _built(contents(*made), [made[0], made[2]]) == [SETTINGS, b"y0", b"y2"]


def test_what_comes_ahead_comes_between_the_schemas_and_the_rest() -> None:
    """As in the copy: in the archive's encoding, which is set before it."""
    made = [
        entry(1, "VIEW", "early", definition="early"),
        entry(2, "ENCODING", "ENCODING", definition="encoding"),
        entry(3, "SCHEMA", "s", definition="schema"),
        entry(4, "TABLE", "t", definition="table"),
    ]

    assert _built(contents(*made, codec="latin-1"), ahead="ü") == [
        SETTINGS,
        b"encoding",
        b"schema",
        b"\xfc",
        b"early",
        b"table",
    ]


def test_event_triggers_come_after_everything_else() -> None:
    """They might act on what is made after them, also on what stands behind them."""
    made = [
        entry(1, "EVENT TRIGGER", "one", schema="", definition="one"),
        entry(2, "TABLE", "t", definition="table"),
        entry(3, "EVENT TRIGGER", "two", schema="", definition="two"),
        entry(4, "VIEW", "v", definition="view"),
    ]

    assert _built(contents(*made)) == [SETTINGS, b"table", b"view", b"one", b"two"]


def test_an_entry_without_a_statement_is_none() -> None:
    """The server would refuse to run nothing."""
    assert _built(contents(entry(1, "SCHEMA", "s", definition=" \n"))) == [SETTINGS]


@pytest.mark.parametrize(
    ("codec", "definition", "expected"),
    [
        ("utf-8", "SELECT 'ü'", b"SELECT '\xc3\xbc'"),
        ("latin-1", "SELECT 'ü'", b"SELECT '\xfc'"),
        ("cp1251", "SELECT 'ж'", b"SELECT '\xe6'"),
        ("utf-8", "SELECT '\udcfc'", b"SELECT '\xfc'"),
    ],
)
def test_statements_come_in_the_archives_encoding(
    codec: str, definition: str, expected: bytes
) -> None:
    """The archive's first entry tells the server to expect it; bytes survive."""
    made = contents(entry(1, "VIEW", "v", definition=definition), codec=codec)

    assert _built(made) == [SETTINGS, expected]


def test_a_statement_that_is_refused_ends_it() -> None:
    """Half a reference would settle nothing rightly."""
    made = contents(entry(1, "VIEW", "a", definition="x"))

    with pytest.raises(DatabaseError, match="refused"):
        _built(made)
