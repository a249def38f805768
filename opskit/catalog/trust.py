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
NOT_SIGNED = "no trusted key signed it"
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

    def __bool__(self) -> bool:
        return bool(self.keys)

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
                store, key + signatures.SUFFIX, bytes_max=_SIGNATURE_BYTES_MAX
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


def warn_of(store: Store, key: str, fault: str) -> None:
    """Say why a document does not count."""
    logger().warning(
        "a document does not count", store=store.name, key=key, reason=fault
    )
