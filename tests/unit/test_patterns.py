"""Table patterns: translated as psql and pg_dump translate them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.errors import ConfigurationError
from opskit.postgres.schema import pattern_regexes

_any = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
_names = st.text(st.one_of(_any, st.sampled_from('".*?|$\\[](A')), min_size=1)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _matches(regex: str | None, name: str) -> bool:
    assert regex is not None
    assert (regex[0], regex[-1]) == ("^", "$")
    return re.fullmatch(regex[1:-1], name, re.DOTALL) is not None


@pytest.mark.parametrize(
    ("pattern", "schema", "name"),
    [
        ("orders", None, "^(orders)$"),
        ("public.orders", "^(public)$", "^(orders)$"),
        ("Public.Orders", "^(public)$", "^(orders)$"),
        ('"Public"."Orders"', "^(Public)$", "^(Orders)$"),
        ("audit.*", "^(audit)$", "^(.*)$"),
        ("log_????", None, "^(log_....)$"),
        ("*.log*", "^(.*)$", "^(log.*)$"),
        ('"a.b"', None, r"^(a\.b)$"),
        ('"a*?"', None, r"^(a\*\?)$"),
        ('a"B"c', None, "^(aBc)$"),
        ('"say ""hi"""', None, '^(say "hi")$'),
        ("a$b", None, r"^(a\$b)$"),
        ('"a$b"', None, r"^(a\$b)$"),
        ("orders|items", None, "^(orders|items)$"),
        ("log[0-9]+", None, "^(log[0-9]+)$"),
        ('"log[0-9]+"', None, r"^(log\[0-9\]\+)$"),
        ('"a\\d"', None, r"^(a\\d)$"),
    ],
)
def test_patterns_become_regular_expressions(
    pattern: str, schema: str | None, name: str
) -> None:
    """Wildcards, quotes, dots, case: each as PostgreSQL documents it."""
    assert pattern_regexes(pattern) == (schema, name)


@pytest.mark.parametrize("pattern", ["a.b.c", "db.public.orders", "a..b", '"a".b.*'])
def test_more_than_schema_and_name_is_refused(pattern: str) -> None:
    """A pattern names a schema and a table, and nothing above them."""
    with pytest.raises(ConfigurationError) as refused:
        pattern_regexes(pattern)

    assert pattern in refused.value.message


@given(_names, _names, _names)
def test_a_quoted_name_means_itself_alone(schema: str, name: str, other: str) -> None:
    """In quotes every character stands for itself, so only the very name matches."""
    schema_regex, name_regex = pattern_regexes(f"{_quoted(schema)}.{_quoted(name)}")

    assert _matches(schema_regex, schema)
    assert _matches(name_regex, name)
    assert _matches(name_regex, other) == (name == other)


@given(st.from_regex(r"[a-z_][a-z0-9_$]*", fullmatch=True), _names)
def test_a_plain_name_means_itself_alone(name: str, other: str) -> None:
    """A name that needs no quotes matches itself, however it is written."""
    for written in (name, name.upper(), _quoted(name)):
        _schema, regex = pattern_regexes(written)

        assert _matches(regex, name)
        assert _matches(regex, other) == (name == other)


@pytest.mark.parametrize(
    ("pattern", "regex"),
    [
        # psql folds the letters of ASCII alone.
        ("ÄRGER", "^(Ärger)$"),
        # An array's brackets are no bracket expression, unlike others.
        ("a[]", r"^(a\[])$"),
    ],
)
def test_rare_patterns_are_read_as_pg_dump_reads_them(pattern: str, regex: str) -> None:
    """Where pg_dump leaves out a table, it must not be expected in the dump."""
    assert pattern_regexes(pattern) == (None, regex)
