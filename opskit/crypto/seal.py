"""Digests in a manifest that anybody may read, told to the owner of the key alone.

The digest of a small table tells whoever guesses its rows that the guess was right. So
the manifest of an encrypted set holds each digest covered by a pad: bytes that only the
key gives, other ones for each name.

A pad and not a digest made with a key: digests of parts are added up to that of the
whole, and a restored copy gives plain digests. Both need the plain digest back, which a
keyed digest never gives.

A pad must not cover two digests, or their difference shows. That is why each set has a
key of its own, and each digest a name that is unique in its set.

A pad protects nothing from being changed: that the digests are those of the backup is
held by the signature of the manifest and by the digests of the objects.
"""

from __future__ import annotations

import hashlib
import secrets

from opskit.errors import IntegrityError

KEY_BYTES = 32
_PERSON = b"opskit-seal"
_DIGEST_BYTES = range(16, 65)


def new_key() -> bytes:
    """Return a key for one set, never to be used for another."""
    return secrets.token_bytes(KEY_BYTES)


def seal(digest_hex: str, *, key: bytes, what: str) -> str:
    """Return the digest covered, in lower-case hex of the same length.

    `what` names the digest and must be unique in its set.

    Raises:
        ValueError: the digest is not hex of 16 to 64 bytes, or the key not 32 bytes.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    if not digest_hex.isalnum():  # fromhex would skip spaces
        raise ValueError("a digest is hex")
    digest = bytes.fromhex(digest_hex)
    if len(digest) not in _DIGEST_BYTES:
        raise ValueError("a digest has 16 to 64 bytes")
    pad = hashlib.blake2b(
        what.encode("utf-8", "surrogateescape"),
        digest_size=len(digest),
        key=key,
        person=_PERSON,
    ).digest()
    return bytes(a ^ b for a, b in zip(digest, pad, strict=True)).hex()


def unseal(sealed_hex: str, *, key: bytes, what: str) -> str:
    """Return the digest that was sealed with the same key under the same name.

    Another key or name gives another digest, not an error.

    Raises:
        IntegrityError: this is no sealed digest, or the key is none.
    """
    try:
        return seal(sealed_hex, key=key, what=what)
    except ValueError as error:
        raise IntegrityError(
            f"a sealed digest of the manifest cannot be read: {error}",
            hint="Use another set or another store.",
        ) from error
