"""Sizes, ages and tables: short, and readable."""

from __future__ import annotations

import pytest

from opskit import checks
from opskit.tasks import output as text


@pytest.mark.parametrize(
    ("size_bytes", "written"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (1024**4, "1.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_sizes_have_the_unit_that_keeps_them_short(
    size_bytes: int, written: str
) -> None:
    """Sizes are told in the largest unit that they reach, TiB at most."""
    assert checks.size(size_bytes) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (26 * 3600 + 5 * 60, "26 h 5 min"),
        (48 * 3600 - 1, "47 h 59 min"),
        (48 * 3600, "2 d 0 h"),
        (400 * 86_400 + 3 * 3600, "400 d 3 h"),
    ],
)
def test_durations_are_told_in_their_two_largest_units(
    seconds: float, written: str
) -> None:
    """Seconds, minutes, hours up to two days, then days."""
    assert checks.duration(seconds) == written


@pytest.mark.parametrize(
    ("seconds", "written"), [(59.96, "1 min 0 s"), (119.7, "2 min 0 s")]
)
def test_durations_never_show_sixty_seconds(seconds: float, written: str) -> None:
    """Rounding up carries into the next unit."""
    assert checks.duration(seconds) == written


def test_sizes_never_show_a_thousand_and_twenty_four() -> None:
    """Rounding up carries into the next unit."""
    assert checks.size(1024**2 - 1) == "1.0 MiB"


def test_columns_are_as_wide_as_they_must_be() -> None:
    """Head and rows stand under each other; no line ends in spaces."""
    lines = text.table(["id", "size"], [["a", "1 B"], ["shop-1", ""], ["", "22"]])

    assert lines == [
        "id      size",
        "a       1 B",
        "shop-1",
        "        22",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    """Nothing to list is still a table."""
    assert text.table(["id", "size"], []) == ["id  size"]


def test_a_row_of_another_length_is_a_mistake() -> None:
    """A cell too few or too many is not passed over in silence."""
    with pytest.raises(ValueError, match="shorter"):
        text.table(["id", "size"], [["a"]])
