"""Definition: what of an entry is compared, and what may rightly differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from opskit.postgres.programs import Installation
from opskit.postgres.toc_entry import TocEntry
from opskit.restore.definition import CopyToDescribe, Definition, Definitions, by_key
from tests.unit.entries import entry

COPY_NAME = "opskit_drill_0a1b2c"
URL = "postgresql://ops:hunter2@db.example/shop"


def described(**changes: Any) -> CopyToDescribe:
    """Return a copy that has the source's own name, on a server with its own roles."""
    fields: dict[str, Any] = {
        "url": URL,
        "installation": Installation(
            bin_dir=Path("/nowhere"), version="16.4", major=16, embedded=False
        ),
        "folder": Path("/nowhere"),
        "timeout_seconds": 1.0,
        "names": ("shop", "shop"),
        "first_roles": ("postgres", "throwaway"),
    }
    return CopyToDescribe(**(fields | changes))


def _of_source(*entries: TocEntry, **changes: Any) -> Definitions:
    return by_key(entries, described(**changes), of_source=True)


def _of_copy(*entries: TocEntry, **changes: Any) -> Definitions:
    return by_key(entries, described(**changes), of_source=False)


@pytest.mark.parametrize(
    "kind",
    [
        "ENCODING", "STDSTRINGS", "SEARCHPATH", "TABLE DATA", "SEQUENCE SET", "BLOB",
        "BLOBS", "BLOB METADATA", "BLOB COMMENTS", "MATERIALIZED VIEW DATA",
        "STATISTICS DATA",
    ],
)  # fmt: skip
def test_contents_are_compared_elsewhere(kind: str) -> None:
    """Rows, values and how to read the archive are no definitions."""
    assert _of_source(entry(1, kind, "t", definition="x")) == {}


@pytest.mark.parametrize(
    "kind",
    [
        "ACL", "COMMENT", "SECURITY LABEL", "DEFAULT ACL", "DATABASE PROPERTIES",
        "TABLE", "TABLE ATTACH", "TRIGGER", "ROW SECURITY", "POLICY", "SUBSCRIPTION",
        "EXTENSION", "a kind of tomorrow",
    ],
)  # fmt: skip
def test_every_other_kind_is_compared(kind: str) -> None:
    """Whatever kind it is, known today or not, an entry's text and owner count."""
    found = _of_source(entry(1, kind, "TABLE t", definition="x"))

    assert found == {(kind, "public", "TABLE t"): [Definition("x", "ops", "", "")]}


@pytest.mark.parametrize("kind", ["ACL", "COMMENT", "SECURITY LABEL"])
def test_what_is_said_about_large_objects_is_compared_elsewhere(kind: str) -> None:
    """They are told by number, and with the objects themselves."""
    assert _of_source(entry(1, kind, "LARGE OBJECT 16384")) == {}
    assert _of_source(entry(1, kind, "LARGE OBJECTS 16385..16390")) == {}


def test_a_table_may_be_called_like_a_large_object() -> None:
    """The name alone does not take an object out of the comparison."""
    assert _of_source(entry(1, "TABLE", "LARGE OBJECT 1"))
    assert _of_source(entry(1, "COMMENT", "TABLE LARGE OBJECT 1"))


@pytest.mark.parametrize(
    ("change", "left_out"),
    [
        ({}, set()),
        ({"with_owners": False}, {"ACL", "DEFAULT ACL"}),
        ({"with_tablespaces": False}, set()),
        ({"without_settings": True}, {"DATABASE PROPERTIES"}),
    ],
)
def test_a_concession_leaves_out_its_own_kinds_only(
    change: dict[str, bool], left_out: set[str]
) -> None:
    """Without owners there are no grants, without a setting no properties; no more."""
    kinds = {"ACL", "DEFAULT ACL", "DATABASE PROPERTIES", "COMMENT", "POLICY", "TABLE"}
    found = _of_source(*(entry(1, kind, "t") for kind in kinds), **change)

    assert {kind for kind, _schema, _name in found} == kinds - left_out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Definition("x", "ops", "fast", "heap")),
        ({"with_owners": False}, Definition("x", "", "fast", "heap")),
        ({"with_tablespaces": False}, Definition("x", "ops", "", "heap")),
    ],
)
def test_belongings_are_compared_as_far_as_they_are_kept(
    change: dict[str, bool], expected: Definition
) -> None:
    """Owner, tablespace and storage count, but for the one that was given up."""
    made = entry(
        1, "TABLE", "t", definition="x", tablespace="fast", access_method="heap"
    )

    assert _of_source(made, **change)["TABLE", "public", "t"] == [expected]
    assert expected.belongings == (
        expected.owner,
        expected.tablespace,
        expected.access_method,
    )


