"""Comparison of contents: what is taken together, and what a total may not hide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from opskit.catalog.manifest import TableRecord
from opskit.checks import Check
from opskit.compare.contents import (
    RestoredCopy,
    _loaded_alone,
    _tables_compared,
    check_tables,
    units_of,
)
from opskit.compare.structure import compare_with_archive
from opskit.errors import DatabaseError, ServerFault
from opskit.postgres import content
from opskit.postgres.archive.digest import ContentDigest
from opskit.postgres.connect import Connection
from tests.unit import builders
from tests.unit.entries import entry

ROOT = ("public", "log")
OPEN = cast(Connection, None)  # nothing is asked of it

Observed = Mapping[str, tuple[int, int] | None]


def _table(name: str, rows: int = 0, digest: int = 0, **fields: Any) -> TableRecord:
    values = {"schema": "public", "rows": rows, "digest": f"{digest:032x}"}
    return TableRecord.model_validate(values | {"name": name} | fields)


def test_a_table_is_compared_by_itself() -> None:
    """Also one of the same name in another schema, or with the same contents."""
    tables = [_table("a"), _table("b"), _table("a", schema="sales")]

    assert units_of(tables) == [[each] for each in tables]
    assert units_of([]) == []


def test_partitions_below_one_root_are_taken_together() -> None:
    """Wherever they stand in the list; those below another root are apart."""
    one, other = _table("p1", via_root=ROOT), _table("p2", via_root=ROOT)
    elsewhere = _table("q", via_root=("sales", "log"))
    plain, itself = _table("plain"), _table("p3")

    assert units_of([one, plain, elsewhere, other, itself]) == [
        [one, other],
        [plain],
        [elsewhere],
        [itself],
    ]


@pytest.mark.parametrize(
    ("listed", "kept", "read", "passed", "detail"),
    [
        (2, 2, 2, True, "2 rows by the manifest"),
        (2, 1, 1, True, "1 rows by the manifest"),
        (2, 2, 1, False, "2 rows by the manifest"),
        (2, 0, 0, False, "every table was left out: that proves nothing"),
        (0, 0, 0, True, "the manifest lists no table: the source had none"),
    ],
)
def test_tables_that_were_compared_are_counted(
    listed: int, kept: int, read: int, passed: bool, detail: str
) -> None:
    """None at all is right only where the source had none."""
    tables = [_table(f"t{number}", 1) for number in range(listed)]
    copy = cast(
        RestoredCopy,
        SimpleNamespace(manifest=SimpleNamespace(tables=tables), tables=tables[:kept]),
    )
    check = _tables_compared(copy, read)

    assert (check.name, check.passed) == ("tables compared", passed)
    assert check.detail == detail


def _checked(
    monkeypatch: pytest.MonkeyPatch,
    tables: list[TableRecord],
    observed: Observed,
) -> tuple[bool, str, bool]:
    def table_digest(
        _connection: Connection, _schema: str, name: str, *_rest: object, **_how: object
    ) -> ContentDigest:
        found = observed[name]
        if found is None:
            raise DatabaseError(f"no table {name}")
        return ContentDigest(rows=found[0], digest=f"{found[1]:032x}")

    monkeypatch.setattr(content, "table_digest", table_digest)
    check, was_read = check_tables(OPEN, tables)
    return bool(check.passed), f"{check.name}: {check.detail}", was_read


@pytest.mark.parametrize(
    ("observed", "passed", "detail"),
    [
        ((2, 7), True, ""),
        ((2, 8), False, "the same number of rows, but other values"),
        ((3, 7), False, "+1 rows"),
        ((1, 9), False, "-1 rows"),
        ((0, 0), False, "-2 rows"),
    ],
)
def test_rows_and_digest_must_both_be_equal(
    monkeypatch: pytest.MonkeyPatch,
    observed: tuple[int, int],
    passed: bool,
    detail: str,
) -> None:
    """What differs is said."""
    found = _checked(monkeypatch, [_table("t", 2, 7)], {"t": observed})

    assert found == (passed, f"table public.t: {detail}", True)


@pytest.mark.parametrize(
    ("observed", "passed"),
    [
        ({"p1": (1, 5), "p2": (2, 6)}, True),
        ({"p1": (3, 11), "p2": (0, 0)}, True),
        ({"p1": (1, 5), "p2": (2, 7)}, False),
        ({"p1": (1, 5), "p2": (1, 6)}, False),
        ({"p1": (1, 5), "p2": (0, 0)}, False),
    ],
)
def test_partitions_may_share_their_rows_out_anew(
    monkeypatch: pytest.MonkeyPatch, observed: Observed, passed: bool
) -> None:
    """As long as none is lost, added or changed among them."""
    parts = [_table("p1", 1, 5, via_root=ROOT), _table("p2", 2, 6, via_root=ROOT)]
    found = _checked(monkeypatch, parts, observed)

    assert found[0] is passed
    assert found[1].startswith("partitions below public.log: ")


def test_a_partition_that_cannot_be_read_fails_them_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None of them counts as read, even if the others hold all rows."""
    parts = [_table("p1", 1, 5, via_root=ROOT), _table("p2", via_root=ROOT)]
    found = _checked(monkeypatch, parts, {"p1": (1, 5), "p2": None})

    assert found == (False, "partitions below public.log: no table p2", False)


