"""What was sent, compared with what the server says it holds."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Encrypted with a key of their own, ETags are no digest of the content.
_OPAQUE = ("aws:kms", "aws:kms:dsse")


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The size of what was sent, and the ETag of it where ETags are made of MD5s."""

    size_bytes: int
    etag: str


def md5(content: bytearray) -> bytes:
    """Return the digest that S3 checks what arrives with; it is no protection."""
    return hashlib.md5(content, usedforsecurity=False).digest()


def base64_of(digest: bytes) -> str:
    """Return the form of the Content-MD5 header."""
    return base64.b64encode(digest).decode()


def composite(digests: Sequence[bytes]) -> str:
    """Return the ETag of an object put in parts."""
    return f"{md5(bytearray(b''.join(digests))).hex()}-{len(digests)}"


def etag_differs(answer: Mapping[str, Any], wanted: str) -> bool:
    """Return whether an ETag that is made of MD5s is not the one wanted.

    One of another form, or of encrypted content, tells nothing.
    """
    if (
        answer.get("ServerSideEncryption") in _OPAQUE
        or "SSECustomerAlgorithm" in answer
    ):
        return False
    found = str(answer.get("ETag", "")).strip('"').lower()
    _, dash, count = wanted.partition("-")
    form = rf"[0-9a-f]{{32}}{dash}{count}"
    return re.fullmatch(form, found) is not None and found != wanted


def difference(sent: Sent, found: Mapping[str, Any]) -> str:
    """Return in words how what the server holds differs from what was sent, or ""."""
    if found["ContentLength"] != sent.size_bytes:
        return (
            f"the server holds {found['ContentLength']} bytes where "
            f"{sent.size_bytes} were sent"
        )
    if etag_differs(found, sent.etag):
        return f"the server's ETag is {found['ETag']} where {sent.etag} was sent"
    return ""
