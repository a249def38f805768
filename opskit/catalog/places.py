"""Where a set lies in a store, and the id that says so."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime

_ID = re.compile(r"(?P<source>.+)-(?P<time>\d{8}T\d{6}Z)-[0-9a-f]{4,}")
_ATTEMPT = re.compile(r"run-[0-9a-f]+/")


def new_backup_id(source: str, started_at: datetime) -> str:
    """Return an id for a set of this source begun at this time."""
    return f"{source}-{_id_time(started_at)}-{secrets.token_hex(3)}"


def backup_id_of(source: str, due: datetime) -> str:
    """Return the id of the one set of this source that is due at this time."""
    time = _id_time(due)
    digest = hashlib.sha256(f"{source} {time}".encode()).hexdigest()
    return f"{source}-{time}-{digest[:6]}"


def _id_time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def set_prefix(source: str, backup_id: str) -> str:
    """Return where a set lies in a store, with a slash at its end."""
    match = _ID.fullmatch(backup_id)
    time = match["time"] if match else ""
    return f"{source}/{time[:4]}-{time[4:6]}-{time[6:8]}/{backup_id}/"


def attempt_folder(run_id: str) -> str:
    """Return where, in a set's place, a run puts its objects of a set that is due."""
    return f"run-{run_id}/"


def attempt_in(name: str) -> str:
    """Return the folder of an attempt that a name inside a set begins with, or ""."""
    match = _ATTEMPT.match(name)
    return match[0] if match else ""


def is_backup_id(text: str) -> bool:
    """Return whether a text has the form of a backup id."""
    return _ID.fullmatch(text) is not None