@pytest.mark.parametrize(
    ("owner", "in_source", "in_copy"),
    [
        ("postgres", "postgres", "postgres"),
        ("throwaway", "throwaway", "postgres"),
        ("app", "app", "app"),
    ],
)
def test_the_first_role_goes_by_the_sources_name(
    owner: str, in_source: str, in_copy: str
) -> None:
    """What the copy's first role owns is told as the source's; nobody else's is."""
    made = entry(1, "SCHEMA", "s", schema="", owner=owner)
    (before,), (after,) = _of_source(made).values(), _of_copy(made).values()

    assert (before[0].owner, after[0].owner) == (in_source, in_copy)


@pytest.mark.parametrize("kind", ["ACL", "DEFAULT ACL", "DATABASE PROPERTIES"])
def test_what_the_server_keeps_in_no_order_has_none(kind: str) -> None:
    """The statements of a grant may come in any order, but none may be missing."""
    one, other, less = (
        _of_source(entry(1, kind, "TABLE t", definition=text))
        for text in ("GRANT a;\nGRANT b;\n", "GRANT b;\nGRANT a;\n", "GRANT a;\n")
    )

    assert one == other
    assert one != less


@pytest.mark.parametrize("kind", ["FUNCTION", "TABLE", "COMMENT", "VIEW"])
def test_the_order_of_other_lines_counts(kind: str) -> None:
    """The lines of a body are not sorted."""
    one, other = (
        _of_source(entry(1, kind, "f()", definition=text)) for text in ("a\nb", "b\na")
    )

    assert one != other


def test_of_the_database_itself_owner_and_tablespace_are_compared() -> None:
    """Its encoding and locale have checks of their own; whose it is has none."""
    made = entry(
        1,
        "DATABASE",
        "shop",
        schema="",
        definition="CREATE DATABASE shop ENCODING x;\n",
        tablespace="fast",
    )

    assert _of_source(made) == {
        ("DATABASE", "", "shop"): [Definition("", "ops", "fast", "")]
    }


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("DATABASE", "{}", ""),
        ("DATABASE PROPERTIES", "{}", "ALTER DATABASE {} SET a TO 'b';"),
        ("COMMENT", "DATABASE {}", "COMMENT ON DATABASE {} IS 'x';"),
        ("ACL", "DATABASE {}", "GRANT CREATE ON DATABASE {} TO app;"),
    ],
)
def test_a_copy_of_another_name_is_told_by_the_sources(
    kind: str, name: str, text: str
) -> None:
    """What is said of the database itself names it; the name alone may differ."""
    names = ("shop", COPY_NAME)
    of_source, of_copy = (
        entry(1, kind, name.format(each), schema="", definition=text.format(each))
        for each in names
    )

    assert _of_source(of_source, names=names) == _of_copy(of_copy, names=names)
    assert _of_source(of_source) != _of_copy(of_copy)


def test_the_copys_name_in_other_texts_is_a_difference() -> None:
    """A function that names the copy does not come from the source."""
    made = entry(1, "FUNCTION", "f()", definition=f"SELECT '{COPY_NAME}'")
    (found,) = _of_copy(made, names=("shop", COPY_NAME)).values()

    assert found[0].text == f"SELECT '{COPY_NAME}'"


def test_entries_of_one_name_are_all_kept_in_one_order() -> None:
    """Operators are told by their sign alone, so that one key may hold several."""
    first = entry(1, "OPERATOR", "+", definition="of numbers")
    second = entry(2, "OPERATOR", "+", definition="of texts")

    assert _of_source(first, second) == _of_copy(second, first)
    assert _of_source(first, second) != _of_copy(second)
    assert _of_source(first, second) != _of_copy(second, second)


def test_things_of_one_name_but_another_kind_or_schema_are_apart() -> None:
    """A name is one thing's only within its kind and schema."""
    found = _of_source(
        entry(1, "TABLE", "t"),
        entry(2, "TABLE", "t", schema="sales"),
        entry(3, "VIEW", "t"),
    )

    assert len(found) == 3


def test_the_same_may_be_asked_of_another_database() -> None:
    """Only the address changes, and it is not shown by accident."""
    one = described(with_owners=False)
    other = one.at("postgresql://db.example/reference")

    assert other == described(
        with_owners=False, url="postgresql://db.example/reference"
    )
    assert "hunter2" not in repr(one)
