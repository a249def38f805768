"""Medians, ratios, targets and growth: pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

Rounds = dict[str, list[float]]  # seconds of each round, by contender


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a contender may take at most of the time of another."""

    what: str
    contender: str
    against: str
    at_most: float


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A target and what was measured; the extremes are those of single rounds."""

    target: Target
    value: float
    lowest: float
    highest: float

    @property
    def reached(self) -> bool:
        """Whether it is at most what it may be."""
        return self.value <= self.target.at_most


TARGETS = (
    Target(
        what="backup to a local store, against the pipeline of bare tools",
        contender="opskit",
        against="bare",
        at_most=1.10,
    ),
    Target(
        what="the same, encrypted",
        contender="opskit-encrypted",
        against="bare",
        at_most=1.25,
    ),
    Target(
        what="backup, against plain `pg_dump -Fc`",
        contender="opskit",
        against="pg_dump-Fc",
        at_most=0.50,
    ),
    Target(
        what="backup, against restic's first backup of the same stream",
        contender="opskit",
        against="restic",
        at_most=0.65,
    ),
    Target(
        what="backup to S3, against `pg_dump`, `zstd`, `rclone rcat`",
        contender="opskit-s3",
        against="rclone",
        at_most=1.10,
    ),
    Target(
        what="backup, against the floor: `COPY` of every table to nowhere",
        contender="opskit",
        against="copy-floor",
        at_most=1.25,
    ),
    Target(
        what="whole drill, against `createdb` and `pg_restore -j`",
        contender="opskit-drill",
        against="pg_restore",
        at_most=1.15,
    ),
)


def ratios(rounds: Rounds, targets: Sequence[Target] = TARGETS) -> list[Ratio]:
    """Return the ratio of each target whose two sides were both measured.

    The value is the ratio of the medians. Contenders take turns, so the ratio of one
    round is that of two neighbours in time: its extremes tell the noise.
    """
    found = []
    for target in targets:
        ours, theirs = rounds.get(target.contender), rounds.get(target.against)
        if not ours or not theirs:
            continue
        single = [a / b for a, b in zip(ours, theirs, strict=False)]
        found.append(
            Ratio(
                target=target,
                value=median(ours) / median(theirs),
                lowest=min(single),
                highest=max(single),
            )
        )
    return found


def growth_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return k of the curve `seconds = c * size**k` that fits best.

    Above 1, time grows faster than what it is spent on; a constant part draws it
    below 1, so look at the last step alone as well.

    Raises:
        ValueError: fewer than two different sizes, or one that is not positive.
    """
    if len(set(sizes)) < 2 or min(*sizes, *seconds) <= 0:
        raise ValueError("a curve needs two different sizes, all above 0")
    xs, ys = [math.log(each) for each in sizes], [math.log(each) for each in seconds]
    mean_x, mean_y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    over = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return over / math.fsum((x - mean_x) ** 2 for x in xs)


def last_step_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the exponent of the last two points, the largest ones."""
    pairs = sorted(zip(sizes, seconds, strict=True))[-2:]
    return growth_exponent([size for size, _ in pairs], [time for _, time in pairs])
