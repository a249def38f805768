"""Identities: the private keys that open what was encrypted to their public ones."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opskit.crypto import keyfiles
from opskit.errors import ConfigurationError

WHAT = "identity file"
_BINARY_MARK = b"age-encryption.org/v1\n"
_ARMOUR_MARK = b"-----BEGIN AGE ENCRYPTED FILE-----"
_PUBLIC = re.compile(r"(age1|ssh-(ed25519|rsa) )[0-9A-Za-z]")
_HINT = (
    "Name a file with lines AGE-SECRET-KEY-1…, as age-keygen makes, or a private "
    "OpenSSH key, ed25519 or rsa."
)


class NoMatchingIdentity(ConfigurationError):
    """None of the identities opens this."""


@dataclass(frozen=True, kw_only=True)
class Identities:
    """What a file held: for `age.decrypted`, and the public keys that belong to it."""

    path: Path
    opaque: tuple[Any, ...] = field(repr=False)
    recipients: tuple[str, ...]


def load(path: Path, *, passphrase: str = "") -> Identities:
    """Read an age identity file, also one made by `age -p`, or a private OpenSSH key.

    Raises:
        ConfigurationError: the file is missing, cannot be read, may be read by others,
            holds no identity or only public keys, needs a passphrase that was not
            given, or another one.
    """
    content = keyfiles.read(path, WHAT)
    if content.lstrip().startswith((_BINARY_MARK, _ARMOUR_MARK)):
        content = _opened(content, path, passphrase)
    if keyfiles.is_private_key(content):
        return _ssh(content, path, passphrase)
    return _age(content, path)


def _opened(content: bytes, path: Path, passphrase: str) -> bytes:
    """Decrypt an identity file that has a passphrase itself."""
    import pyrage  # type: ignore[import-untyped]

    if not passphrase:
        raise keyfiles.needs_passphrase(path, WHAT)
    try:
        opened: bytes = pyrage.passphrase.decrypt(content, passphrase)
    except pyrage.DecryptError as error:
        if str(error) == "Decryption failed":
            raise keyfiles.wrong_passphrase(path, WHAT) from error
        raise ConfigurationError(
            f"{WHAT} {path} is damaged, or not encrypted with a passphrase: "
            + str(error).splitlines()[0],
            hint=_HINT,
        ) from error
    return opened


def _ssh(content: bytes, path: Path, passphrase: str) -> Identities:
    import pyrage
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    key = keyfiles.parse(content, path=path, what=WHAT, passphrase=passphrase)
    if not isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise ConfigurationError(
            f"{WHAT} {path} is neither an ed25519 nor an rsa key", hint=_HINT
        )
    plain = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    try:
        identity = pyrage.ssh.Identity.from_buffer(plain)
    except pyrage.IdentityError as error:
        raise ConfigurationError(
            f"{WHAT} {path} cannot be used: {error}", hint=_HINT
        ) from error
    return Identities(path=path, opaque=(identity,), recipients=(public.decode(),))


def _age(content: bytes, path: Path) -> Identities:
    import pyrage

    found = []
    public_keys = 0
    lines = content.decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if _PUBLIC.match(text):
            public_keys += 1
            continue
        try:
            found.append(pyrage.x25519.Identity.from_str(text))
        except pyrage.IdentityError as error:
            # Whatever the line is, it may be a secret.
            raise ConfigurationError(
                f"line {number} of {WHAT} {path} is not an identity", hint=_HINT
            ) from error
    if not found:
        held = "only public keys" if public_keys else "no identity"
        raise ConfigurationError(f"{WHAT} {path} holds {held}", hint=_HINT)
    recipients = tuple(str(each.to_public()) for each in found)
    return Identities(path=path, opaque=tuple(found), recipients=recipients)
