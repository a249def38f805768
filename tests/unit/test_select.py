"""Single tables: what comes along with them, and what stays behind."""

from __future__ import annotations

import pytest

from opskit.errors import UsageError
from opskit.postgres.archive.entry import TocEntry
from opskit.restore.select import entries_for, parse_table


def _entry(
    dump_id: int, kind: str, name: str, *needs: int, schema: str = "public"
) -> TocEntry:
    return TocEntry(
        dump_id=dump_id,
        kind=kind,
        schema=schema,
        name=name,
        owner="ops",
        definition="",
        copy_statement="",
        dependencies=needs,
        has_data=kind == "TABLE DATA",
    )


# As pg_dump orders and connects them: before the data, the data, after the data.
SHOP = [
    _entry(1, "ENCODING", "ENCODING", schema=""),
    _entry(2, "STDSTRINGS", "STDSTRINGS", schema=""),
    _entry(3, "SEARCHPATH", "SEARCHPATH", schema=""),
    _entry(4, "DATABASE", "shop", schema=""),
    _entry(10, "SCHEMA", "sales", schema=""),
    _entry(11, "TYPE", "state", 10, schema="sales"),
    _entry(12, "FUNCTION", "touch()"),
    _entry(13, "FUNCTION", "unused()"),
    _entry(20, "TABLE", "customers"),
    _entry(21, "TABLE", "orders", 11, schema="sales"),
    _entry(22, "SEQUENCE", "orders_id_seq", 21, schema="sales"),
    _entry(23, "SEQUENCE OWNED BY", "orders_id_seq", 22, schema="sales"),
    _entry(24, "SEQUENCE", "numbers"),
    _entry(25, "DEFAULT", "orders id", 21, 22, schema="sales"),
    _entry(26, "DEFAULT", "orders number", 21, 24, schema="sales"),
    _entry(27, "VIEW", "report", 20, 21),
    _entry(28, "MATERIALIZED VIEW", "totals", 21),
    _entry(29, "COMMENT", "TABLE orders", 21, schema="sales"),
    _entry(30, "ACL", "TABLE orders", 21, schema="sales"),
    _entry(31, "COMMENT", "TABLE customers", 20),
    _entry(32, "SEQUENCE", "orders_line_seq", 21, schema="sales"),
    _entry(40, "TABLE DATA", "customers", 20),
    _entry(41, "TABLE DATA", "orders", 21, schema="sales"),
    _entry(42, "SEQUENCE SET", "orders_id_seq", 22, schema="sales"),
    _entry(43, "SEQUENCE SET", "numbers", 24),
    _entry(45, "SEQUENCE SET", "orders_line_seq", 32, schema="sales"),
    _entry(44, "BLOBS", "BLOBS", schema=""),
    _entry(50, "CONSTRAINT", "customers customers_pkey", 20),
    _entry(51, "CONSTRAINT", "orders orders_pkey", 21, schema="sales"),
    _entry(52, "INDEX", "orders_by_day", 21, schema="sales"),
    _entry(53, "COMMENT", "INDEX orders_by_day", 52, schema="sales"),
    _entry(54, "FK CONSTRAINT", "orders orders_customer_fkey", 21, 20, 50),
    _entry(55, "TRIGGER", "orders touch", 21, 12, schema="sales"),
    _entry(56, "POLICY", "orders own", 21, schema="sales"),
    _entry(57, "ROW SECURITY", "orders", 21, schema="sales"),
    _entry(58, "RULE", "orders archive", 21, 20, schema="sales"),
    _entry(59, "MATERIALIZED VIEW DATA", "totals", 28, 41),
    _entry(60, "PUBLICATION TABLE", "all orders", 21, schema="sales"),
]
ALWAYS = {1, 2, 3}
OF_ORDERS = {10, 11, 12, 21, 22, 23, 24, 25, 26, 29, 30, 32, 41, 42, 43, 45, 51, 52, 53}
OF_ORDERS |= {55, 56, 57}
OF_CUSTOMERS = {20, 31, 40, 50}

PARTITIONED = [
    _entry(1, "ENCODING", "ENCODING", schema=""),
    _entry(20, "TABLE", "log"),
    _entry(21, "TABLE", "log_2026", 20),
    _entry(22, "TABLE", "log_2026_03", 21),
    _entry(23, "TABLE", "log_2025", 20),
    _entry(24, "TABLE", "other"),
    _entry(30, "TABLE ATTACH", "log_2026", 21, 20),
    _entry(31, "TABLE ATTACH", "log_2026_03", 22, 21),
    _entry(32, "TABLE ATTACH", "log_2025", 23, 20),
    _entry(40, "TABLE DATA", "log_2026_03", 22),
    _entry(41, "TABLE DATA", "log_2025", 23),
    _entry(42, "TABLE DATA", "other", 24),
    _entry(50, "INDEX", "log_day", 20),
    _entry(51, "INDEX", "log_2025_day", 23),
    _entry(52, "INDEX ATTACH", "log_2025_day", 51, 50, 23, 20),
]


def _chosen(entries: list[TocEntry], *tables: tuple[str, str]) -> set[int]:
    selected, _names = entries_for(entries, tables)
    return {entry.dump_id for entry in selected}


