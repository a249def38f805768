"""Documents beside sets: their names, who signed them, which count, what they prove.

The outcome of evidence stands in its key, so that listing a store is enough to know the
proof of every set in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from opskit.crypto import signatures
from opskit.crypto.signatures import Signer
from opskit.errors import IntegrityError, ObjectNotFound, ObjectUnreadable
from opskit.log import logger
from opskit.store import Store
from opskit.store.base import read_whole

Proof = Literal["drilled", "verified", "unproven", "failed"]
EvidenceKind = Literal["drill", "verify"]
EVIDENCE_FOLDER = "evidence/"
PIN_FOLDER = "pinned/"
CONFIRMATION_FOLDER = "confirmed/"
_STRONGEST_FIRST: tuple[Proof, ...] = ("drilled", "verified", "unproven")
_EVIDENCE = re.compile(
    r"evidence/(?P<time>\d{8}T\d{6}Z)-(?P<kind>drill|verify)"
    r"-(?P<outcome>passed|failed)-(?P<run>[0-9a-f]+)\.json"
)
_MARK = re.compile(r"(?P<folder>pinned/|confirmed/)\d{8}T\d{6}Z-[0-9a-f]+\.json")
_SIGNATURE_BYTES_MAX = 64 * 1024
_DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
NOT_SIGNED = "no trusted key signed it"
# Where reports lie that are not about a single set.
REPORTS_FOLDER = "_reports/"
_HINT = (
    "Do not use it before you know who wrote it. Sets from before signatures were "
    "configured can be used while [signing] trusted_keys is empty."
)


def document_bytes(fields: Mapping[str, object]) -> bytes:
    """Return a JSON document as it is stored."""
    text = json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogateescape")


def store_document(
    store: Store, key: str, fields: Mapping[str, object], signer: Signer | None
) -> None:
    """Put a JSON document into a store, after its signature if somebody signs it.

    Raises:
        StoreError: the store refused.
    """
    content = document_bytes(fields)
    if signer is not None:
        store.put(key + signatures.SUFFIX, [signer.sign(content)])
    store.put(key, [content])


@dataclass(frozen=True)
class Trust:
    """The public keys whose signatures count; without any, none is required."""

    keys: tuple[str, ...] = ()

    def require(self, store: Store, key: str, content: bytes) -> None:
        """Check that a trusted key signed what lies under a key of the store.

        Raises:
            IntegrityError: the signature is missing, by another key, or of other bytes.
        """
        if self.keys and not self._is_signed(store, key, content):
            raise IntegrityError(f"{key} is not signed", hint=_HINT)

    def _is_signed(self, store: Store, key: str, content: bytes) -> bool:
        """Return whether there is a signature; one that is there must be good."""
        try:
            signature = read_whole(
                store, signature_key(key, content), bytes_max=_SIGNATURE_BYTES_MAX
            )
        except ObjectNotFound:
            return False
        try:
            signatures.verify(content, signature, self.keys)
        except signatures.SignatureError as error:
            raise IntegrityError(f"{key}: {error.message}", hint=_HINT) from error
        return True

    def fault(self, store: Store, key: str, **facts: object) -> str:
        """Return why a document does not count, or "" if it does.

        It counts if a trusted key signed it and it states these facts. Without trusted
        keys every document counts, and none is read.

        Raises:
            StoreError: the store cannot be read; one that lost the document can be.
        """
        if not self.keys:
            return ""
        try:
            content = read_whole(store, key, bytes_max=_DOCUMENT_BYTES_MAX)
            if not self._is_signed(store, key, content):
                # Nothing is wrong with it: it was made where there is no key.
                logger().debug("a document is not signed", store=store.name, key=key)
                return NOT_SIGNED
            document = json.loads(content)
            if all(document[name] == value for name, value in facts.items()):
                return ""
            return "it is about something else than its place and name say"
        except (IntegrityError, ObjectNotFound, ObjectUnreadable) as error:
            return error.message
        except (ValueError, KeyError, TypeError) as error:
            return f"it cannot be read: {error}"

    def counts(self, store: Store, key: str, **facts: object) -> bool:
        """Return whether a document counts; warn where something is wrong with it.

        Raises:
            StoreError: see `fault`.
        """
        fault = self.fault(store, key, **facts)
        if fault not in ("", NOT_SIGNED):
            warn_of(store, key, fault)
        return not fault


ANYONE = Trust()
_NAMED_SIGNATURE = re.compile(rb'"object": "(?P<key>[^"\\]+)"\s*\}\s*\}\s*\Z')
_LAST_BYTES = 4096


def signature_key(key: str, content: bytes) -> str:
    """Return where the signature of what lies under a key lies: beside it.

    A manifest names another place inside its set where several runs may have made it.
    Nothing is believed before the signature there is good, and of these very bytes.
    """
    beside = key + signatures.SUFFIX
    folder, _, name = beside.rpartition("/")
    if named := _NAMED_SIGNATURE.search(content[-_LAST_BYTES:]):
        text = named["key"].decode(errors="replace")
        if text.startswith(f"{folder}/") and text.endswith(f"/{name}"):
            return text
    return beside


def warn_of(store: Store, key: str, fault: str) -> None:
    """Say why a document does not count."""
    logger().warning(
        "a document does not count", store=store.name, key=key, reason=fault
    )


def mark_name(folder: str, *, at: datetime, run_id: str) -> str:
    """Return the name, inside a set, of a new pin or confirmation."""
    return f"{folder}{at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{run_id}.json"


def is_mark(folder: str, name: str) -> bool:
    """Return whether a name inside a set is that of a pin or of a confirmation."""
    match = _MARK.fullmatch(name)
    return match is not None and match["folder"] == folder


@dataclass(frozen=True, kw_only=True)
class EvidenceName:
    """What the key of a piece of evidence says."""

    time: str
    kind: EvidenceKind
    passed: bool
    run_id: str

    @property
    def at(self) -> datetime:
        """When it was made."""
        return datetime.strptime(self.time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)

    def name(self, suffix: str = ".json") -> str:
        """Return the name of the object inside its set."""
        outcome = "passed" if self.passed else "failed"
        return (
            f"{EVIDENCE_FOLDER}{self.time}-{self.kind}-{outcome}-{self.run_id}{suffix}"
        )


def evidence_name(
    *, kind: EvidenceKind, passed: bool, finished_at: datetime, run_id: str
) -> EvidenceName:
    """Return the name for new evidence."""
    time = f"{finished_at.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    return EvidenceName(time=time, kind=kind, passed=passed, run_id=run_id)


def parse_evidence(name: str) -> EvidenceName | None:
    """Return what a name inside a set says, or None if it is no evidence."""
    match = _EVIDENCE.fullmatch(name)
    if match is None:
        return None
    evidence = EvidenceName(
        time=match["time"],
        kind="drill" if match["kind"] == "drill" else "verify",
        passed=match["outcome"] == "passed",
        run_id=match["run"],
    )
    try:
        _ = evidence.at
    except ValueError:  # no calendar has that time
        return None
    return evidence


def proof_of(evidence: Iterable[EvidenceName]) -> Proof:
    """Return the proof state that the evidence amounts to.

    The newest of each kind counts. A failed drill is only made good by a drill that
    passes; a failed verification by either, for a drill reads every byte as well.
    """
    drilled: bool | None = None
    verified: bool | None = None
    # Of two from the same second the failure counts as the later.
    for each in sorted(evidence, key=lambda each: (each.time, not each.passed)):
        if each.kind == "drill":
            drilled = each.passed
            verified = True if each.passed else verified
        else:
            verified = each.passed
    if drilled is False or verified is False:
        return "failed"
    if drilled:
        return "drilled"
    return "verified" if verified else "unproven"


def combined(proofs: Iterable[Proof]) -> Proof:
    """Return the proof of a set from those of its copies.

    A damaged copy makes the set failed: it may be the one that is left one day.
    """
    return _first(("failed", *_STRONGEST_FIRST), proofs)


def best(proofs: Iterable[Proof]) -> Proof:
    """Return the strongest proof among those of copies; failed if all of them are."""
    return _first((*_STRONGEST_FIRST, "failed"), proofs)


def _first(order: tuple[Proof, ...], proofs: Iterable[Proof]) -> Proof:
    states = set(proofs)
    return next((state for state in order if state in states), "unproven")
