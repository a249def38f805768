"""Definitions: a difference passes only where any restore on this server shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from opskit.checks import Check
from opskit.postgres.archive.entry import TocEntry
from tests.unit.copies import REWRITTEN, TABLE, VIEW, compare, failed
from tests.unit.entries import entry

SKIPPED = [
    "ACL", "COMMENT", "SECURITY LABEL", "DEFAULT ACL", "DATABASE",
    "DATABASE PROPERTIES", "SUBSCRIPTION",
]  # fmt: skip


def test_equal_definitions_pass() -> None:
    """They are counted, and no reference is made for them."""
    found = compare([TABLE, VIEW], [VIEW, TABLE])

    assert found == [
        Check(
            name="definitions",
            passed=True,
            expected="2 statements",
            observed="2 statements, 0 differ",
        )
    ]


@pytest.mark.parametrize("kind", ["TABLE", "TRIGGER", "ROW SECURITY", *SKIPPED])
def test_a_lost_entry_is_told(kind: str) -> None:
    """Whatever it is, a comment as much as a table, its loss is a failed check."""
    lost = entry(3, kind, "TABLE t", definition="x")
    summary, check = compare([TABLE, lost], [TABLE], [TABLE, lost])

    assert not summary.passed
    assert summary.observed == "1 statements, 1 differ"
    assert check == Check(
        name=f"definition of {kind} public.TABLE t",
        passed=False,
        expected="there",
        observed="missing",
    )


@pytest.mark.parametrize("kind", ["TABLE", "TRIGGER", "ROW SECURITY", *SKIPPED])
def test_an_entry_too_many_is_told(kind: str) -> None:
    """What the archive does not hold has no place in the copy."""
    added = entry(3, kind, "o", schema="", definition="x")
    summary, check = compare([TABLE], [TABLE, added], [TABLE])

    assert not summary.passed
    assert (check.name, check.passed) == (f"definition of {kind} o", False)
    assert (check.expected, check.observed) == ("missing", "there")


def test_what_any_restore_writes_otherwise_is_settled() -> None:
    """The reference has the very same words, so they are the server's."""
    checks = compare([TABLE, VIEW], [TABLE, REWRITTEN], [TABLE, REWRITTEN])

    assert failed(checks) == []
    assert len(checks) == 1
    assert checks[0].observed == "2 statements, 0 differ"
    assert checks[0].detail == (
        "1 are written in other words by this server, after any restore: VIEW public.v"
    )


@pytest.mark.parametrize(
    "reference",
    [
        [VIEW],
        [],
        [replace(VIEW, definition=REWRITTEN.definition + " ")],
        [REWRITTEN, REWRITTEN],
        [replace(REWRITTEN, schema="sales")],
        [replace(REWRITTEN, kind="TABLE")],
    ],
    ids=["as before", "none", "a blank more", "twice", "schema", "kind"],
)
def test_words_that_the_reference_does_not_have_are_told(
    reference: list[TocEntry],
) -> None:
    """Only to the letter, under the same key and equally often, is a text settled."""
    checks = compare([VIEW], [REWRITTEN], reference)

    assert failed(checks) == ["definitions", "definition of VIEW public.v"]


def test_one_that_is_settled_excuses_no_other() -> None:
    """Each difference is asked of the reference by itself."""
    damaged = replace(TABLE, definition="CREATE TABLE public.t (id bigint);\n")
    checks = compare([TABLE, VIEW], [damaged, REWRITTEN], [TABLE, REWRITTEN])

    assert failed(checks) == ["definitions", "definition of TABLE public.t"]
    assert checks[0].observed == "2 statements, 1 differ"


@pytest.mark.parametrize("kind", SKIPPED)
@pytest.mark.parametrize("there", [True, False])
def test_what_the_reference_does_not_run_is_never_settled(
    kind: str, there: bool
) -> None:
    """Grants and comments are not in the reference, so its silence says nothing."""
    before = entry(3, kind, "TABLE t", definition="x")
    after = [replace(before, definition="y", owner="app")] if there else []
    checks = compare([before], after)  # a reference that was asked would be an error

    assert len(failed(checks)) == 2


