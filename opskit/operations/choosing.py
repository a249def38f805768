"""Which backup set is meant: by its ID, as the latest, or as the newest at a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from opskit.errors import UsageError

if TYPE_CHECKING:
    from opskit.catalog.sets import BackupSet
    from opskit.operations.run import Run

BACKUP_HELP = "its ID, the beginning of it, or latest"
AT_HELP = (
    "the newest set whose snapshot was taken at this time or before, "
    "as 2026-01-31T03:00:00Z, '2026-01-31 03:00' or 2026-01-31 (its first moment); "
    "in UTC unless it ends with an offset such as +02:00"
)
_BEFORE_ZONE = re.compile(r" (?=[+-]\d\d:?\d\d$)| ?(utc|z)$", re.IGNORECASE)


def choose(run: Run, *, backup: str = "", at: str = "", source: str = "") -> BackupSet:
    """Return the set that is meant, read from its stores.

    Raises:
        UsageError: neither or both of an ID and a time are given, there is no such set,
            or several are meant.
    """
    if bool(backup) == bool(at):
        raise UsageError(
            "--backup and --at name two sets" if at else "--backup or --at is needed",
            hint="Give one of them; `inv backups` lists the sets.",
        )
    if backup:
        return run.listing().find(backup, source=source or None)
    time = parse_time(at)
    found = run.listing(source or None)
    return found.newest(source or found.only_source(), at=time)


def parse_time(text: str) -> datetime:
    """Return a time of RFC 3339 or a shorter form; without a zone it is in UTC.

    Raises:
        UsageError: it is no time.
    """
    plain = _BEFORE_ZONE.sub(lambda zone: "+00:00" if zone[1] else "", text.strip())
    try:
        time = datetime.fromisoformat(plain)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text} is no time", hint="Write it as 2026-01-31T03:00:00Z."
        ) from None
