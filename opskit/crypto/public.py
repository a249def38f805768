"""Public keys as people write them: age recipients, and keys whose signatures count."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ED25519 = "ssh-ed25519"
_RSA = "ssh-rsa"
_RSA_BITS_MIN = 2048
_PRIVATE = re.compile(r"AGE-(SECRET-KEY|PLUGIN)-|PRIVATE KEY", re.IGNORECASE)
_RECIPIENTS = (
    "not a recipient: write age1…, as age-keygen prints it, ssh-ed25519 AAAA…, or "
    f"ssh-rsa AAAA… of {_RSA_BITS_MIN} bits or more"
)
_SIGNING_KEYS = (
    "not an ed25519 key: write ssh-ed25519 AAAA…, the line of the .pub file that "
    "ssh-keygen -t ed25519 makes"
)


def holds_private_key(text: str) -> bool:
    """Return whether a text holds a private key, which must not be shown."""
    return _PRIVATE.search(text) is not None


def recipient(text: str) -> tuple[str, Any]:
    """Return a recipient without its comment, and the same as pyrage takes it.

    Raises:
        ValueError: it is not one; a private key is not shown.
    """
    import pyrage  # type: ignore[import-untyped]
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    words = _words(text, _RECIPIENTS)
    try:
        if words[0] not in (ED25519, _RSA):
            plain = " ".join(words).lower()
            return plain, pyrage.x25519.Recipient.from_str(plain)
        plain, key = _openssh(words)
        if not isinstance(key, RSAPublicKey) or key.key_size >= _RSA_BITS_MIN:
            return plain, pyrage.ssh.Recipient.from_str(plain)
    except (ValueError, pyrage.RecipientError):
        pass
    raise _refused(text, _RECIPIENTS)


def signing_key(text: str) -> tuple[str, Ed25519PublicKey]:
    """Return an ed25519 key without its comment, and the same to verify with.

    Raises:
        ValueError: it is not one; a private key is not shown.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    words = _words(text, _SIGNING_KEYS)
    if words[0] == ED25519:
        try:
            plain, key = _openssh(words)
        except ValueError:
            pass
        else:
            if isinstance(key, Ed25519PublicKey):
                return plain, key
    raise _refused(text, _SIGNING_KEYS)


def line(key: Any) -> str:
    """Return a public key of the cryptography library as OpenSSH writes it."""
    from cryptography.hazmat.primitives import serialization

    content: bytes = key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return content.decode()


def blob(plain: str) -> bytes:
    """Return the bytes of a key that was parsed, as signatures name it."""
    return base64.b64decode(plain.split()[1])


def _openssh(words: list[str]) -> tuple[str, Any]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(" ".join(words[:2]).encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    return line(key), key


def _words(text: str, reason: str) -> list[str]:
    if holds_private_key(text):
        raise ValueError("this is a private key, which must stay secret")
    if len(text.strip().splitlines()) != 1:
        raise _refused(text, reason)
    return text.split()


def _refused(text: str, reason: str) -> ValueError:
    text = text.strip()
    shown = text if len(text) <= 400 else text[:400] + "…"
    return ValueError(f"{shown!r} is {reason}")
