"""Evidence: the signed record of what was proved of a subject, and storing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from opskit import __version__, files
from opskit.catalog.documents import (
    EVIDENCE_FOLDER,
    EvidenceKind,
    EvidenceName,
    document_bytes,
    evidence_name,
    store_document,
)
from opskit.catalog.manifest import MANIFEST_NAME, DatabaseManifest, Manifest
from opskit.catalog.reader import is_gone
from opskit.checks import Check
from opskit.crypto import age, signatures
from opskit.crypto.signatures import Signer
from opskit.log import mask, masked
from opskit.store import Store

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT_VERSION = 1
_HIDDEN = "see the report"
Figures = TypeVar("Figures", bound="DataclassInstance | None", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What evidence is about: a backup set.

    The subject exists as long as the object under `key` does; evidence lies beside it.
    `facts` tie a document to the very subject. For `recipients`, if there are any,
    reports are encrypted.
    """

    name: str
    key: str
    facts: Mapping[str, str]
    recipients: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """Where its evidence lies, with a slash at its end."""
        return self.key.rpartition("/")[0] + "/"


def set_subject(manifest: Manifest, manifest_sha256: str) -> Subject:
    """Return a backup set as the subject of evidence."""
    encryption = manifest.encryption
    return Subject(
        name=manifest.backup_id,
        key=manifest.prefix + MANIFEST_NAME,
        facts={
            "backup_id": manifest.backup_id,
            "source": manifest.source,
            "manifest_sha256": manifest_sha256,
            "server_version": manifest.server_version
            if isinstance(manifest, DatabaseManifest)
            else "",
        },
        recipients=() if encryption is None else encryption.recipients,
    )


@dataclass(frozen=True, kw_only=True)
class Evidence(Generic[Figures]):
    """What was checked, when, with what outcome; stored also when it failed.

    `figures` is what was measured and counted: a dataclass, whose fields become fields
    of the document.
    """

    kind: EvidenceKind
    run_id: str
    subject: Subject
    started_at: datetime
    finished_at: datetime
    checks: tuple[Check, ...]
    figures: Figures

    @property
    def made(self) -> list[Check]:
        """The checks that were made."""
        return [check for check in self.checks if check.passed is not None]

    @property
    def failed(self) -> list[Check]:
        """The checks that did not pass."""
        return [check for check in self.checks if check.failed]

    @property
    def not_checked(self) -> list[Check]:
        """What was not checked, because the user allowed it by name."""
        return [check for check in self.checks if check.passed is None]

    @property
    def passed(self) -> bool:
        """Whether something was checked, and every check that was made passed."""
        return bool(self.made) and not self.failed

    @property
    def name(self) -> EvidenceName:
        """What the evidence is called beside its subject."""
        return evidence_name(
            kind=self.kind,
            passed=self.passed,
            finished_at=self.finished_at,
            run_id=self.run_id,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the evidence as a JSON-ready document."""
        return {
            "format_version": FORMAT_VERSION,
            # Signed with the rest: nobody can give it another time or outcome.
            "name": self.name.name(),
            "kind": self.kind,
            "run_id": self.run_id,
            **self.subject.facts,
            "status": "passed" if self.passed else "failed",
            "passed": self.passed,
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat(),
            "tool_version": __version__,
            "checks": masked([check.as_json() for check in self.made]),
            "not_checked": masked(
                [{"name": e.name, "reason": e.detail} for e in self.not_checked]
            ),
            **(masked(asdict(self.figures)) if self.figures is not None else {}),
        }


def store_evidence(
    evidence: Evidence[Any],
    report: str | None,
    stores: Iterable[Store],
    *,
    signer: Signer | None = None,
) -> None:
    """Put the evidence and its report beside its subject, the document last.

    Where reports are encrypted, the document names the checks without what was expected
    and observed, and what was not checked without the reason.

    Raises:
        StoreError: a store refused it.
    """
    subject = evidence.subject
    place = subject.prefix + evidence.name.name("")
    document = _in_the_open(evidence)
    for store in stores:
        if report is not None:
            suffix, content = _report(report, subject.recipients)
            store.put(place + suffix, content)
        store_document(store, f"{place}.json", document, signer)
        if is_gone(store, subject.key):
            # Another host has deleted it: nothing may be left in its place.
            for stored in [*store.list(f"{place}.")]:
                store.delete(stored.key)


def _in_the_open(evidence: Evidence[Any]) -> dict[str, Any]:
    """Return the document for where everybody reads it who may not read the set."""
    document = evidence.as_json()
    if evidence.subject.recipients:
        # What was read of rows may stand there: digests, values in a server's words.
        for check in document["checks"]:
            check |= {"expected": "", "observed": "", "detail": _HIDDEN}
        for each in document["not_checked"]:
            each["reason"] = _HIDDEN
    return document


def publish_evidence(
    evidence: Evidence[Any], report: str, directory: Path, *, signer: Signer | None
) -> None:
    """Write into a folder of this host what the stores have of evidence in the open.

    Its document has the same bytes, so the same signature is good.
    """
    folder = directory / evidence.subject.name
    files.make_directories(folder)
    content = document_bytes(_in_the_open(evidence))
    name = evidence.name.name("").removeprefix(EVIDENCE_FOLDER)
    written = {".json": content}
    if signer is not None:
        written[f".json{signatures.SUFFIX}"] = signer.sign(content)
    if not evidence.subject.recipients:
        written[".md"] = _bytes(mask(report))
    for suffix, each in written.items():
        files.write_atomically(folder / f"{name}{suffix}", [each])


def _report(report: str, recipients: tuple[str, ...]) -> tuple[str, Iterable[bytes]]:
    """Return the ending of a report's name, and its content."""
    text = [_bytes(mask(report))]
    if not recipients:
        return ".md", text
    return f".md{age.SUFFIX}", age.encrypted(text, recipients)


def write_report(evidence: Evidence[Any], report: str, directory: Path) -> Path:
    """Write the report into a folder of this host, and return its path."""
    files.make_directories(directory)
    stem = f"{evidence.subject.name}-{evidence.kind}-{evidence.run_id}"
    document = document_bytes(evidence.as_json())
    files.write_atomically(directory / f"{stem}.json", [document])
    path = directory / f"{stem}.md"
    files.write_atomically(path, [_bytes(mask(report))])
    return path


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
