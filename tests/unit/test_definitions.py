"""Definitions: a difference passes only where any restore on this server shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opskit.checks import Check
from opskit.errors import DatabaseError
from opskit.postgres import client
from opskit.postgres.toc import Contents
from opskit.postgres.toc_entry import TocEntry
from opskit.restore import definitions
from opskit.restore.definition import CopyToDescribe
from tests.unit import archive_builder as build
from tests.unit.entries import contents, entry
from tests.unit.test_definition import described

TABLE = entry(1, "TABLE", "t", definition="CREATE TABLE public.t (id integer);\n")
VIEW = entry(2, "VIEW", "v", definition="CREATE VIEW public.v AS\n SELECT 1;\n")
REWRITTEN = replace(VIEW, definition="CREATE VIEW public.v AS\n SELECT (1);\n")
SKIPPED = [
    "ACL", "COMMENT", "SECURITY LABEL", "DEFAULT ACL", "DATABASE",
    "DATABASE PROPERTIES", "SUBSCRIPTION",
]  # fmt: skip

Compare = Callable[..., list[Check]]


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Return a function that compares entries; without a reference none may be asked."""

    def compare(
        archive: Iterable[TocEntry],
        copy: Iterable[TocEntry],
        reference: Iterable[TocEntry] | None = None,
        *,
        left_out: Iterable[int] = (),
        **changes: Any,
    ) -> list[Check]:
        def ask() -> Contents:
            assert reference is not None, "no reference was needed"
            return contents(*reference)

        def describe(_copy: CopyToDescribe) -> Contents:
            return contents(*copy)

        monkeypatch.setattr(definitions, "describe", describe)
        return definitions.compare_definitions(
            contents(*archive),
            described(**changes),
            left_out=frozenset(left_out),
            reference=ask,
        )

    return compare


def _failed(checks: Sequence[Check]) -> list[str]:
    assert checks[0].passed == all(each.passed for each in checks)
    return [each.name for each in checks if not each.passed]


def test_equal_definitions_pass(compare: Compare) -> None:
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
def test_a_lost_entry_is_told(compare: Compare, kind: str) -> None:
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
def test_an_entry_too_many_is_told(compare: Compare, kind: str) -> None:
    """What the archive does not hold has no place in the copy."""
    added = entry(3, kind, "o", schema="", definition="x")
    summary, check = compare([TABLE], [TABLE, added], [TABLE])

    assert not summary.passed
    assert (check.name, check.passed) == (f"definition of {kind} o", False)
    assert (check.expected, check.observed) == ("missing", "there")


@pytest.mark.parametrize("kind", ["VIEW", "COMMENT", "ACL", "SECURITY LABEL"])
def test_another_text_is_told_with_the_line_that_differs(
    compare: Compare, kind: str
) -> None:
    """The first line that the other side does not have is shown on each."""
    before = entry(3, kind, "v", definition="same\n  one\nsame too")
    after = replace(before, definition="same\n  other\nsame too")
    summary, check = compare([before], [after], [before])

    assert (summary.passed, check.passed) == (False, False)
    assert (check.expected, check.observed) == ("one", "other")


def test_a_long_line_is_cut(compare: Compare) -> None:
    """A body on one line does not flood the report."""
    before = entry(3, "VIEW", "v", definition="x" * 5000)
    _summary, check = compare([before], [replace(before, definition="y" * 5000)], [])

    assert (check.expected, check.observed) == ("x" * 160, "y" * 160)


@pytest.mark.parametrize(
    "kind", ["USER MAPPING", "SERVER", "SUBSCRIPTION", "FOREIGN TABLE"]
)
def test_texts_that_may_hold_a_password_are_not_shown(
    compare: Compare, kind: str
) -> None:
    """That they differ is said, what they say is not."""
    before = entry(3, kind, "s", definition="password 'hunter2'")
    checks = compare([before], [replace(before, definition="password 'x9'")], [before])

    assert _failed(checks) == ["definitions", f"definition of {kind} public.s"]
    assert "hunter2" not in str(checks)
    assert "x9" not in str(checks)


def test_what_any_restore_writes_otherwise_is_settled(compare: Compare) -> None:
    """The reference has the very same words, so they are the server's."""
    checks = compare([TABLE, VIEW], [TABLE, REWRITTEN], [TABLE, REWRITTEN])

    assert _failed(checks) == []
    assert len(checks) == 1
    assert checks[0].observed == "2 statements, 0 differ"
    assert checks[0].detail == (
        "1 are written in other words by this server, after any restore"
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
    compare: Compare, reference: list[TocEntry]
) -> None:
    """Only to the letter, under the same key and equally often, is a text settled."""
    checks = compare([VIEW], [REWRITTEN], reference)

    assert _failed(checks) == ["definitions", "definition of VIEW public.v"]


def test_one_that_is_settled_excuses_no_other(compare: Compare) -> None:
    """Each difference is asked of the reference by itself."""
    damaged = replace(TABLE, definition="CREATE TABLE public.t (id bigint);\n")
    checks = compare([TABLE, VIEW], [damaged, REWRITTEN], [TABLE, REWRITTEN])

    assert _failed(checks) == ["definitions", "definition of TABLE public.t"]
    assert checks[0].observed == "2 statements, 1 differ"


@pytest.mark.parametrize("kind", SKIPPED)
@pytest.mark.parametrize("there", [True, False])
def test_what_the_reference_does_not_run_is_never_settled(
    compare: Compare, kind: str, there: bool
) -> None:
    """Grants and comments are not in the reference, so its silence says nothing."""
    before = entry(3, kind, "TABLE t", definition="x")
    after = [replace(before, definition="y", owner="app")] if there else []
    checks = compare([before], after)  # a reference that was asked would be an error

    assert len(_failed(checks)) == 2


