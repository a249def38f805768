"""Which database is a source, and how it is to be dumped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from opskit.postgres.servers.programs import Installation

_STREAMS_MAX = 4


def usual_streams(processors: int) -> int:
    """Return how many dumps at once a machine is good for where nobody has said.

    One keeps two processors busy with its server process, pg_dump, digests and zstd;
    and the digests of all streams share one processor, which a few of them fill.
    """
    return max(1, min(processors // 2, _STREAMS_MAX))


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
    streams: int = 1
