"""Sizes, ages and tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(size_bytes: float) -> str:
    """Return a size with a unit that keeps it short."""
    unit = 0
    # What would round to 1024.0 belongs to the next unit.
    while size_bytes >= 1023.95 and unit < len(_SIZE_UNITS) - 1:
        size_bytes /= 1024
        unit += 1
    return (
        f"{size_bytes:.0f} {_SIZE_UNITS[unit]}"
        if unit == 0
        else (f"{size_bytes:.1f} {_SIZE_UNITS[unit]}")
    )


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if minutes < 60:
        return f"{minutes} min {whole % 60} s"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


def moment(time: datetime) -> str:
    """Return a time in UTC, to the second."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose columns are as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in (head, *rows)
    ]