@pytest.mark.parametrize(
    "change",
    [{"owner": "app"}, {"tablespace": "fast"}, {"access_method": "columnar"}],
)
@pytest.mark.parametrize("text", [VIEW.definition, REWRITTEN.definition])
def test_another_owner_or_storage_is_never_settled(
    change: Mapping[str, Any], text: str
) -> None:
    """Other words do not excuse another owner: the reference is not even asked."""
    after = replace(VIEW, definition=text, **change)

    assert failed(compare([VIEW], [after])) == [
        "definitions",
        "definition of VIEW public.v",
    ]


@pytest.mark.parametrize(("number", "passed"), [(1, True), (0, False), (2, False)])
def test_an_entry_that_this_server_adds_is_settled_if_the_reference_has_it(
    number: int, passed: bool
) -> None:
    """A newer server may write as two entries what was one; an added one is not that."""
    added = entry(9, "CONSTRAINT", "t t_id_not_null", definition="x")
    checks = compare([TABLE], [TABLE, added], [TABLE, *[added] * number])

    assert checks[0].passed is passed


def test_one_of_two_operators_may_not_be_lost() -> None:
    """Where one key holds several, each counts."""
    one = entry(3, "OPERATOR", "+", definition="of numbers")
    other = entry(4, "OPERATOR", "+", definition="of texts")

    assert failed(compare([one, other], [one], [one, other]))
    assert failed(compare([one, other], [other, other], [one, other]))
    assert not failed(compare([one, other], [other, one]))


def test_what_was_left_out_is_not_expected() -> None:
    """By its number alone: one of the same name in another schema is."""
    twin = replace(VIEW, dump_id=7, schema="sales")

    assert compare([TABLE, VIEW], [TABLE], left_out=[2])[0].passed
    assert failed(compare([TABLE, VIEW, twin], [TABLE], [TABLE, VIEW], left_out=[7]))


def test_what_stands_in_for_a_lost_collation_is_not_compared() -> None:
    """It cannot be equal; one that nothing was lost for is told."""
    lost = entry(8, "COLLATION", "german", definition="CREATE COLLATION x")
    stand_in = replace(lost, definition="CREATE COLLATION y", owner="app")
    other = replace(stand_in, name="other")

    assert compare([TABLE, lost], [TABLE, stand_in], left_out=[8])[0].passed
    assert failed(compare([TABLE, lost], [TABLE, stand_in, other], [], left_out=[8]))
    assert failed(compare([TABLE, lost], [TABLE, stand_in], [TABLE, lost]))


def test_what_is_left_out_excuses_nothing_of_the_same_name() -> None:
    """Of two operators one may be left out; the other is compared."""
    kept = entry(3, "OPERATOR", "+", definition="of numbers")
    lost = entry(4, "OPERATOR", "+", definition="of texts")

    assert compare([kept, lost], [kept], left_out=[4])[0].passed
    assert failed(compare([kept, lost], [], [kept], left_out=[4]))
    assert failed(compare([kept, lost], [lost], [kept], left_out=[4]))


@pytest.mark.parametrize("kind", ["VIEW", "OPERATOR", "TABLE DATA X", "EXTENSION"])
def test_what_was_left_out_but_is_there_is_told(kind: str) -> None:
    """Only a collation has a stand-in; anything else in its place came from nowhere."""
    lost = entry(8, kind, "x", definition="x")

    assert compare([TABLE, lost], [TABLE], left_out=[8])[0].passed
    assert failed(compare([TABLE, lost], [TABLE, lost], [TABLE], left_out=[8]))


WRITTEN_INTO_OTHERS = ["CHECK CONSTRAINT", "CONSTRAINT", "DEFAULT", "RULE"]


@pytest.mark.parametrize("kind", WRITTEN_INTO_OTHERS)
@pytest.mark.parametrize(("has_it", "passed"), [(False, True), (True, False)])
def test_what_this_server_writes_into_the_table_is_settled(
    kind: str, has_it: bool, passed: bool
) -> None:
    """If any restore writes it so: the reference has no such entry either."""
    own = entry(9, kind, "t c", definition="x")
    reference = [TABLE, own] if has_it else [TABLE]

    assert compare([TABLE, own], [TABLE], reference)[0].passed is passed


