"""Sudden change: what is gone or far less is named, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.catalog.differences import newly_excluded, sudden_changes
from opskit.catalog.documents import CONFIRMATION_FOLDER, is_mark, mark_name
from opskit.catalog.manifest import Manifest
from tests.unit.builders import folder_manifest, manifest


def _manifest(rows: dict[str, int], **fields: Any) -> Manifest:
    """Return a manifest with these tables, `schema.table`, and their rows."""
    tables = []
    for each, count in rows.items():
        schema, _, name = each.partition(".")
        tables.append(
            {"schema": schema, "name": name, "rows": count, "digest": "0" * 32}
        )
    return manifest(tables=tables, **fields)


def _changes(
    older: Manifest,
    newer: Manifest,
    *,
    max_drop: float = 0.5,
    ignore: Sequence[str] = (),
) -> list[str]:
    return sudden_changes(older, newer, max_drop=max_drop, ignore=ignore)


def test_a_table_that_is_gone_is_named_whatever_it_held() -> None:
    """Also an empty one, and whatever share is allowed."""
    older = _manifest({"public.a": 42_000, "public.b": 0, "public.c": 42_000})
    newer = _manifest({"public.c": 42_000})

    assert _changes(older, newer, max_drop=1) == [
        "table public.a is gone (it held 42000 rows)",
        "table public.b is gone (it held 0 rows)",
    ]


def test_rows_that_fell_are_named_for_the_table_and_in_all() -> None:
    """A table that lost most of its rows, and what that is in the whole."""
    older = _manifest({"public.items": 1000, "public.other": 100})
    newer = _manifest({"public.items": 12, "public.other": 100})

    assert _changes(older, newer) == [
        "table public.items fell from 1000 to 12 rows",
        "rows in all fell from 1100 to 112",
    ]


@pytest.mark.parametrize(
    ("before", "after", "max_drop", "told"),
    [
        (1000, 500, 0.5, False),
        (1000, 499, 0.5, True),
        (100, 49, 0.5, True),
        (99, 0, 0.5, False),
        (1000, 999, 0, True),
        (1000, 1000, 0, False),
        (1000, 0, 1, False),
        (100, 71, 0.29, False),  # 0.29 * 100 is less than 29 in floating point
        (100, 70, 0.29, True),
        (1000, 5000, 0, False),
    ],
)
def test_a_table_may_fall_by_the_share_and_no_further(
    before: int, after: int, max_drop: float, told: bool
) -> None:
    """The share is exact, and what was small before does not count."""
    found = _changes(
        _manifest({"a.t": before}), _manifest({"a.t": after}), max_drop=max_drop
    )

    assert bool(found) == told


def test_many_small_tables_count_together() -> None:
    """None held a hundred rows, all together did."""
    older = _manifest({f"public.t{number}": 50 for number in range(10)})
    newer = _manifest({f"public.t{number}": 1 for number in range(10)})

    assert _changes(older, newer) == ["rows in all fell from 500 to 10"]


@pytest.mark.parametrize(("before", "told"), [(65_536, True), (65_535, False)])
def test_a_dump_that_shrank_is_named(before: int, told: bool) -> None:
    """Its size counts where it was not small before."""
    found = _changes(
        _manifest({}, dump_bytes=before), _manifest({}, dump_bytes=before // 3)
    )

    assert found == [f"the dump shrank from {before} to 21845 bytes"] * told


def test_large_objects_that_fell_are_named() -> None:
    """They belong to no table."""
    many = {"count": 100, "size_bytes": 1, "digest": "0" * 32}

    assert _changes(_manifest({}, large_objects=many), _manifest({})) == [
        "large objects fell from 100 to 0"
    ]


def test_tables_that_come_and_go_can_be_ignored() -> None:
    """What a pattern matches counts neither alone nor in any sum."""
    older = _manifest({"log.day1": 9000, "public.a": 100}, dump_bytes=10**6)
    newer = _manifest({"log.day2": 5, "public.a": 100}, dump_bytes=10)

    assert _changes(older, newer, ignore=["log.*"]) == []
    assert _changes(older, newer, ignore=["log.day?"]) == []
    assert _changes(older, newer, ignore=["*.a"]) == [
        "table log.day1 is gone (it held 9000 rows)",
        "rows in all fell from 9000 to 5",
        "the dump shrank from 1000000 to 10 bytes",
    ]


def test_new_rows_of_an_ignored_table_hide_no_loss() -> None:
    """The sum is one of the tables that count, on both sides."""
    older = _manifest({f"public.t{number}": 50 for number in range(10)})
    rows = {f"public.t{number}": 1 for number in range(10)}
    newer = _manifest({**rows, "log.day": 10_000})

    assert _changes(older, newer, ignore=["log.*"]) == [
        "rows in all fell from 500 to 10"
    ]


@pytest.mark.parametrize("field", ["exclude_tables", "exclude_table_data"])
@pytest.mark.parametrize(
    "pattern", ["log.d*", "*.day", "day", '"log"."day"', "LOG.DAY"]
)
def test_what_is_left_out_on_purpose_is_told_apart(field: str, pattern: str) -> None:
    """A new exclusion explains that a table, its rows and its bytes are not there."""
    older = _manifest({"log.day": 9000, "public.a": 1}, dump_bytes=10**6)
    excluding: dict[str, Any] = {field: (pattern,)}
    newer = _manifest({"public.a": 1}, dump_bytes=10, **excluding)

    assert _changes(older, newer) == []
    assert newly_excluded(older, newer) == [
        f"table log.day is left out now ({pattern}); it held 9000 rows"
    ]


@pytest.mark.parametrize("pattern", ["day", "log.day"])
def test_an_exclusion_that_was_there_before_excuses_nothing(pattern: str) -> None:
    """If the pattern did not keep the table out then, it is not why it is gone now."""
    older = _manifest({"log.day": 5}, exclude_tables=(pattern,))
    newer = _manifest({}, exclude_tables=(pattern,))

    assert _changes(older, newer) == ["table log.day is gone (it held 5 rows)"]
    assert newly_excluded(older, newer) == []


@pytest.mark.parametrize("pattern", ["other.day", "days", "a.b.c", "(", "[z-a]"])
def test_an_exclusion_of_something_else_excuses_nothing(pattern: str) -> None:
    """Nor does a pattern that nobody can read."""
    newer = _manifest({}, exclude_table_data=(pattern,))

    assert _changes(_manifest({"log.day": 5}), newer) == [
        "table log.day is gone (it held 5 rows)"
    ]


def test_a_table_that_is_there_is_not_left_out() -> None:
    """A pattern without a schema may mean another table of that name."""
    older = _manifest({"log.day": 1000})
    newer = _manifest({"log.day": 1}, exclude_tables=("day",))

    assert _changes(older, newer)[0] == "table log.day fell from 1000 to 1 rows"
    assert newly_excluded(older, newer) == []


_tables = st.dictionaries(
    st.sampled_from([f"public.t{number}" for number in range(6)]),
    st.integers(min_value=0, max_value=1000),
)


@given(_tables, st.floats(min_value=0, max_value=1))
def test_a_set_has_not_changed_from_itself(
    rows: dict[str, int], max_drop: float
) -> None:
    """Nothing is told of two sets that hold the same."""
    assert _changes(_manifest(rows), _manifest(rows), max_drop=max_drop) == []


@given(_tables, _tables, st.floats(min_value=0, max_value=1))
def test_a_larger_share_tells_no_more(
    before: dict[str, int], after: dict[str, int], max_drop: float
) -> None:
    """What is told under a lax limit is told under a strict one."""
    older, newer = _manifest(before), _manifest(after)
    lax = _changes(older, newer, max_drop=max_drop)

    assert set(lax) <= set(_changes(older, newer, max_drop=max_drop / 2))


def test_a_confirmation_is_known_by_its_name() -> None:
    """The time in it is that of UTC."""
    new_york = timezone(timedelta(hours=-5))
    time = datetime(2026, 3, 8, 22, tzinfo=new_york)
    name = mark_name(CONFIRMATION_FOLDER, at=time, run_id="abc123")

    assert name == "confirmed/20260309T030000Z-abc123.json"
    assert is_mark(CONFIRMATION_FOLDER, name)


@pytest.mark.parametrize(
    "name",
    [
        "confirmed/",
        "pinned/20260309T030000Z-abc123.json",
        "confirmed/20260309T030000Z.json",
        "evidence/20260309T030000Z-abc123.json",
        "confirmed/20260309T030000Z-abc123.json.sig",
        "x/confirmed/20260309T030000Z-abc123.json",
    ],
)
def test_other_names_are_no_confirmation(name: str) -> None:
    """What merely lies in the folder says nothing."""
    assert not is_mark(CONFIRMATION_FOLDER, name)


def _folder(*sizes: int) -> Manifest:
    """Return the manifest of a folder with files of these sizes."""
    files = [
        {
            "path": f"{number}",
            "type": "file",
            "mode": 0o600,
            "uid": 0,
            "gid": 0,
            "mtime_ns": 0,
            "size_bytes": size,
            "sha256": "0" * 64,
        }
        for number, size in enumerate(sizes)
    ]
    return folder_manifest(files=files)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([10] * 20, [10] * 10, []),
        ([10] * 20, [10] * 9, ["files, folders and links fell from 20 to 9"]),
        ([10] * 9, [], []),
        ([100_000], [50_000], []),
        ([100_000], [1], ["the files' size fell from 100000 to 1 bytes"]),
        ([10_000], [], []),
    ],
)
def test_a_folder_that_empties_is_told(
    before: list[int], after: list[int], told: list[str]
) -> None:
    """Its number of entries and its size count; single files come and go."""
    assert _changes(_folder(*before), _folder(*after)) == told
