"""What a set is called, and where it and its records lie in a store."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
PIN_FOLDER = "pinned/"
# Roles of the dumps of a database: of everything else, and of rows alone (numbered).
CATCH_ALL = "dump"
ROWS = "rows-"
_PIN = re.compile(r"pinned/\d{8}T\d{6}Z-[0-9a-f]+\.json")
_ID = re.compile(r"(?P<source>.+)-(?P<time>\d{8}T\d{6}Z)-[0-9a-f]{4,}")


def new_backup_id(source: str, started_at: datetime) -> str:
    """Return an id for a set of this source begun at this time."""
    return (
        f"{source}-{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    )


def set_prefix(source: str, started_at: datetime, backup_id: str) -> str:
    """Return where a set lies in a store, with a slash at its end."""
    return f"{source}/{started_at.astimezone(UTC):%Y-%m-%d}/{backup_id}/"


def is_backup_id(text: str) -> bool:
    """Return whether a text has the form of a backup id."""
    return _ID.fullmatch(text) is not None


def is_pin(name: str) -> bool:
    """Return whether a name inside a set is that of a pin."""
    return _PIN.fullmatch(name) is not None
