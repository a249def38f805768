"""On paper: which part becomes the limit on a machine that is not at hand. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_MB_A_TERABYTE = 1_000_000
_MINUTE = 60


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of the way.

    Args:
        name: what it does.
        mb_per_second: what one of it manages, in megabytes of the unpacked dump.
        cores: how many processors one of it keeps busy, by measurement.
        at_once: how many run beside each other for one stream; 0 if all streams
            share a single one, as they do a disk.
    """

    name: str
    mb_per_second: float
    cores: float
    at_once: int

    def together(self, *, streams: int) -> float:
        """Return what all of them manage if nothing else is in their way."""
        return self.mb_per_second * (self.at_once * streams or 1)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The slowest part of a way, and how long a terabyte takes because of it."""

    name: str
    mb_per_second: float

    @property
    def minutes_a_terabyte(self) -> float:
        """How long it takes."""
        return _MB_A_TERABYTE / self.mb_per_second / _MINUTE


def limit(stages: Sequence[Stage], *, cores: int, streams: int) -> Limit:
    """Return what bounds the stages, which all run at the same time.

    Either one stage, or the processors that all of them share.
    """
    slowest = min(stages, key=lambda each: each.together(streams=streams))
    single = Limit(name=slowest.name, mb_per_second=slowest.together(streams=streams))
    seconds_a_mb = sum(each.cores / each.mb_per_second for each in stages)
    busy = cores / seconds_a_mb if seconds_a_mb else math.inf
    shared = Limit(name="all processors busy", mb_per_second=busy)
    return min(single, shared, key=lambda each: each.mb_per_second)