def test_a_table_comes_with_all_that_is_its_own() -> None:
    """Data, types, sequences, indexes, triggers, rights: what the table needs or has.

    The foreign key and the rule, which need another table, stay behind, and so do views.
    """
    assert _chosen(SHOP, ("sales", "orders")) == ALWAYS | OF_ORDERS


def test_a_table_that_others_refer_to_comes_alone() -> None:
    """What refers to a table does not come along with it."""
    assert _chosen(SHOP, ("public", "customers")) == ALWAYS | OF_CUSTOMERS


def test_two_tables_come_with_what_connects_them() -> None:
    """A foreign key between two tables that were both asked for comes along."""
    found = _chosen(SHOP, ("sales", "orders"), ("public", "customers"))

    assert found == ALWAYS | OF_ORDERS | OF_CUSTOMERS | {54, 58}


def test_the_order_of_the_archive_is_kept() -> None:
    """pg_restore loads in the order of its list, so that must be the archive's."""
    selected, _names = entries_for(SHOP, [("sales", "orders")])
    positions = [SHOP.index(entry) for entry in selected]

    assert positions == sorted(positions)


def test_the_tables_asked_for_are_told() -> None:
    """Which tables must be compared afterwards is told by schema and name."""
    asked = [("sales", "orders"), ("public", "customers")]
    _selected, names = entries_for(SHOP, asked)

    assert names == set(asked)


def test_a_partitioned_table_brings_its_partitions() -> None:
    """Partitions of partitions too, with data, indexes and attachments."""
    selected, names = entries_for(PARTITIONED, [("public", "log")])
    everything = {entry.dump_id for entry in PARTITIONED}

    assert {entry.dump_id for entry in selected} == everything - {24, 42}
    assert names == {
        ("public", name) for name in ("log", "log_2026", "log_2026_03", "log_2025")
    }


def test_a_partition_alone_comes_without_the_others() -> None:
    """A partition brings what it is attached to, but nothing of its siblings."""
    selected, names = entries_for(PARTITIONED, [("public", "log_2025")])

    assert {entry.dump_id for entry in selected} == {1, 20, 23, 32, 41, 50, 51, 52}
    assert names == {("public", "log_2025")}


def test_a_partition_in_the_middle_brings_what_is_below_it() -> None:
    """A partition that is divided itself brings its own, and not what is above."""
    _selected, names = entries_for(PARTITIONED, [("public", "log_2026")])

    assert names == {("public", "log_2026"), ("public", "log_2026_03")}


def test_a_circle_of_needs_ends() -> None:
    """Entries that need each other are each taken once."""
    circle = [
        _entry(1, "TABLE", "a", 2),
        _entry(2, "TYPE", "t", 3),
        _entry(3, "FUNCTION", "f()", 2, 1),
    ]

    assert _chosen(circle, ("public", "a")) == {1, 2, 3}


def test_needs_that_are_not_in_the_archive_are_passed_over() -> None:
    """An entry may name what pg_dump did not write, such as a system's object."""
    entries = [
        _entry(1, "TABLE", "a", 77),
        _entry(2, "TABLE DATA", "a", 1, 78),
    ]

    assert _chosen(entries, ("public", "a")) == {1, 2}


def test_a_foreign_table_is_a_table() -> None:
    """A foreign table can be asked for, and brings its server."""
    entries = [
        _entry(1, "SERVER", "elsewhere", schema=""),
        _entry(2, "FOREIGN TABLE", "a", 1),
    ]

    assert _chosen(entries, ("public", "a")) == {1, 2}


def test_a_parent_by_inheritance_comes_without_its_rows() -> None:
    """The table needs its parent's definition, but nobody asked for the rows there."""
    entries = [
        _entry(1, "TABLE", "parent"),
        _entry(2, "TABLE", "child", 1),
        _entry(3, "TABLE DATA", "parent", 1),
        _entry(4, "TABLE DATA", "child", 2),
    ]

    assert _chosen(entries, ("public", "child")) == {1, 2, 4}


@pytest.mark.parametrize(
    "table",
    [("public", "orders"), ("sales", "customers"), ("public", "report"), ("", "")],
)
def test_a_table_that_is_not_there_is_refused(table: tuple[str, str]) -> None:
    """A name that no table of the set has is refused, a view's too."""
    with pytest.raises(UsageError, match=rf"no table {table[0]}\.{table[1]}"):
        entries_for(SHOP, [("sales", "orders"), table])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("public.orders", ("public", "orders")),
        ("Sales.my orders", ("Sales", "my orders")),
        ("public.a.b", ("public", "a.b")),
    ],
)
def test_a_table_is_named_with_its_schema(text: str, parts: tuple[str, str]) -> None:
    """The first dot divides schema from name; nothing is folded or guessed."""
    assert parse_table(text) == parts


@pytest.mark.parametrize("text", ["orders", ".orders", "public.", ".", ""])
def test_a_table_without_a_schema_is_refused(text: str) -> None:
    """Half a name is refused, with the form that is wanted."""
    with pytest.raises(UsageError, match=r"is not SCHEMA\.TABLE$"):
        parse_table(text)