def test_a_server_that_is_gone_says_nothing_of_the_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That is an error, and no difference."""

    def lost(*_arguments: object, **_named: object) -> ContentDigest:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(content, "table_digest", lost)
    with pytest.raises(ServerFault, match="server closed the connection"):
        check_tables(OPEN, [_table("t")])


@pytest.mark.parametrize(
    ("inserted", "fields", "passed"),
    [
        ({}, {}, True),  # a server that does not count
        ({("public", "t"): 2}, {}, True),
        ({("public", "t"): 3}, {}, False),
        ({("sales", "t"): 3}, {}, True),
        ({("public", "t"): 3}, {"extension": "postgis"}, True),
    ],
)
def test_rows_that_are_not_of_the_dump_are_noticed_though_they_are_gone(
    inserted: Mapping[tuple[str, str], int], fields: dict[str, Any], passed: bool
) -> None:
    """It is a matter of time that they are; an extension may fill its own tables."""
    tables = [_table("t", 2, **fields)]
    found = _loaded_alone(Check(name="table public.t", passed=True), tables, inserted)

    assert found.passed is passed
    assert ("1 more rows" in found.detail) is not passed


def _archive_checks(**changes: Any) -> dict[str, Check]:
    entries = [
        entry(1, "TABLE DATA", "t"),
        entry(2, "SEQUENCE SET", "s"),
        entry(3, "SEQUENCE", "s"),
        entry(4, "TABLE", "empty"),
    ]
    checks = compare_with_archive(builders.manifest(**changes), entries)
    return {each.name: each for each in checks}


def test_the_manifest_lists_what_the_archive_holds() -> None:
    """Tables with data and sequences that are set, each by its name."""
    found = _archive_checks()

    assert [*found] == ["tables of the archive", "sequences of the archive"]
    assert all(each.passed for each in found.values())


@pytest.mark.parametrize("field", ["tables", "sequences"])
@pytest.mark.parametrize("change", ["emptied", "other", "one more"])
def test_a_manifest_that_lists_something_else_is_noticed(
    field: str, change: str
) -> None:
    """What it does not list, nothing else would compare."""
    document = json.loads(builders.manifest().to_json())
    (own,) = document[field]
    other = own | {"name": "u"}
    records = {"emptied": [], "other": [other], "one more": [own, other]}[change]
    found = _archive_checks(**{field: records})

    assert [each.name for each in found.values() if not each.passed] == [
        f"{field} of the archive"
    ]


def test_names_with_a_dot_are_told_apart() -> None:
    """A table that the manifest does not list is none that another name reads like."""
    document = json.loads(builders.manifest().to_json())
    (own,) = document["tables"]
    listed = own | {"schema": "a", "name": "b.c"}
    manifest = builders.manifest(tables=[listed], sequences=[])
    held = replace(entry(1, "TABLE DATA", "c"), schema="a.b")
    tables, _sequences = compare_with_archive(manifest, [held])

    assert tables.failed
