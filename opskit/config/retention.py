"""The settings of retention: which sets stay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import Field, model_validator

from opskit.config.section import Section
from opskit.config.types import Count, Duration

_NONE = timedelta(0)
_RULES = ("keep_last", "keep_within", "keep_daily", "keep_weekly", "keep_monthly")


class SourceRetention(Section):
    """The rules of one source, instead of the general ones; what is left out is 0."""

    keep_last: Count = Field(default=0, description="the newest N sets")
    keep_within: Duration = Field(
        default=_NONE, description="every set younger than this"
    )
    keep_daily: Count = Field(default=0, description="the newest set of each of N days")
    keep_weekly: Count = Field(default=0, description="the same for ISO weeks")
    keep_monthly: Count = Field(default=0, description="the same for months")
    min_keep: Count = Field(
        default=2,
        ge=1,
        description="never fewer good sets than this, whatever the rest says",
    )


class RetentionSettings(Section):
    """Which sets are kept: a set stays if any rule keeps it.

    The values shown are those of a section that names no `keep_*`; naming any of them
    sets the others to 0.
    """

    keep_last: Count = Field(default=7, description="the newest N sets")
    keep_within: Duration = Field(
        default=timedelta(days=30), description="every set younger than this"
    )
    keep_daily: Count = Field(
        default=30, description="the newest set of each of N days"
    )
    keep_weekly: Count = Field(default=8, description="the same for ISO weeks")
    keep_monthly: Count = Field(default=12, description="the same for months")
    min_keep: Count = Field(
        default=2,
        ge=1,
        description="never fewer good sets than this, whatever the rest says",
    )
    require_drill: bool = Field(
        default=False,
        description="delete a set only if a newer one has passed a drill",
    )
    max_drop: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="a set whose rows, in all or in one table, or whose size fell by a "
        "larger share than this, or that lacks a table, stops `prune` until somebody "
        "has confirmed it; 1: only a table that is gone does",
    )
    ignore_drop: list[str] = Field(
        default=[],
        description="tables, as `schema.name` with `*`, that may empty at any time, "
        "such as queues",
    )

    @model_validator(mode="before")
    @classmethod
    def _named_rules_alone(cls, given: Any) -> Any:
        if isinstance(given, dict) and any(rule in given for rule in _RULES):
            return dict.fromkeys(_RULES, 0) | {"keep_within": _NONE} | given
        return given
