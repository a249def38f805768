"""Whether rows run code of the source's roles: told from the archive's contents."""

from __future__ import annotations

import pytest

from opskit.restore.job import authors_of_code
from tests.unit.entries import entry

TABLE = "CREATE TABLE public.t (\n    i integer,\n    {}\n);\n"


@pytest.mark.parametrize(
    "line",
    [
        "CONSTRAINT c CHECK (public.f(i))",
        "CONSTRAINT c CHECK ((ts_rewrite('a'::tsquery, 'x'::text) IS NOT NULL))",
        "CONSTRAINT c CHECK ((i OPERATOR(public.=) 1))",
        'CONSTRAINT c CHECK (public."odd name"(i))',
        "CONSTRAINT c CHECK ((i > 0)),\n    CONSTRAINT d CHECK (pg_sleep(i))",
        "g integer GENERATED ALWAYS AS (public.f(i)) STORED",
    ],
)
def test_what_calls_anything_may_run_code(line: str) -> None:
    """Whoever wrote it, the owner of the table counts as well."""
    found = authors_of_code([entry(1, "TABLE", "t", definition=TABLE.format(line))], [])

    assert found == ["ops"]


@pytest.mark.parametrize(
    "line",
    [
        "v numeric(10,2) DEFAULT public.f()",
        "CONSTRAINT c CHECK ((i > 0))",
        "CONSTRAINT c CHECK (((s)::text = ANY ((ARRAY['f(x)'::character varying])::text[])))",
        "CONSTRAINT c CHECK ((length((s)::text) > 3)),\n    v character varying(20)",
        "g integer GENERATED ALWAYS AS ((i * 2)) STORED",
        "CONSTRAINT c CHECK ((s <> 'it''s public.f(1)'::text))",
    ],
)
def test_what_calls_nothing_runs_none(line: str) -> None:
    """Such tables are loaded as ever, though functions stand beside them."""
    entries = [
        entry(1, "TABLE", "t", definition=TABLE.format(line)),
        entry(2, "FUNCTION", "f()", definition="CREATE FUNCTION public.f() …"),
    ]

    assert authors_of_code(entries, []) == []


def test_code_of_superusers_is_trusted() -> None:
    """Where all of it is theirs; else those whose it is are named."""
    check = TABLE.format("CONSTRAINT c CHECK (public.f(i))")
    entries = [
        entry(1, "TABLE", "t", definition=check, owner="admin"),
        entry(2, "FUNCTION", "f(integer)", owner="mallory"),
    ]

    assert authors_of_code(entries, ["admin", "mallory"]) == []
    assert authors_of_code(entries, ["admin"]) == ["mallory"]


def test_a_cast_may_run_where_no_text_shows_it() -> None:
    """So any check may, and any partition by an expression, beside one."""
    check = TABLE.format("CONSTRAINT c CHECK (((e)::text <> 'x'::text))")
    entries = [entry(1, "TABLE", "t", definition=check)]

    assert authors_of_code(entries, []) == []
    assert authors_of_code([*entries, entry(2, "CAST", "e AS text")], []) == ["ops"]
