"""Signed documents in a store: how they are put there, and which count."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from opskit.crypto import signatures
from opskit.crypto.signatures import Signer
from opskit.errors import IntegrityError, ObjectNotFound, ObjectUnreadable
from opskit.log import logger
from opskit.store import Store
from opskit.store.base import read_whole

_SIGNATURE_BYTES_MAX = 64 * 1024
_DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
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


class Unsigned(IntegrityError):
    """There is no signature at all."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a document counts, and what is amiss with it, if anything is."""

    counts: bool
    amiss: str = ""


@dataclass(frozen=True)
class Trust:
    """The public keys whose signatures count; without any, nothing is asked for."""

    keys: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.keys)

    def require(self, store: Store, key: str, content: bytes) -> None:
        """Check that a trusted key signed what lies under a key of the store.

        Raises:
            IntegrityError: the signature is missing, by another key, or of other bytes.
        """
        if not self.keys:
            return
        try:
            signature = read_whole(
                store, key + signatures.SUFFIX, bytes_max=_SIGNATURE_BYTES_MAX
            )
        except ObjectNotFound:
            raise Unsigned(f"{key} is not signed", hint=_HINT) from None
        try:
            signatures.verify(content, signature, self.keys)
        except signatures.SignatureError as error:
            raise IntegrityError(f"{key}: {error.message}", hint=_HINT) from error

    def judge(self, store: Store, key: str, **said: object) -> Verdict:
        """Return whether a trusted key signed a document that says all this.

        Without trusted keys every document counts, and none is read.

        Raises:
            StoreError: the store cannot be read; one that lost the document can be.
        """
        if not self.keys:
            return Verdict(counts=True)
        try:
            content = read_whole(store, key, bytes_max=_DOCUMENT_BYTES_MAX)
            self.require(store, key, content)
            document = json.loads(content)
            if all(document[name] == value for name, value in said.items()):
                return Verdict(counts=True)
            reason = "it is about something else than its place and name say"
        except Unsigned as error:
            # Nothing amiss, nor news: it was made where there is no key.
            logger().debug("does not count", store=store.name, reason=error.message)
            return Verdict(counts=False)
        except (IntegrityError, ObjectNotFound, ObjectUnreadable) as error:
            reason = error.message
        except (ValueError, KeyError, TypeError) as error:
            reason = f"it cannot be read: {error}"
        return Verdict(counts=False, amiss=reason)

    def counts(self, store: Store, key: str, **said: object) -> bool:
        """Return what `judge` says, and warn of what is amiss.

        Raises:
            StoreError: see `judge`.
        """
        verdict = self.judge(store, key, **said)
        if verdict.amiss:
            warn_of(store, key, verdict.amiss)
        return verdict.counts


def warn_of(store: Store, key: str, amiss: str) -> None:
    """Say why a document does not count."""
    logger().warning(
        "a document does not count", store=store.name, key=key, reason=amiss
    )
