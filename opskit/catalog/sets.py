"""Sets: one that was read from its stores, and one that was merely listed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from opskit.catalog.manifest import Manifest
from opskit.catalog.naming import set_prefix
from opskit.catalog.proof import EvidenceName, Proof, best, combined, proof_of
from opskit.store import Store


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What it takes to list a set, to choose it, and to decide how long it stays."""

    backup_id: str
    source: str
    started_at: datetime
    snapshot_at: datetime
    finished_at: datetime
    size_bytes: int
    sudden_changes: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """The set's place in a store, with a slash at its end."""
        return set_prefix(self.source, self.started_at, self.backup_id)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A set as it lies in one store, with what lies beside it there."""

    store: Store
    evidence: tuple[EvidenceName, ...]
    is_pinned: bool = False


@dataclass(frozen=True, kw_only=True)
class _Copied:
    """`manifest_sha256` is of the manifest's own bytes: evidence names it."""

    manifest_sha256: str
    copies: tuple[Copy, ...]

    @property
    def stores(self) -> tuple[Store, ...]:
        """The stores that hold the set, in the order of the configuration."""
        return tuple(copy.store for copy in self.copies)

    @property
    def is_pinned(self) -> bool:
        """Whether a pin lies beside one of the copies."""
        return any(copy.is_pinned for copy in self.copies)

    @property
    def proof(self) -> Proof:
        """The strongest thing known of the set."""
        return combined(proof_of(copy.evidence) for copy in self.copies)

    @property
    def best_proof(self) -> Proof:
        """The proof of the best copy: whether the set can be relied on to come back."""
        return best(proof_of(copy.evidence) for copy in self.copies)


@dataclass(frozen=True, kw_only=True)
class BackupSet(_Copied):
    """One set: its manifest, where it lies, and the proof known of it.

    Manifest, signature and evidence were read from the stores in this run. Whatever
    acts on a set takes this one.
    """

    manifest: Manifest

    @cached_property
    def summary(self) -> Summary:
        """What the manifest says, in short."""
        return summary_of(self.manifest)


@dataclass(frozen=True, kw_only=True)
class ListedSet(_Copied):
    """A set of a listing, of which only the summary is known, maybe from a cache.

    It has no manifest, so that nothing can act on it: `Listing.find` and
    `Listing.newest` read the one that was chosen from its stores.
    """

    summary: Summary


KnownSet = BackupSet | ListedSet


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A manifest that cannot be used, and why."""

    store: str
    key: str
    reason: str


def summary_of(manifest: Manifest) -> Summary:
    """Return what a listing needs of a manifest."""
    return Summary(
        backup_id=manifest.backup_id,
        source=manifest.source,
        started_at=manifest.started_at,
        snapshot_at=manifest.snapshot_at,
        finished_at=manifest.finished_at,
        size_bytes=manifest.size_bytes,
        sudden_changes=manifest.sudden_changes,
    )
