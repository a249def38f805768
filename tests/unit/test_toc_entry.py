"""TocEntry: what its statements tell, whatever the tables are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.errors import ArchiveError
from opskit.postgres.archive.entry import TocEntry
from tests.unit.archive_builder import quoted
from tests.unit.entries import entry

_names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
)
# The characters that mean something in a statement, over and over.
_odd_names = st.text('".,() \n\\;xFROM', min_size=1, max_size=8)


def _data(statement: str, *, schema: str = "sales", name: str = "part") -> TocEntry:
    return entry(1, "TABLE DATA", name, schema=schema, copy_statement=statement)


@pytest.mark.parametrize(
    ("schema", "kind", "name", "label"),
    [
        ("public", "TABLE", "orders", "TABLE public.orders"),
        ("", "SCHEMA", "sales", "SCHEMA sales"),
        ("My Schema", "FK CONSTRAINT", "a b", "FK CONSTRAINT My Schema.a b"),
    ],
)
def test_a_person_calls_it_by_kind_and_name(
    schema: str, kind: str, name: str, label: str
) -> None:
    """The schema stands before the name where there is one."""
    assert entry(1, kind, name, schema=schema).label == label


@pytest.mark.parametrize(
    "statement",
    [
        "COPY sales.part (id) FROM stdin;\n",
        "COPY sales.part  FROM stdin;\n",
        'COPY "sales"."part" (id, "b c") FROM stdin;\n',
        "COPY sales.part (id) FROM stdin;",
    ],
)
def test_rows_of_a_table_go_into_itself(statement: str) -> None:
    """Quoted or not, with columns or without, that is no other table."""
    assert _data(statement).loaded_into is None


@pytest.mark.parametrize(
    ("statement", "target"),
    [
        ("COPY sales.whole (id) FROM stdin;\n", ("sales", "whole")),
        ("COPY other.part (id) FROM stdin;\n", ("other", "part")),
        ("COPY sales.part2 (id) FROM stdin;\n", ("sales", "part2")),
        ('COPY sales."Part" (id) FROM stdin;\n', ("sales", "Part")),
        ('COPY sales."part " (id) FROM stdin;\n', ("sales", "part ")),
        ('COPY "sales.part"."part" FROM stdin;\n', ("sales.part", "part")),
        ('COPY sales."part"".x" (id) FROM stdin;\n', ("sales", 'part".x')),
        ('COPY sales.""" FROM stdin;" (id) FROM stdin;\n', ("sales", '" FROM stdin;')),
        ("COPY größe.ü_1$ (id) FROM stdin;\n", ("größe", "ü_1$")),
    ],
)
def test_rows_of_a_partition_may_go_through_its_root(
    statement: str, target: tuple[str, str]
) -> None:
    """Schema and name count to the letter, so that the like is another table."""
    assert _data(statement).loaded_into == target


@given(st.tuples(_names, _names), st.tuples(_names, _names), st.lists(_names))
def test_any_target_is_read(
    own: tuple[str, str], target: tuple[str, str], columns: list[str]
) -> None:
    """Whatever they are called, the target is told, and it is none exactly if equal."""
    _is_read(own, target, columns)


@given(
    st.tuples(_odd_names, _odd_names),
    st.tuples(_odd_names, _odd_names),
    st.lists(_odd_names, max_size=3),
)
def test_any_target_of_odd_characters_is_read(
    own: tuple[str, str], target: tuple[str, str], columns: list[str]
) -> None:
    """Quotes, dots, brackets and the statement's own words may be in the names."""
    _is_read(own, target, columns)


def _is_read(own: tuple[str, str], target: tuple[str, str], columns: list[str]) -> None:
    listed = f"({', '.join(map(quoted, columns))}) " if columns else ""
    into = ".".join(map(quoted, target))
    found = _data(f"COPY {into} {listed}FROM stdin;\n", schema=own[0], name=own[1])

    assert found.loaded_into == (None if own == target else target)
    assert found.columns == tuple(columns)


@pytest.mark.parametrize(
    "statement",
    [
        "",
        "COPY part (id) FROM stdin;\n",
        "COPY sales.part (id) FROM program;\n",
        "COPY sales.part id FROM stdin;\n",
        "COPY a.sales.part (id) FROM stdin;\n",
        "COPY sales.part (id) FROM stdin;\nCOPY sales.part (id) FROM stdin;\nx",
        "copy sales.part (id) from stdin;\n",
        'COPY sales."part (id) FROM stdin;\n',
    ],
)
def test_a_statement_of_another_form_is_refused(statement: str) -> None:
    """Nothing is guessed: rows in a table that is not known are not compared."""
    found = _data(statement)

    with pytest.raises(ArchiveError, match=r"COPY statement of sales\.part"):
        _ = found.loaded_into
