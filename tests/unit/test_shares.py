"""Shares: which tables are dumped apart, and that none is dumped twice."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.backup.stream import shares
from opskit.postgres.snapshot import TableName

GIB = 1024**3
MIB = 1024**2


def own(
    sizes: Mapping[str, int],
    streams: int = 2,
    others_bytes: int = 0,
    relations: int = 0,
) -> list[list[str]]:
    """Return the names of the tables in each stream but the catch-all."""
    found = shares(
        {("public", name): size_bytes for name, size_bytes in sizes.items()},
        streams=streams,
        others_bytes=others_bytes,
        relations=relations,
    )
    return [[name for _schema, name in tables] for tables in found]


def test_the_largest_tables_are_shared_out() -> None:
    """Each goes where there is least so far; the first stays with the catch-all."""
    sizes = {"a": 5 * GIB, "b": 4 * GIB, "c": 3 * GIB, "d": 2 * GIB}

    assert own(sizes) == [["b", "c"]]
    assert own(sizes, streams=3) == [["b"], ["c", "d"]]


def test_what_the_catch_all_dumps_anyway_counts() -> None:
    """Large objects, and tables that cannot be dumped apart."""
    sizes = {"a": 3 * GIB, "b": 2 * GIB, "c": GIB}

    assert own(sizes, others_bytes=4 * GIB) == [["a", "b"]]


def test_many_small_tables_stay_together() -> None:
    """They weigh on the catch-all, so that the large ones go elsewhere."""
    small = {f"t{number:03}": 100 * MIB for number in range(100)}

    assert own({"large": GIB, **small})[0][0] == "large"
    assert sum(map(len, own({"large": GIB, **small}))) <= 32


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ({}, {}),
        ({"one": 100 * GIB}, {}),
        ({"a": GIB, "b": GIB}, {"streams": 1}),
        ({"a": 63 * MIB, "b": 63 * MIB}, {}),
        ({"a": GIB, "b": GIB}, {"relations": 20_000}),
    ],
    ids=["nothing", "one table", "one stream", "too small", "a vast catalog"],
)
def test_one_dump_where_a_second_brings_nothing(
    sizes: dict[str, int], options: dict[str, int]
) -> None:
    """A stream must be worth the catalog that its pg_dump reads first."""
    assert own(sizes, **options) == []


def test_a_second_where_it_is_just_worth_it() -> None:
    """From 64 MiB on, and from 64 KiB for each relation of the catalog."""
    assert own({"a": 64 * MIB, "b": 64 * MIB}) == [["b"]]
    assert own({"a": GIB, "b": GIB}, relations=16 * 1024) == [["b"]]
    assert own({"a": GIB, "b": GIB}, relations=16 * 1024 + 1) == []


_sizes = st.dictionaries(
    st.tuples(st.sampled_from("ab"), st.text("xyz", max_size=4)), st.integers(0, 2**40)
)


@given(_sizes, st.integers(1, 32), st.integers(0, 2**40), st.integers(0, 10**6))
def test_no_table_is_named_twice(
    sizes: dict[TableName, int], streams: int, others_bytes: int, relations: int
) -> None:
    """Whatever the sizes are; nor is one named that there is not."""
    found = shares(
        sizes, streams=streams, others_bytes=others_bytes, relations=relations
    )

    named = [table for tables in found for table in tables]
    assert len(found) < streams
    assert len(named) == len(set(named))
    assert set(named) <= sizes.keys()
    assert all(sum(sizes[each] for each in tables) >= 64 * MIB for tables in found)
    assert len(named) <= 16 * streams
