"""Order: what several jobs of pg_restore would make too early."""

from __future__ import annotations

import pytest

from opskit.postgres.archive.toc import not_validated, of_kind
from tests.unit.entries import entry

TABLES = [
    entry(1, "TABLE", "t"),
    entry(2, "TABLE DATA", "t", 1),
    entry(3, "INDEX", "t_index", 1, definition="CREATE INDEX i ON t (a);\n"),
]
FOREIGN_KEY = "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES u(a)"


@pytest.mark.parametrize("needs", [(), (1,), (99,)])
def test_checks_of_their_own_wait_for_the_rows(needs: tuple[int, ...]) -> None:
    """Of a table, a foreign one or a domain: pg_dump tells apart what is not valid."""
    made = entry(8, "CHECK CONSTRAINT", "t positive", *needs)

    assert not_validated([*TABLES, made]) == {8}


@pytest.mark.parametrize("kind", ["CONSTRAINT", "FK CONSTRAINT"])
@pytest.mark.parametrize(
    ("end", "waits"),
    [
        (" NOT VALID;\n", True),
        (" NOT VALID;\n\n\n", True),
        (" NOT VALID", True),
        (";\n", False),
        (" DEFERRABLE;\n", False),
        (" NOT VALID;\nSELECT 1;\n", False),
        ("NOT VALID;\n", False),
    ],
)
def test_other_constraints_wait_if_they_are_not_valid(
    kind: str, end: str, waits: bool
) -> None:
    """By the end of the statement alone; a name may hold the words."""
    made = entry(8, kind, "t NOT VALID", 1, definition=f"{FOREIGN_KEY}{end}")

    assert not_validated([*TABLES, made]) == ({8} if waits else set())


@pytest.mark.parametrize("kind", ["TABLE", "COMMENT", "VIEW", "FUNCTION"])
def test_what_is_no_constraint_does_not_wait(kind: str) -> None:
    """A comment may end in the same words."""
    made = entry(8, kind, "t", definition="COMMENT ON x IS NOT VALID;\n")

    assert not_validated([made]) == set()


def test_event_triggers_are_told_by_their_kind() -> None:
    """They act on what comes after them; triggers of tables do not."""
    made = [
        *TABLES,
        entry(8, "EVENT TRIGGER", "watch", schema=""),
        entry(9, "TRIGGER", "EVENT TRIGGER"),
        entry(10, "COMMENT", "EVENT TRIGGER watch", schema=""),
    ]

    assert of_kind(made, "EVENT TRIGGER") == {8}
