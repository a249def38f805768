"""What was seen of sets before: saves reading a manifest that has not changed since.

A file for each store, in the state folder. It is never the truth: an entry holds as
long as the listing shows the same objects in the set's place, and only what lists sets
asks for it. Whatever is wrong with the file, it is as if there were none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from opskit import __version__, files
from opskit.catalog.proof import EvidenceName, parse_evidence
from opskit.catalog.sets import Place, Refusal, Summary
from opskit.catalog.trust import Trust
from opskit.log import logger

# Another one as soon as a manifest is refused that was not, or a summary says more.
_FORMAT = 3
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What reading a file raises that somebody or something has altered.
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    RecursionError,
)  # fmt: skip
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a set's manifest, signature and evidence said when they were read."""

    summary: Summary
    manifest_sha256: str
    evidence: tuple[EvidenceName, ...]
    is_pinned: bool = False
    amiss: tuple[tuple[str, str], ...] = ()


class CatalogCache:
    """What was seen in one store; read when it is first asked, written by `save`.

    Args:
        folder: where the files lie; made if it is missing.
        store: what tells this store from every other: its name, its URL.
    """

    def __init__(self, folder: Path, *, store: Iterable[str]) -> None:
        # Another version may understand a manifest in another way.
        self._head = {
            "format": _FORMAT,
            "version": __version__,
            "store": [*store],
        }
        digest = hashlib.sha256(json.dumps(self._head["store"]).encode()).hexdigest()
        self._path = folder / f"{digest[:32]}.json"
        self._entries: dict[str, Any] | None = None
        self._is_changed = False

    def recall(self, place: Place, trust: Trust) -> Seen | Refusal | None:
        """Return what was seen in a place, unless something in it is otherwise now."""
        entry = self._loaded().get(place.prefix)
        if entry is None:
            return None
        try:
            if entry["seal"] != _seal(place, trust):
                return None
            return _seen(entry, place)
        except _DAMAGE:
            return None

    def remember(self, place: Place, trust: Trust, seen: Seen | Refusal) -> None:
        """Keep what was seen in a place, if its objects tell when they change."""
        seal = _seal(place, trust)
        if seal:
            self._loaded()[place.prefix] = {"seal": seal} | _entry(seen)
            self._is_changed = True

    def drop_others(self, prefix: str, places: Iterable[Place]) -> None:
        """Forget what begins with a prefix and is not among the places."""
        there = {each.prefix for each in places}
        entries = self._loaded()
        for each in [*entries]:
            if each.startswith(prefix) and each not in there:
                del entries[each]
                self._is_changed = True

    def save(self) -> None:
        """Write what has changed, if this folder is ours to write to.

        Of two runs that end at once the later one's file stays: the other's news are
        read from the store again.
        """
        if not self._is_changed:
            return
        self._is_changed = False
        text = json.dumps(self._head | {"sets": self._entries}, separators=(",", ":"))
        try:
            if self._may_write():
                files.write_atomically(self._path, [text.encode()])
        except OSError as error:
            logger().debug("the catalog is not cached", reason=error.strerror)

    def _may_write(self) -> bool:
        """Make the folder, and say whether it is ours; a file that is not ours goes."""
        folder = self._path.parent
        with suppress(FileNotFoundError):
            if folder.parent.stat().st_uid != os.geteuid():
                return False  # root must leave nothing in the way of its owner
        files.make_directories(folder)
        if not _is_ours(folder):
            return False
        with suppress(FileNotFoundError):
            if not _is_ours(self._path):
                self._path.unlink()
        return True

    def _loaded(self) -> dict[str, Any]:
        if self._entries is None:
            self._entries = self._read()
        return self._entries

    def _read(self) -> dict[str, Any]:
        try:
            if not (_is_ours(self._path.parent) and _is_ours(self._path)):
                return {}
            document = json.loads(self._path.read_bytes())
            sets = document.pop("sets")
            if document == self._head and isinstance(sets, dict):
                return sets
        except _DAMAGE:
            pass
        return {}


def _is_ours(path: Path) -> bool:
    """Return whether nobody else could have written there."""
    found = path.lstat()
    ours = found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode)
    return ours and not found.st_mode & _WRITABLE_BY_OTHERS


def _seal(place: Place, trust: Trust) -> str:
    """Return a digest of what lies in a place and who is trusted, "" if unknown."""
    if not all(each.etag for each in place.objects):
        return ""
    facts = [
        (each.key, each.size_bytes, each.modified_at.isoformat(), each.etag)
        for each in place.objects
    ]
    told = json.dumps([sorted(trust.keys), facts])
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()


def _entry(seen: Seen | Refusal) -> dict[str, Any]:
    if isinstance(seen, Refusal):
        return {"refused": seen.reason}
    summary = seen.summary
    return {
        "sha256": seen.manifest_sha256,
        "backup_id": summary.backup_id,
        "source": summary.source,
        "started_at": summary.started_at.isoformat(),
        "snapshot_at": summary.snapshot_at.isoformat(),
        "finished_at": summary.finished_at.isoformat(),
        "size_bytes": summary.size_bytes,
        "sudden_changes": summary.sudden_changes,
        "evidence": [each.name() for each in seen.evidence],
        "is_pinned": seen.is_pinned,
        "amiss": seen.amiss,
    }


def _seen(entry: dict[str, Any], place: Place) -> Seen | Refusal:
    """Return what an entry says.

    Raises:
        ValueError: it says what no manifest in this place could.
        KeyError, TypeError, OverflowError: it is not of this form.
    """
    if "refused" in entry:
        return Refusal(reason=_text(entry["refused"]))
    summary = Summary(
        backup_id=_text(entry["backup_id"]),
        source=_text(entry["source"]),
        started_at=_time(entry["started_at"]),
        snapshot_at=_time(entry["snapshot_at"]),
        finished_at=_time(entry["finished_at"]),
        size_bytes=int(entry["size_bytes"]),
        sudden_changes=tuple(map(_text, entry["sudden_changes"])),
    )
    evidence = tuple(map(_evidence, entry["evidence"]))
    if summary.prefix != place.prefix or not _SHA256.fullmatch(entry["sha256"]):
        raise ValueError("of another place")
    return Seen(
        summary=summary,
        manifest_sha256=entry["sha256"],
        evidence=evidence,
        is_pinned=entry["is_pinned"] is True,
        amiss=tuple((_text(key), _text(reason)) for key, reason in entry["amiss"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _time(value: str) -> datetime:
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("no time zone")
    return time


def _evidence(value: str) -> EvidenceName:
    name = parse_evidence(value)
    if name is None:
        raise ValueError("no evidence")
    return name
