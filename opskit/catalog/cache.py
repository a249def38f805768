"""What was seen of sets before: saves reading a manifest that has not changed since.

A file for each store, in the state folder. It is never the truth: an entry holds as
long as the listing shows the same objects in the set's place, and only what lists sets
asks for it. Whatever is wrong with the file, it is as if there were none.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from opskit import __version__, files
from opskit.catalog.proof import parse_evidence
from opskit.catalog.sets import Copy, ListedSet, Place, Summary, Unreadable
from opskit.catalog.trust import Trust
from opskit.log import logger
from opskit.store import Store

# Another one as soon as a manifest is refused that was not, or a summary says more.
_FORMAT = 4
# What reading a file raises that somebody or something has altered.
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    RecursionError,
)  # fmt: skip
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class _Entry(BaseModel):
    """What was read in a place: a set, or why it cannot be used."""

    seal: str
    refused: str = ""
    summary: Summary | None = None
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    evidence: tuple[str, ...] = ()
    is_pinned: bool = False
    faults: tuple[tuple[str, str], ...] = ()

    def known(self, store: Store, place: Place) -> ListedSet | Unreadable | None:
        """Return what the entry says, or None if it can be of no set in this place."""
        evidence = tuple(filter(None, map(parse_evidence, self.evidence)))
        if self.refused:
            return Unreadable(
                store=store.name, key=place.manifest_key, reason=self.refused
            )
        if (
            self.summary is None
            or self.summary.prefix != place.prefix
            or not self.sha256
            or len(evidence) != len(self.evidence)
        ):
            return None
        copy = Copy(
            store=store,
            evidence=evidence,
            is_pinned=self.is_pinned,
            faults=self.faults,
        )
        return ListedSet(
            summary=self.summary, manifest_sha256=self.sha256, copies=(copy,)
        )


class CatalogCache:
    """What was seen in one store; read when it is first asked, written by `save`.

    Args:
        folder: where the files lie; made if it is missing.
        store: what identifies this store: its name, its URL.
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

    def recall(
        self, store: Store, place: Place, trust: Trust
    ) -> ListedSet | Unreadable | None:
        """Return what was read in a place, unless something in it has changed."""
        document = self._loaded().get(place.prefix)
        if document is None:
            return None
        try:
            entry = _Entry.model_validate(document)
            if entry.seal != _seal(place, trust):
                return None
            return entry.known(store, place)
        except _DAMAGE:
            return None

    def remember(
        self, place: Place, trust: Trust, known: ListedSet | Unreadable
    ) -> None:
        """Keep what was read in a place, if its objects show when they change."""
        seal = _seal(place, trust)
        if not seal:
            return
        if isinstance(known, Unreadable):
            entry = _Entry(seal=seal, refused=known.reason)
        else:
            (copy,) = known.copies
            entry = _Entry(
                seal=seal,
                summary=known.summary,
                sha256=known.manifest_sha256,
                evidence=tuple(each.name() for each in copy.evidence),
                is_pinned=copy.is_pinned,
                faults=copy.faults,
            )
        self._loaded()[place.prefix] = entry.model_dump(mode="json")
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
    status = path.lstat()
    ours = status.st_uid == os.geteuid() and not stat.S_ISLNK(status.st_mode)
    return ours and not status.st_mode & _WRITABLE_BY_OTHERS


def _seal(place: Place, trust: Trust) -> str:
    """Return a digest of what lies in a place and who is trusted, "" if unknown."""
    if not all(each.etag for each in place.objects):
        return ""
    facts = [
        (each.key, each.size_bytes, each.modified_at.isoformat(), each.etag)
        for each in place.objects
    ]
    text = json.dumps([sorted(trust.keys), facts])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
