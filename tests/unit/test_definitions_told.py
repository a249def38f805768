"""Definitions: how the copy is described, and how a difference is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opskit.compare import definitions
from opskit.errors import ArchiveError, DatabaseError
from opskit.postgres import client
from opskit.postgres.archive.toc import Contents
from tests.unit import archive_builder as build
from tests.unit.copies import REWRITTEN, VIEW, compare, described, failed
from tests.unit.entries import contents, entry


@pytest.mark.parametrize("kind", ["VIEW", "COMMENT", "ACL", "SECURITY LABEL"])
def test_another_text_is_told_with_the_line_that_differs(kind: str) -> None:
    """The first line that the other side does not have is shown on each."""
    before = entry(3, kind, "v", definition="same\n  one\nsame too")
    after = replace(before, definition="same\n  other\nsame too")
    summary, check = compare([before], [after], [before])

    assert (summary.passed, check.passed) == (False, False)
    assert (check.expected, check.observed) == ("one", "other")


def test_a_long_line_is_cut() -> None:
    """A body on one line does not flood the report."""
    before = entry(3, "VIEW", "v", definition="x" * 5000)
    _summary, check = compare([before], [replace(before, definition="y" * 5000)], [])

    assert (check.expected, check.observed) == ("x" * 160, "y" * 160)


@pytest.mark.parametrize(
    "kind",
    ["USER MAPPING", "SERVER", "SUBSCRIPTION", "FOREIGN TABLE", "DATABASE PROPERTIES"],
)
def test_texts_that_may_hold_a_password_are_not_shown(kind: str) -> None:
    """That they differ is said, what they say is not."""
    before = entry(3, kind, "s", definition="password 'hunter2'")
    checks = compare([before], [replace(before, definition="password 'x9'")], [before])

    assert failed(checks) == ["definitions", f"definition of {kind} public.s"]
    assert "hunter2" not in str(checks)
    assert "x9" not in str(checks)


def test_what_is_settled_is_named_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All are counted, so that nobody takes the list for the whole."""
    monkeypatch.setattr(definitions, "_SETTLED_SHOWN", 2)
    before = [entry(n, "VIEW", f"v{n}", definition="x") for n in (3, 1, 2)]
    after = [replace(each, definition="y") for each in before]
    checks = compare(before, after, after)

    assert failed(checks) == []
    assert checks[0].detail == (
        "3 are written in other words by this server, after any restore: "
        "VIEW public.v1, VIEW public.v2"
    )


def test_a_description_that_is_not_understood_is_no_fault_of_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came from this machine's pg_dump; the file is gone all the same."""

    def run(arguments: Sequence[str], *_rest: object, **_words: Any) -> None:
        (path,) = [each[7:] for each in arguments if each.startswith("--file=")]
        Path(path).write_bytes(b"no archive")

    monkeypatch.setattr(client, "run", run)

    with pytest.raises(DatabaseError, match="pg_dump says of the copy") as refused:
        definitions.describe(described(folder=tmp_path))

    assert isinstance(refused.value.__cause__, ArchiveError)
    assert list(tmp_path.iterdir()) == []


def test_without_a_reference_differences_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be made nothing is settled, and why is said."""

    def refused() -> Contents:
        raise DatabaseError("no space for it")

    monkeypatch.setattr(definitions, "describe", lambda _copy: contents(REWRITTEN))
    checks = definitions.compare_definitions(
        contents(VIEW), described(), left_out=frozenset(), reference=refused
    )

    assert failed(checks) == ["definitions", "definition of VIEW public.v"]
    assert checks[0].detail == "no reference could be made: no space for it"


def test_many_differences_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound they come in one check, which fails too."""
    monkeypatch.setattr(definitions, "_CHECKS_SHOWN", 2)
    before = [entry(n, "VIEW", f"v{n}", definition="x") for n in range(5)]
    checks = compare(before, [], before)

    assert failed(checks) == [
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
