"""Definition: what of an entry is compared, and what may rightly differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from opskit.compare.definitions import Definition
from tests.unit.copies import described, of_copy, of_source
from tests.unit.entries import entry


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
    assert of_source(entry(1, kind, "t", definition="x")) == {}


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
    found = of_source(entry(1, kind, "TABLE t", definition="x"))

    assert found == {(kind, "public", "TABLE t"): [Definition("x", "ops", "", "")]}


@pytest.mark.parametrize("kind", ["ACL", "COMMENT", "SECURITY LABEL"])
def test_what_is_said_about_large_objects_is_compared_elsewhere(kind: str) -> None:
    """They are told by number, and with the objects themselves."""
    assert of_source(entry(1, kind, "LARGE OBJECT 16384")) == {}
    assert of_source(entry(1, kind, "LARGE OBJECTS 16385..16390")) == {}


def test_a_table_may_be_called_like_a_large_object() -> None:
    """The name alone does not take an object out of the comparison."""
    assert of_source(entry(1, "TABLE", "LARGE OBJECT 1"))
    assert of_source(entry(1, "COMMENT", "TABLE LARGE OBJECT 1"))


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
    found = of_source(*(entry(1, kind, "t") for kind in kinds), **change)

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

    assert of_source(made, **change)["TABLE", "public", "t"] == [expected]
    assert expected.belongings == (
        expected.owner,
        expected.tablespace,
        expected.access_method,
    )


@pytest.mark.parametrize("kind", ["ACL", "COMMENT", "SECURITY LABEL"])
@pytest.mark.parametrize(
    ("owner", "in_source", "in_copy"),
    [
        ("postgres", "postgres", "postgres"),
        ("throwaway", "throwaway", "postgres"),
        ("app", "app", "app"),
    ],
)
def test_the_first_role_goes_by_the_sources_name(
    kind: str, owner: str, in_source: str, in_copy: str
) -> None:
    """What is said of built-in objects is the first role's, whatever it is called."""
    made = entry(1, kind, "SCHEMA s", schema="", owner=owner)
    (before,), (after,) = of_source(made).values(), of_copy(made).values()

    assert (before[0].owner, after[0].owner) == (in_source, in_copy)


@pytest.mark.parametrize("kind", ["SCHEMA", "TABLE", "VIEW", "DATABASE", "TRIGGER"])
def test_what_is_made_belongs_to_whom_it_says(kind: str) -> None:
    """An object that came to the first role for want of its owner is told."""
    made = entry(1, kind, "s", owner="throwaway")
    (after,) = of_copy(made).values()

    assert after[0].owner == "throwaway"


def test_entries_of_one_name_are_all_kept_in_one_order() -> None:
    """Operators are told by their sign alone, so that one key may hold several."""
    first = entry(1, "OPERATOR", "+", definition="of numbers")
    second = entry(2, "OPERATOR", "+", definition="of texts")

    assert of_source(first, second) == of_copy(second, first)
    assert of_source(first, second) != of_copy(second)
    assert of_source(first, second) != of_copy(second, second)


def test_things_of_one_name_but_another_kind_or_schema_are_apart() -> None:
    """A name is one thing's only within its kind and schema."""
    found = of_source(
        entry(1, "TABLE", "t"),
        entry(2, "TABLE", "t", schema="sales"),
        entry(3, "VIEW", "t"),
    )

    assert len(found) == 3


def test_the_same_may_be_asked_of_another_database() -> None:
    """Only the address changes, and it is not shown by accident."""
    one = described(with_owners=False)
    other = replace(one, url="postgresql://db.example/reference")

    assert other == described(
        with_owners=False, url="postgresql://db.example/reference"
    )
    assert "hunter2" not in repr(one)
