"""Order: what several jobs of pg_restore would make too early."""

from __future__ import annotations

from opskit.postgres.order import out_of_order
from tests.unit.entries import entry

TABLES = [
    entry(1, "TABLE", "t"),
    entry(2, "TABLE DATA", "t", 1),
    entry(3, "CHECK CONSTRAINT", "t positive", 1),
    entry(4, "FOREIGN TABLE", "f"),
    entry(5, "CHECK CONSTRAINT", "f positive", 4),
    entry(6, "DOMAIN", "short"),
    entry(7, "FUNCTION", "f()"),
]


def test_constraints_of_domains_wait_for_the_rows() -> None:
    """Whatever else they need, a function or what the archive does not hold."""
    entries = [
        *TABLES,
        entry(8, "CHECK CONSTRAINT", "short length", 6),
        entry(9, "CHECK CONSTRAINT", "short odd", 7, 6, 99),
    ]

    assert out_of_order(entries) == {8, 9}


def test_constraints_of_tables_are_kept_in_order_already() -> None:
    """They depend on their table, a foreign one too; other kinds never wait."""
    assert out_of_order([*TABLES, entry(8, "CONSTRAINT", "t pkey", 6)]) == set()
