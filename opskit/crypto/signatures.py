"""Signatures by ed25519 keys in OpenSSH's format, for `ssh-keygen -Y verify`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opskit.crypto import keys
from opskit.crypto import keys as crypto_keys
from opskit.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

NAMESPACE = "opskit"
SUFFIX = ".sig"
_WHAT = "signing key"
_KIND = keys.ED25519.encode()
_MAGIC = b"SSHSIG"
_VERSION = 1
_HASHES = {b"sha512": hashlib.sha512, b"sha256": hashlib.sha256}
_ARMOUR = re.compile(
    rb"\s*-----BEGIN SSH SIGNATURE-----\s+([A-Za-z0-9+/=\s]+)"
    rb"-----END SSH SIGNATURE-----\s*"
)
_LINE_CHARACTERS = 70
_HINT = "Do not use it before you know who wrote it."


class SignatureError(IntegrityError):
    """Not a signature, or by a key that is not trusted, or of something else."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint=_HINT)


@dataclass(frozen=True)
class Signer:
    """A private key that signs."""

    _key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"Signer({self.fingerprint})"

    @classmethod
    def load(cls, path: Path, *, passphrase: str = "") -> Signer:
        """Read an ed25519 key, of OpenSSH or in PEM.

        Raises:
            ConfigurationError: the file is missing, cannot be read, may be read by
                others, holds no such key, needs a passphrase that was not given, or
                another one.
        """
        from cryptography.hazmat.primitives.asymmetric import ed25519

        hint = "Make one with ssh-keygen -t ed25519, and name the file without .pub."
        content = crypto_keys.read(path, _WHAT)
        if not crypto_keys.is_private_key(content):
            held = "only a public key" if content.startswith(b"ssh-") else "no key"
            raise ConfigurationError(f"{_WHAT} {path} holds {held}", hint=hint)
        key = crypto_keys.parse(content, path=path, what=_WHAT, passphrase=passphrase)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise ConfigurationError(f"{_WHAT} {path} is not an ed25519 key", hint=hint)
        return cls(key)

    @property
    def public_key(self) -> str:
        """The public key as `ssh-ed25519 AAAA…`, without a comment."""
        return keys.line(self._key.public_key())

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public key, as `ssh-keygen -l` prints it."""
        return _fingerprint(self._blob)

    @property
    def _blob(self) -> bytes:
        return keys.blob(self.public_key)

    def sign(self, content: bytes) -> bytes:
        """Return the signature of the content, armoured, with a line end."""
        namespace = NAMESPACE.encode()
        signed = _signed(namespace, b"sha512", content)
        signature = _packed((_KIND, self._key.sign(signed)))
        body = (self._blob, namespace, b"", b"sha512", signature)
        text = base64.b64encode(_MAGIC + _VERSION.to_bytes(4) + _packed(body))
        starts = range(0, len(text), _LINE_CHARACTERS)
        lines = [text[start : start + _LINE_CHARACTERS] for start in starts]
        return b"\n".join(
            (
                b"-----BEGIN SSH SIGNATURE-----",
                *lines,
                b"-----END SSH SIGNATURE-----\n",
            )
        )


def verify(content: bytes, signature: bytes, trusted: Sequence[str]) -> str:
    """Return the fingerprint of the trusted key that signed the content.

    Raises:
        SignatureError: this is no signature, it is for another use than opskit's, by
            a key that is not trusted, or not of this content.
        ConfigurationError: a trusted key is not valid.
    """
    from cryptography.exceptions import InvalidSignature

    keys = dict(_trusted(each) for each in trusted)
    blob, namespace, hash_name, kind, value = _parts(signature)
    if namespace != NAMESPACE.encode():
        shown = namespace[:40].decode("utf-8", "backslashreplace")
        raise SignatureError(f"the signature is for {shown!r}, not for {NAMESPACE!r}")
    if blob not in keys:
        raise SignatureError(
            f"it is signed by the key {_fingerprint(blob)}, which is not trusted"
        )
    try:
        if kind != _KIND:
            raise InvalidSignature
        keys[blob].verify(value, _signed(namespace, hash_name, content))
    except InvalidSignature:
        raise SignatureError(
            f"the signature by the key {_fingerprint(blob)} is not of this content"
        ) from None
    return _fingerprint(blob)


def _trusted(text: str) -> tuple[bytes, Ed25519PublicKey]:
    try:
        plain, key = keys.signing_key(text)
    except ValueError as error:
        raise ConfigurationError(
            str(error), hint="Correct it in [signing] trusted_keys."
        ) from error
    return keys.blob(plain), key


def _parts(signature: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Return the key, namespace, name of the hash, kind and value of a signature."""
    head = _MAGIC + _VERSION.to_bytes(4)
    try:
        armour = _ARMOUR.fullmatch(signature)
        if armour is None:
            raise ValueError("the armour")
        raw = base64.b64decode(b"".join(armour[1].split()), validate=True)
        if not raw.startswith(head):
            raise ValueError("the head")
        body = _unpacked(raw.removeprefix(head), 5)
        blob, namespace, reserved, hash_name, signed = body
        kind, value = _unpacked(signed, 2)
        if reserved or hash_name not in _HASHES:
            raise ValueError("what only later versions have")
    except (binascii.Error, ValueError) as error:
        raise SignatureError("this is not a signature of OpenSSH's format") from error
    return blob, namespace, hash_name, kind, value


def _signed(namespace: bytes, hash_name: bytes, content: bytes) -> bytes:
    digest = _HASHES[hash_name](content).digest()
    return _MAGIC + _packed((namespace, b"", hash_name, digest))


def _fingerprint(blob: bytes) -> str:
    digest = hashlib.sha256(blob).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _packed(fields: Iterable[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(4) + each for each in fields)


def _unpacked(data: bytes, count: int) -> list[bytes]:
    """Split fields that each begin with their length.

    Raises:
        ValueError: they are cut, or something follows them.
    """
    fields = []
    for _ in range(count):
        size = int.from_bytes(data[:4])
        fields.append(data[4 : 4 + size])
        if len(data) < 4 + size:
            raise ValueError("cut short")
        data = data[4 + size :]
    if data:
        raise ValueError("bytes behind the end")
    return fields
