"""The dump's commands: what is named in one stream is left out of the other."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.backup.stream import DatabaseSource, commands, usual_streams
from opskit.postgres import schema as postgres_schema
from opskit.postgres.snapshot import TableSizes

GIB = 1024**3


@pytest.mark.parametrize(
    ("processors", "streams"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (64, 4)]
)
def test_streams_where_nobody_has_said(processors: int, streams: int) -> None:
    """One where it keeps the machine busy already."""
    assert usual_streams(processors) == streams


def plan(tables: dict[tuple[str, str], int], **options: Any) -> dict[str, list[str]]:
    """Return the options of each command but those that all of them have."""
    expected = options.pop("expected", tables)
    options.setdefault("streams", 2)
    source = DatabaseSource(
        name="shop", url="postgresql:///shop", installations=(), **options
    )
    found = commands(
        source,
        ["pg_dump"],
        expected=expected,
        sizes=TableSizes(tables=tables, large_objects_bytes=0, relations=500),
    )
    common = set(found[0][1]) & set(found[-1][1]) if len(found) > 1 else set()
    return {role: [e for e in command if e not in common] for role, command in found}


def test_rows_dumped_apart_are_left_out_of_the_catch_all() -> None:
    """By the same pattern, which names that table alone."""
    found = plan({("public", "a"): 3 * GIB, ("public", 'B."c$'): 2 * GIB})

    assert found == {
        "dump": ['--exclude-table-data="public"."B.""c$"'],
        "rows-1": ["--section=data", "--strict-names", '--table="public"."B.""c$"'],
    }


def test_pg_dump_waits_longer_for_locks_than_we_do() -> None:
    """Whoever ends the wait must be the one who knows the holder of the lock."""
    found = plan({("public", "a"): GIB}, lock_wait=timedelta(seconds=2))

    (limit,) = [each for each in found["dump"] if "lock-wait" in each]
    assert int(limit.removeprefix("--lock-wait-timeout=")) >= 10_000


def test_exclusions_are_the_catch_alls() -> None:
    """The others name what they dump."""
    found = plan(
        {("public", "a"): 3 * GIB, ("public", "b"): 2 * GIB},
        exclude_tables=["old_*"],
        exclude_table_data=["log"],
    )

    assert found["dump"][:2] == ["--exclude-table=old_*", "--exclude-table-data=log"]
    assert not [each for each in found["rows-1"] if "exclude" in each]


def test_what_is_excluded_is_not_dumped_apart() -> None:
    """Nor a table of an extension: only what a dump must hold."""
    sizes = {("public", "a"): 3 * GIB, ("public", "b"): 2 * GIB, ("public", "c"): GIB}

    found = plan(sizes, expected={("public", "a"), ("public", "c")}, streams=3)

    assert [role for role in found if role != "dump"] == ["rows-1", "rows-2"]
    assert not [each for command in found.values() for each in command if '"b"' in each]


@pytest.mark.parametrize("name", ["größe", "line\nbreak", "tab\there"])
def test_names_that_an_argument_may_garble_stay_with_the_catch_all(name: str) -> None:
    """pg_dump reads its arguments in the database's own encoding."""
    found = plan({("public", name): 2 * GIB, ("public", "b"): 3 * GIB})

    assert found["rows-1"][2:] == ['--table="public"."b"']


def test_one_stream_is_one_plain_dump() -> None:
    """No option tells it from a pg_dump of everything."""
    found = plan({("public", "a"): 3 * GIB, ("public", "b"): 2 * GIB}, streams=1)

    (command,) = found.values()
    assert found.keys() == {"dump"}
    assert not [each for each in command if re.match("--(table|section|exclude)", each)]


_names = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1)


@given(_names, _names, _names)
def test_an_exact_pattern_names_that_table_alone(
    schema: str, name: str, other: str
) -> None:
    """By PostgreSQL's own rules, whatever stands in the name."""
    in_schema, named = postgres_schema.pattern_regexes(
        postgres_schema.exact_pattern(schema, name)
    )

    assert in_schema is not None
    assert re.fullmatch(in_schema, schema)
    assert re.fullmatch(named, name)
    assert (re.fullmatch(named, other) is not None) == (other == name)
