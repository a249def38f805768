"""Other values for a value, by its type: some of them the server will accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

_NEXT_NUMBER: LiteralString = "(SELECT max(o.{n}) + 1 FROM ONLY {t} AS o)"
_NEXT_DAY: LiteralString = "(SELECT max(o.{n}) + interval '1 day' FROM ONLY {t} AS o)"
# {c} is the column of the row, {n} its bare name, {t} the table, {y} the type. Which
# of them the server accepts, and which really differ, shows when they are tried.
_BY_CATEGORY: dict[str, tuple[LiteralString, ...]] = {
    "A": ("array_append({c}, NULL)", "{c}[2:]", "'{{}}'"),
    "B": ("NOT {c}", "true"),
    "D": (
        "{c} + interval '1 day'",
        "{c} - interval '1 day'",
        "{c} + interval '1 second'",
    ),
    "E": (
        "(SELECT e FROM unnest(enum_range({c})) AS e WHERE e <> {c} LIMIT 1)",
        "enum_first({c})",
    ),
    "G": ("{c} + point(1, 1)",),
    "I": ("{c} + 1", "{c} - 1"),
    "N": ("{c} + 1", "{c} - 1", _NEXT_NUMBER, "0"),
    "R": ("'empty'", "'{{}}'"),
    "S": (
        "{c} || 'x'",
        "left({c}, -1)",
        "overlay({c} placing 'x' from 1 for 1)",
        "overlay({c} placing 'y' from 1 for 1)",
        "''",
    ),
    "T": ("{c} + interval '1 second'", "{c} - interval '1 second'"),
    "V": ("~ {c}",),
}
_BY_TYPE: dict[str, tuple[LiteralString, ...]] = {
    "bytea": (r"{c} || '\x00'",),
    "char": ("'x'", "'y'"),
    "json": ("json_build_array({c})",),
    "jsonb": ("jsonb_build_array({c})",),
    "macaddr": ("~ {c}",),
    "macaddr8": ("~ {c}",),
    "money": ("{c} + '1'::money", "{c} - '1'::money"),
    "oid": ("({c}::bigint + 1)::oid",),
    "pg_lsn": ("{c} + 1", "{c} - 1"),
    "tsquery": ("!! {c}",),
    "tsvector": ("{c} || 'opskit'::tsvector",),
    "uuid": ("overlay({c}::text placing 'ffff' from 1 for 4)",
             "overlay({c}::text placing '0000' from 1 for 4)"),
    "xml": ("xmlconcat({c}, {c})",),
}  # fmt: skip
_OF_ANOTHER_ROW: LiteralString = (
    "(SELECT o.{n} FROM ONLY {t} AS o "
    "WHERE ROW(o.{n})::text IS DISTINCT FROM ROW({c})::text LIMIT 1)"
)

# Something for a column that must hold something, as text in the type's own form.
_FIRST_BY_CATEGORY: dict[str, LiteralString] = {
    "A": "'{{}}'",
    "B": "false",
    "D": "'2000-01-01 00:00:00+00'",
    "E": "enum_first(NULL::{y})",
    "G": "'(0,0)'",
    "I": "'127.0.0.1'",
    "N": "0",
    "R": "'empty'",
    "S": "'x'",
    "T": "'1 second'",
    "V": "B'0'",
}
_FIRST_BY_TYPE: dict[str, LiteralString] = {
    "bytea": r"'\x00'",
    "json": "'{{}}'",
    "jsonb": "'{{}}'",
    "time": "'00:00:00'",
    "timetz": "'00:00:00+00'",
    "tsvector": "'x'",
    "uuid": "'00000000-0000-0000-0000-000000000000'",
    "xml": "'<x/>'",
}


@dataclass(frozen=True)
class Column:
    """A column whose values can be written; `type_text` is its type as SQL."""

    name: str
    type_text: str
    base_type: str
    category: str
    is_nullable: bool
    is_unique: bool
    is_writable: bool

    @property
    def others(self) -> Sequence[LiteralString]:
        """Expressions of {c}, {t} and {n} that may give another value."""
        own = _BY_TYPE.get(self.base_type) or _BY_CATEGORY.get(self.category, ())
        return (*own, _OF_ANOTHER_ROW)

    @property
    def unused(self) -> LiteralString:
        """An expression that likely gives a value that no row has yet."""
        if self.category == "N" and self.base_type not in _BY_TYPE:
            return _NEXT_NUMBER
        return _NEXT_DAY if self.category == "D" else self.others[0]

    @property
    def first(self) -> LiteralString:
        """An expression for the first row of a table, which has none to vary."""
        by_category = _FIRST_BY_CATEGORY.get(self.category, "NULL")
        given = _FIRST_BY_TYPE.get(self.base_type) or by_category
        return "NULL" if self.is_nullable else given
