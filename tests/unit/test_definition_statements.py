"""Definition: statements in any order, and those about the database itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from opskit.compare.definitions import Definition
from tests.unit.copies import of_copy, of_source
from tests.unit.entries import entry

COPY_NAME = "opskit_drill_0a1b2c"


@pytest.mark.parametrize("kind", ["ACL", "DEFAULT ACL", "DATABASE PROPERTIES"])
def test_what_the_server_keeps_in_no_order_has_none(kind: str) -> None:
    """The statements of a grant may come in any order, but none may be missing."""
    one, other, less = (
        of_source(entry(1, kind, "TABLE t", definition=text))
        for text in ("GRANT a;\nGRANT b;\n", "GRANT b;\nGRANT a;\n", "GRANT a;\n")
    )

    assert one == other
    assert one != less


@pytest.mark.parametrize("kind", ["FUNCTION", "TABLE", "COMMENT", "VIEW"])
def test_the_order_of_other_lines_counts(kind: str) -> None:
    """The lines of a body are not sorted."""
    one, other = (
        of_source(entry(1, kind, "f()", definition=text)) for text in ("a\nb", "b\na")
    )

    assert one != other


AS_ONE = (
    "SET SESSION AUTHORIZATION one;\nGRANT SELECT ON t TO b;\n"
    "RESET SESSION AUTHORIZATION;\n"
)
AS_TWO = AS_ONE.replace(" one", " two").replace("TO b", "TO c")
GRANT = "GRANT SELECT ON t TO a;\n"


@pytest.mark.parametrize("kind", ["ACL", "DEFAULT ACL", "DATABASE PROPERTIES"])
def test_statements_run_as_another_role_stay_together(kind: str) -> None:
    """They come in any order as a whole; who granted what is not shuffled."""
    swapped = AS_ONE.replace("TO b", "TO c") + AS_TWO.replace("TO c", "TO b")
    one, other, wrong = (
        of_source(entry(1, kind, "TABLE t", definition=text))
        for text in (AS_ONE + GRANT + AS_TWO, AS_TWO + AS_ONE + GRANT, swapped + GRANT)
    )

    assert one == other
    assert one != wrong


def test_a_block_without_an_end_is_not_lost() -> None:
    """What stands after the last semicolon counts, too."""
    begun = AS_ONE.removesuffix("RESET SESSION AUTHORIZATION;\n")
    whole, cut, bare = (
        of_source(entry(1, "ACL", "TABLE t", definition=text))
        for text in (AS_ONE, begun, "")
    )

    assert len({str(each) for each in (whole, cut, bare)}) == 3


def test_a_value_of_several_lines_is_not_shuffled() -> None:
    """Statements are put in order, the lines within them are not."""
    one, other = (
        of_source(
            entry(
                1,
                "DATABASE PROPERTIES",
                "shop",
                definition=f"ALTER DATABASE shop SET a TO '{value}';\n",
            )
        )
        for value in ("x\ny", "y\nx")
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

    assert of_source(made) == {
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
    before, after = (
        entry(1, kind, name.format(each), schema="", definition=text.format(each))
        for each in names
    )

    assert of_source(before, names=names) == of_copy(after, names=names)
    assert of_source(before) != of_copy(after)


@pytest.mark.parametrize(
    ("kind", "tag", "text"),
    [
        ("DATABASE PROPERTIES", "{}", "ALTER DATABASE {} SET a TO 'b';"),
        ("DATABASE PROPERTIES", "{}", "ALTER ROLE app IN DATABASE {} SET a TO 'b';"),
        ("COMMENT", "DATABASE {}", "COMMENT ON DATABASE {} IS 'x';"),
        ("ACL", "DATABASE {}", "GRANT CREATE ON DATABASE {} TO app;"),
    ],
)
@pytest.mark.parametrize("source", ['"My; Shop"', '"a""b"', '"Shop"', "ü"])
def test_the_sources_name_may_be_quoted(
    kind: str, tag: str, text: str, source: str
) -> None:
    """The copy's own needs no quotes; what else the statement says still counts."""
    names = (source.strip('"').replace('""', '"'), COPY_NAME)
    before, after = (
        entry(1, kind, tag.format(each), schema="", definition=text.format(each))
        for each in (source, COPY_NAME)
    )
    other = replace(after, definition=after.definition.replace("app", "bob") + "\nx;")

    assert of_source(before, names=names) == of_copy(after, names=names)
    assert of_source(before, names=names) != of_copy(other, names=names)


@pytest.mark.parametrize("kind", ["FUNCTION", "VIEW", "RULE"])
def test_an_object_called_like_the_copy_keeps_its_name(kind: str) -> None:
    """Only what is said of the database itself may differ by the name."""
    names = ("shop", COPY_NAME)
    before = entry(1, kind, "shop", definition="ALTER DATABASE shop SET a TO 'b';")
    after = entry(
        1, kind, COPY_NAME, definition=f"ALTER DATABASE {COPY_NAME} SET a TO 'b';"
    )

    assert of_source(before, names=names) != of_copy(after, names=names)


def test_the_copys_name_in_other_texts_is_a_difference() -> None:
    """A function that names the copy does not come from the source."""
    made = entry(1, "FUNCTION", "f()", definition=f"SELECT '{COPY_NAME}'")
    (found,) = of_copy(made, names=("shop", COPY_NAME)).values()

    assert found[0].text == f"SELECT '{COPY_NAME}'"
