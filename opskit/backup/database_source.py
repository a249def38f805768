"""Which database is a source, and how it is to be dumped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from opskit.postgres.programs import Installation


@dataclass(frozen=True, kw_only=True)
class DatabaseSource:
    """Which database to back up, with which programs, and what to leave out.

    `streams` is how many dumps may run at once under the one snapshot.
    """

    name: str
    url: str = field(repr=False)
    installations: Sequence[Installation]
    exclude_tables: Sequence[str] = ()
    exclude_table_data: Sequence[str] = ()
    lock_wait: timedelta = timedelta(seconds=60)
    compression_level: int = 3
    streams: int = 2
