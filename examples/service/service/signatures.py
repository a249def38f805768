"""Signatures of webhooks: HMAC-SHA256 over the timestamp and the raw body."""

from __future__ import annotations

import hashlib
import hmac

ID_HEADER = "X-Webhook-ID"
TIMESTAMP_HEADER = "X-Webhook-Timestamp"
SIGNATURE_HEADER = "X-Webhook-Signature"
TOLERANCE_SECONDS = 300
_VERSION = "v1="


class BadSignature(Exception):
    """A signature is missing, wrong or too old.

    The sender is told no more than that; the text is for the log.
    """


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """Return the value of the signature header."""
    signed = f"{timestamp}.".encode() + body
    return _VERSION + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def verify(
    secret: str, *, timestamp: str, signature: str, body: bytes, now: float
) -> None:
    """Check the headers of a webhook against the body as it was received.

    Raises:
        BadSignature: the request is not to be trusted.
    """
    # int() would also take spaces, underscores and digits of other scripts.
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise BadSignature("the timestamp is missing or not a number")
    expected = sign(secret, int(timestamp), body)
    # Bytes: compare_digest refuses text that is not ASCII.
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        raise BadSignature("the signature is missing or wrong")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise BadSignature("the timestamp is too far from the time of this server")
