"""Inputs of runbooks: each type takes its own values and no others."""

from __future__ import annotations

import pytest

from opskit.errors import UsageError
from opskit.runbook.inputs import KINDS, Input, check_value, parse

GOOD = {
    "name": ["shop", "shop-2.old", "größe", "_x"],
    "backup": ["latest", "shop-20261130T090000Z-3f2a", "shop-2026"],
    "url": ["https://shop.example/x?y=1", "postgresql://ops@db/shop", "file:///var/x"],
    "path": ["/srv/shop", "/srv/a b", '/srv/it\'s "so" $(id)'],
    "number": ["0", "12", "1.5"],
    "time": ["2026-11-30T09:00:00Z", "2026-11-30T09:00:00.5+01:00"],
    "text": ['it\'s $(id) `id` "so" \\', "two words", "-x"],
}
BAD = {
    "name": ["-x", ".", "a b", "a/b", "a;b", "$(id)"],
    "backup": ["-x", "a b", "../x"],
    "url": ["shop", "/srv", "http://a b", "x://"],
    "path": ["srv/shop", "~/x", "-x"],
    "number": ["-1", "1e3", "one", "1.", "٣"],
    "time": ["2026-11-30", "2026-11-30T09:00:00", "2026-13-30T09:00:00Z", "now"],
    "text": ["\ta"],
}


def test_every_type_is_tried():
    """The tables above leave none out."""
    assert GOOD.keys() == BAD.keys() == KINDS.keys()


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, each) for kind in GOOD for each in GOOD[kind]]
)
def test_a_value_of_the_type_is_taken_as_it_is(kind, value):
    """Nothing is quoted, expanded or changed."""
    assert check_value(Input(name="x", kind=kind, about=""), value) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (kind, each)
        for kind in BAD
        for each in [*BAD[kind], "", " ", "a\nb", "/a\0", "/\x1b"]
    ],
)
def test_another_value_is_refused(kind, value):
    """The error names the input, its type and what it is."""
    with pytest.raises(
        UsageError,
        match="amount must be a"
        if kind not in ("backup", "text")
        else "amount must be",
    ) as caught:
        check_value(Input(name="amount", kind=kind, about="what is lost"), value)

    assert "what is lost" in caught.value.hint


KNOWN = (
    Input(name="table", kind="name", about="", default="orders"),
    Input(name="folder", kind="path", about=""),
)


def test_values_may_hold_equals_signs():
    """Only the first one parts name and value."""
    assert parse(KNOWN, ["folder=/a=b"]) == {"folder": "/a=b"}


@pytest.mark.parametrize(
    "given", [["folder"], ["path=/x"], ["=x"], ["table=a", "table=b"]]
)
def test_what_is_no_input_is_refused(given):
    """A typing error must not become a default."""
    with pytest.raises(UsageError):
        parse(KNOWN, given)
