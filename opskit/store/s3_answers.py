"""What a server's answers say of objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from opskit.store.base import ObjectInfo


def files(found: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
    """Leave out what consoles make as folders: empty objects with a slash behind."""
    return (each for each in found if not each.key.endswith("/") and each.key)


def info_of(key: str, head: dict[str, Any]) -> ObjectInfo:
    """Return what HEAD says of an object."""
    return ObjectInfo(
        key=key,
        size_bytes=head["ContentLength"],
        modified_at=whole_seconds(head["LastModified"]),
        etag=etag_of(head),
    )


def etag_of(answer: dict[str, Any]) -> str:
    """Return an ETag without quotes, however it is told."""
    return str(answer.get("ETag", "")).strip('"')  # rclone lists it without quotes


def whole_seconds(moment: datetime) -> datetime:
    """Return a time as HEAD tells it: listings know fractions."""
    return moment.astimezone(UTC).replace(microsecond=0)