@pytest.mark.parametrize(
    "change",
    [{"owner": "app"}, {"tablespace": "fast"}, {"access_method": "columnar"}],
)
@pytest.mark.parametrize("text", [VIEW.definition, REWRITTEN.definition])
def test_another_owner_or_storage_is_never_settled(
    compare: Compare, change: Mapping[str, Any], text: str
) -> None:
    """Other words do not excuse another owner: the reference is not even asked."""
    after = replace(VIEW, definition=text, **change)

    assert _failed(compare([VIEW], [after])) == [
        "definitions",
        "definition of VIEW public.v",
    ]


@pytest.mark.parametrize(("number", "passed"), [(1, True), (0, False), (2, False)])
def test_an_entry_that_this_server_adds_is_settled_if_the_reference_has_it(
    compare: Compare, number: int, passed: bool
) -> None:
    """A newer server may write as two entries what was one; an added one is not that."""
    added = entry(9, "CONSTRAINT", "t t_id_not_null", definition="x")
    checks = compare([TABLE], [TABLE, added], [TABLE, *[added] * number])

    assert checks[0].passed is passed


def test_one_of_two_operators_may_not_be_lost(compare: Compare) -> None:
    """Where one key holds several, each counts."""
    one = entry(3, "OPERATOR", "+", definition="of numbers")
    other = entry(4, "OPERATOR", "+", definition="of texts")

    assert _failed(compare([one, other], [one], [one, other]))
    assert _failed(compare([one, other], [other, other], [one, other]))
    assert not _failed(compare([one, other], [other, one]))


def test_without_a_reference_differences_stand(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none can be made nothing is settled, and why is said."""

    def refused() -> Contents:
        raise DatabaseError("no space for it")

    monkeypatch.setattr(definitions, "describe", lambda _copy: contents(REWRITTEN))
    checks = definitions.compare_definitions(
        contents(VIEW), described(), left_out=frozenset(), reference=refused
    )

    assert _failed(checks) == ["definitions", "definition of VIEW public.v"]
    assert checks[0].detail == "no reference could be made: no space for it"


def test_what_was_left_out_is_not_expected(compare: Compare) -> None:
    """By its number alone: one of the same name in another schema is."""
    twin = replace(VIEW, dump_id=7, schema="sales")

    assert compare([TABLE, VIEW], [TABLE], left_out=[2])[0].passed
    assert _failed(compare([TABLE, VIEW, twin], [TABLE], [TABLE, VIEW], left_out=[7]))


def test_what_stands_in_for_a_lost_collation_is_not_compared(compare: Compare) -> None:
    """It cannot be equal; one that nothing was lost for is told."""
    lost = entry(8, "COLLATION", "german", definition="CREATE COLLATION x")
    stand_in = replace(lost, definition="CREATE COLLATION y", owner="app")
    other = replace(stand_in, name="other")

    assert compare([TABLE, lost], [TABLE, stand_in], left_out=[8])[0].passed
    assert _failed(compare([TABLE, lost], [TABLE, stand_in, other], [], left_out=[8]))
    assert _failed(compare([TABLE, lost], [TABLE, stand_in], [TABLE, lost]))


def test_an_archive_without_definitions_proves_nothing(compare: Compare) -> None:
    """Even if a reference of nothing had all that was found."""
    checks = compare([], [VIEW], [VIEW])

    assert (checks[0].passed, checks[0].expected) == (False, "0 statements")


def test_the_first_role_may_have_another_name(compare: Compare) -> None:
    """Owners are compared by the source's names."""
    before, after = replace(VIEW, owner="postgres"), replace(VIEW, owner="throwaway")

    assert compare([before], [after])[0].passed
    assert _failed(compare([after], [before]))
    assert _failed(compare([before], [after], first_roles=("postgres", "other")))


def test_many_differences_are_all_named(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound they come in one check, which fails too."""
    monkeypatch.setattr(definitions, "_CHECKS_SHOWN", 2)
    before = [entry(n, "VIEW", f"v{n}", definition="x") for n in range(5)]
    checks = compare(before, [], before)

    assert _failed(checks) == [
        "definitions",
        "definition of VIEW public.v0",
        "definition of VIEW public.v1",
        "more definitions",
    ]
    assert checks[0].observed == "0 statements, 5 differ"
    assert (checks[-1].observed, checks[-1].detail) == (
        "3 more differ",
        "VIEW public.v2, VIEW public.v3",
    )


def test_the_copy_is_described_by_pg_dump_without_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is not among the arguments, and the file is gone afterwards."""
    called: list[Sequence[str]] = []

    def run(
        arguments: Sequence[str], environment: Mapping[str, str], **_words: Any
    ) -> tuple[bytes, str]:
        called.append(arguments)
        (path,) = [each[7:] for each in arguments if each.startswith("--file=")]
        Path(path).write_bytes(build.head([build.encoding()]))
        assert environment["PGPASSWORD"] == "hunter2"
        return b"", ""

    monkeypatch.setattr(client, "run", run)
    found = definitions.describe(described(folder=tmp_path))

    assert [each.kind for each in found.entries] == ["ENCODING"]
    assert {"--schema-only", "--format=custom", "--compress=0"} < set(called[0])
    assert "hunter2" not in " ".join(called[0])
    assert list(tmp_path.iterdir()) == []
