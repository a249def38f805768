"""The types of settings that need more than a type: durations, counts, names."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field

_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_duration(value: object) -> object:
    """Turn `90s`, `15m`, `26h`, `30d` or `8w` into a timedelta.

    Raises:
        ValueError: a text of another form.
    """
    if isinstance(value, timedelta):
        return value
    found = isinstance(value, str) and re.fullmatch(
        r"(\d{1,5})([smhdw])", value.strip()
    )
    if not found:
        raise ValueError(
            "a duration is a whole number and a unit: 90s, 15m, 26h, 30d, 8w"
        )
    return timedelta(seconds=int(found[1]) * _DURATION_UNITS[found[2]])


def format_duration(value: timedelta) -> str:
    """Turn a timedelta into the largest unit that it is a whole number of."""
    seconds = int(value.total_seconds())
    for unit, unit_seconds in reversed(_DURATION_UNITS.items()):
        if seconds and seconds % unit_seconds == 0:
            return f"{seconds // unit_seconds}{unit}"
    return f"{seconds}s"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), Field(ge=timedelta(0))]


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a whole number is needed")
    return value


Count = Annotated[int, BeforeValidator(_no_truth), Field(ge=0)]
CompressionLevel = Annotated[
    int,
    BeforeValidator(_no_truth),
    Field(
        ge=1,
        le=12,
        description="of zstd: 1 takes the least time, higher ones more time and, as "
        "a rule, less room",
    ),
]
# In small letters, because the environment, which may override any key, knows no case.
SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
