"""Archive: everything behind one release in one file, with a list of digests."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from opskit import files
from opskit.catalog.documents import REPORTS_FOLDER, signature_key
from opskit.catalog.manifest import MANIFEST_NAME
from opskit.catalog.sets import BackupSet
from opskit.crypto import signatures
from opskit.errors import ObjectNotFound, OpskitError, StoreError, UsageError
from opskit.ledger import LedgerEntry
from opskit.operations import keys
from opskit.operations.history import RELEASE, ROLLBACK
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run
from opskit.operations.steps import STEP
from opskit.store import Store
from opskit.store.base import read_whole

_BYTES_MAX = 256 * 1024 * 1024
_LATEST = "latest"
_DIGESTS, _MISSING, _LEDGER = "SHA256SUMS", "MISSING", "ledger.jsonl"


@dataclass(frozen=True, kw_only=True)
class Archived:
    """An archive: what of, where it lies, what is in it, and what could not be had."""

    release_id: str
    version: str
    path: Path
    sha256: str
    digests: Mapping[str, tuple[int, str]]
    missing: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {
            "release_id": self.release_id,
            "version": self.version,
            "archive": str(self.path),
            "sha256": self.sha256,
            "files": [
                {"name": name, "size_bytes": size_bytes, "sha256": digest}
                for name, (size_bytes, digest) in self.digests.items()
            ],
            "missing": list(self.missing),
        }


def archive(run: Run, release: str) -> Outcome[Archived]:
    """Make one archive of everything behind a release or a rollback."""
    with run.recorded("evidence") as record:
        # In this order: another run may add a line in between.
        lines, entries = run.ledger.lines(), run.ledger.entries()
        release_id = _chosen(entries, release)
        own = [each for each in entries if _is_of(each, release_id)]
        made = _Archive(run, release_id, own)
        made.gather(zip(lines, entries, strict=False))
        content = _packed(f"evidence-{release_id}", made.contents, made.ended_at)
        path = run.reports / f"evidence-{release_id}.tar"
        files.write_atomically(path, [content])
        record.result = Archived(
            release_id=release_id,
            version=made.version,
            path=path,
            sha256=hashlib.sha256(content).hexdigest(),
            digests={name: _digest(each) for name, each in made.contents.items()},
            missing=tuple(made.missing),
        )
    return record.outcome


def _is_of(entry: LedgerEntry, release_id: str) -> bool:
    """Return whether a record is of a release, or of a rollback that took it back."""
    details: Mapping[str, Any] = entry.details
    if entry.operation not in (STEP, RELEASE, ROLLBACK):
        return False
    return release_id in (details.get("release"), *details.get("takes_back", ()))


def _chosen(entries: Iterable[LedgerEntry], wanted: str) -> str:
    # One that was refused before its first step has no id, and nothing behind it.
    known = [
        str(each.details.get("release", ""))
        for each in entries
        if each.operation in (STEP, RELEASE, ROLLBACK)
    ]
    if wanted == _LATEST:
        if known and not known[-1]:
            raise UsageError(
                "the latest release was refused before its first step: there is no "
                "evidence of it",
                hint="`inv releases` lists those before it.",
            )
        wanted = known[-1] if known else wanted
    chosen = {each for each in known if wanted and each.startswith(wanted)}
    if len(chosen) != 1:
        raise UsageError(
            f"{'no' if not chosen else 'more than one'} release is called {wanted}",
            hint="`inv releases` lists them.",
        )
    return chosen.pop()


@dataclass
class _Archive:
    """What is behind a release, as far as it was gathered: contents by their names."""

    run: Run
    release_id: str
    own: Sequence[LedgerEntry]
    contents: dict[str, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def version(self) -> str:
        return str(self.own[0].details.get("version", ""))

    @property
    def ended_at(self) -> datetime:
        return datetime.fromisoformat(self.own[-1].time)

    def gather(self, ledger: Iterable[tuple[bytes, LedgerEntry]]) -> None:
        """Gather everything; the list of digests comes last."""
        runs = {each.run_id for each in self.own}
        of_runs = [(line, entry) for line, entry in ledger if entry.run_id in runs]
        records = [entry for _line, entry in of_runs]
        self.contents[_LEDGER] = b"".join(line + b"\n" for line, _entry in of_runs)
        for name in _named(records, "report"):
            self._gather_report(name)
        for backup_id in _named(records, "backup_id", "restore_point"):
            self._gather_set(backup_id)
        if self.missing:
            self.contents[_MISSING] = "".join(f"{e}\n" for e in self.missing).encode()
        lines_of_digests = (
            f"{_digest(content)[1]}  {name}\n"
            for name, content in sorted(self.contents.items())
        )
        self.contents[_DIGESTS] = "".join(lines_of_digests).encode()

    def _gather_report(self, name: str) -> None:
        """Take a report from a store, with its signature, or else from this host.

        Nobody signed the copy on this host: where keys are trusted it does not count.
        """
        stores = self.run.stores if self.run.settings.stores else ()
        place = f"{REPORTS_FOLDER}{self.run.ledger.id}/"
        for file, is_signed in ((f"{name}.json", True), (f"{name}.md", False)):
            target, path = f"reports/{file}", self.run.reports / file
            fault = self._take(stores, place + file, target, is_signed=is_signed)
            counts = not (is_signed and self.run.settings.signing.trusted_keys)
            if fault is not None and counts and path.exists():
                self.contents[target] = path.read_bytes()
                # What a store has beside it may be a signature.
                if is_signed and fault:
                    self.missing.append(f"the signature of {file}{fault}")
            elif fault is not None:
                self.missing.append(f"the report {file}{fault}")

    def _gather_set(self, backup_id: str) -> None:
        """Take the manifest of a set, and the evidence of it up to the release."""
        try:
            chosen: BackupSet = self.run.listing().find(backup_id)
        except OpskitError as error:
            self.missing.append(f"the set {backup_id}: {error.summary}")
            return
        stores_of: dict[str, list[Store]] = {}
        for copy in chosen.copies:
            stores_of.setdefault(MANIFEST_NAME, []).append(copy.store)
            for each in copy.evidence:
                if each.at <= self.ended_at:
                    stores_of.setdefault(each.name(), []).append(copy.store)
        for name, stores in stores_of.items():
            target = f"sets/{backup_id}/{name}"
            fault = self._take(stores, chosen.prefix + name, target)
            if fault is not None:
                self.missing.append(f"{target}{fault}")

    def _take(
        self, stores: Iterable[Store], key: str, target: str, *, is_signed: bool = True
    ) -> str | None:
        """Take an object and its signature from the first store that gives them.

        Return None, or why no store gave it: empty if it is in none of them.

        Raises:
            IntegrityError: a signature is not good, or one is needed and missing.
        """
        faults = []
        for store in stores:
            try:
                self.contents |= self._read(store, key, target, is_signed=is_signed)
            except ObjectNotFound:
                continue
            except StoreError as error:
                faults.append(error.summary)
            else:
                return None
        return "".join(f": {each}" for each in faults)

    def _read(
        self, store: Store, key: str, target: str, *, is_signed: bool
    ) -> dict[str, bytes]:
        """Return an object and the signature beside it, if there is one."""
        content = read_whole(store, key, bytes_max=_BYTES_MAX)
        found = {target: content}
        if is_signed:
            keys.trust(self.run.settings).require(store, key, content)
            with suppress(ObjectNotFound):  # nobody signed it
                found[target + signatures.SUFFIX] = read_whole(
                    store, signature_key(key, content), bytes_max=_BYTES_MAX
                )
        return found


def _named(records: Iterable[LedgerEntry], *fields: str) -> Iterator[str]:
    """Yield what the records name in these fields, also those of steps, each once."""
    named: dict[str, None] = {}
    for entry in records:
        details: Mapping[str, Any] = entry.details
        for each in (details, details.get("details") or {}):
            named |= {str(each[name]): None for name in fields if each.get(name)}
    yield from named


def _digest(content: bytes) -> tuple[int, str]:
    return len(content), hashlib.sha256(content).hexdigest()


def _packed(folder: str, contents: Mapping[str, bytes], at: datetime) -> bytes:
    """Return an archive that is the same for the same contents."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(contents.items()):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode = len(content), 0o644
            entry.mtime = int(at.timestamp())
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()