@pytest.mark.parametrize(
    "kind", ["TABLE", "VIEW", "FUNCTION", "TRIGGER", "FK CONSTRAINT", "POLICY", "INDEX"]
)
def test_what_stands_by_itself_may_not_be_lost(kind: str) -> None:
    """A reference that cannot be made right does not excuse it: it is not asked."""
    lost = entry(9, kind, "t c", definition="x")
    checks = compare([TABLE, lost], [TABLE])

    assert failed(checks) == ["definitions", f"definition of {kind} public.t c"]


@pytest.mark.parametrize("rewritten", [True, False])
def test_operators_may_not_swap_their_owners(rewritten: bool) -> None:
    """Both are there with the right texts, but each is somebody else's."""
    one = entry(3, "OPERATOR", "+", definition="a", owner="ann")
    other = entry(4, "OPERATOR", "+", definition="b", owner="bob")
    text = "a (in other words)" if rewritten else "a"
    swapped = [
        replace(one, definition=text, owner="bob"),
        replace(other, owner="ann"),
    ]

    assert failed(compare([one, other], swapped, swapped))


def test_operators_may_be_written_in_other_words() -> None:
    """As long as each stays its owner's."""
    one = entry(3, "OPERATOR", "+", definition="a", owner="ann")
    other = entry(4, "OPERATOR", "+", definition="b", owner="bob")
    after = [replace(one, definition="a (in other words)"), other]

    assert compare([one, other], after, after)[0].passed


def test_an_archive_without_definitions_proves_nothing() -> None:
    """Even if a reference of nothing had all that was found."""
    checks = compare([], [VIEW], [VIEW])

    assert (checks[0].passed, checks[0].expected) == (False, "0 statements")


def test_the_first_role_may_have_another_name() -> None:
    """Then what is said of built-in objects is in that name."""
    before = entry(3, "COMMENT", "SCHEMA pg_catalog", definition="x", owner="postgres")
    after = replace(before, owner="throwaway")

    assert compare([before], [after])[0].passed
    assert failed(compare([after], [before]))
    assert failed(compare([before], [after], first_roles=("postgres", "other")))


def _shown(kind: str, before: str, after: str) -> tuple[str, str]:
    """Return what is said of an entry that has another text in the copy."""
    one = entry(3, kind, "TABLE t", definition=before)
    other = entry(3, kind, "TABLE t", definition=after)
    _summary, check = compare([TABLE, one], [TABLE, other], [TABLE, one])
    return check.expected, check.observed


def test_each_statement_that_differs_is_shown() -> None:
    """Not only the first line, which may be there on both sides."""
    shown = _shown("FUNCTION", "GRANT a;\nGRANT b;\nGRANT c;", "GRANT a;\nGRANT d;")

    assert shown == ("GRANT b; / GRANT c;", "GRANT d;")


def test_a_statement_that_is_missing_is_shown() -> None:
    """Also one that is there once and should be twice."""
    assert _shown("FUNCTION", "GRANT a;\nGRANT b;", "GRANT a;") == (
        "GRANT b;",
        "nothing in their place",
    )
    assert _shown("FUNCTION", "GRANT a;\nGRANT a;", "GRANT a;") == (
        "GRANT a;",
        "nothing in their place",
    )


def test_another_order_is_named_as_such() -> None:
    """There is no line to show."""
    shown = _shown("FUNCTION", "GRANT a;\nGRANT b;", "GRANT b;\nGRANT a;")

    assert set(shown) == {"the same lines in another order"}


def test_a_long_difference_is_cut() -> None:
    """It says how much more there is."""
    before = "\n".join(f"GRANT {number};" for number in range(30))
    expected, _observed = _shown("FUNCTION", before, "GRANT x;")

    assert expected.endswith("GRANT 19; / 10 more lines")


def test_values_that_may_be_secrets_are_not_shown() -> None:
    """What is missing is, by its name."""
    before = "OPTIONS (password 'it''s canary');\nSET app.key TO 'canary';"

    assert _shown("SERVER", before, "OPTIONS (password 'other');") == (
        "SET app.key TO '***';",
        "nothing in their place",
    )
    assert _shown("SERVER", before, before.replace("it''s", "other")) == (
        "a value that may be a secret",
        "another value",
    )
