"""Keys: public ones as people write them, and private ones in their files."""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opskit.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization.ssh import SSHPrivateKeyTypes

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
_SIZE_BYTES_MAX = 1024 * 1024
_OPENSSH_MARK = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_PEM_MARKS = (b"PRIVATE KEY-----", b"-----BEGIN ")
_WHAT = "identity file"
# An age file, binary or armoured: an identity file that has a passphrase itself.
_AGE_MARKS = (b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----")
_PUBLIC = re.compile(r"(age1|ssh-(ed25519|rsa) )[0-9A-Za-z]")
_HINT = (
    "Name a file with lines AGE-SECRET-KEY-1…, as age-keygen makes, or a private "
    "OpenSSH key, ed25519 or rsa."
)


def holds_private_key(text: str) -> bool:
    """Return whether a text holds a private key, which must not be shown."""
    return _PRIVATE.search(text) is not None


def recipient(text: str) -> tuple[str, Any]:
    """Return an age recipient without its comment, and as pyrage takes it.

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
    """Return an ed25519 key without its comment, and to verify signatures with.

    Raises:
        ValueError: it is not one; a private key is not shown.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    words = _words(text, _SIGNING_KEYS)
    if words[0] == ED25519:  # and no certificate of one
        with contextlib.suppress(ValueError):
            plain, key = _openssh(words)
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
    """Return the bytes of a public key that `line` wrote, as signatures name it."""
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


def read(path: Path, what: str) -> bytes:
    """Return the content of a file that holds a secret; `what` names its use.

    Raises:
        ConfigurationError: it is missing, not a file, cannot be read, is far too large,
            or somebody other than its owner may read or change it.
    """
    hint = "Name the file that holds the key."
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise IsADirectoryError
            if mode & 0o077:
                raise ConfigurationError(
                    f"{what} {path} may be read by others "
                    f"(mode {stat.S_IMODE(mode):04o})",
                    hint=f"Run chmod 600 {path}; if others could read it, replace it.",
                )
            content = file.read(_SIZE_BYTES_MAX + 1)
    except IsADirectoryError:
        raise ConfigurationError(f"{what} {path} is not a file", hint=hint) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from error
    if len(content) > _SIZE_BYTES_MAX:
        raise ConfigurationError(
            f"{what} {path} is too large for a key file", hint=hint
        )
    return content


def _without_waiting(path: str, flags: int) -> int:
    # A pipe without a writer must not hold us up.
    return os.open(path, flags | os.O_NONBLOCK)


def _unreadable(path: Path, what: str, error: Exception) -> ConfigurationError:
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return ConfigurationError(
            f"{what} {path} does not exist",
            hint="Check the path; a relative one begins at the working directory.",
        )
    reason = error.strerror if isinstance(error, OSError) else "not a path"
    return ConfigurationError(
        f"{what} {path} cannot be read: {reason}",
        hint="Check the path and that this user may read it.",
    )


def is_private_key(content: bytes) -> bool:
    """Return whether this is a private key of OpenSSH or in PEM, readable or not."""
    return all(mark in content for mark in _PEM_MARKS)


def parse(
    content: bytes, *, path: Path, what: str, passphrase: str
) -> SSHPrivateKeyTypes:
    """Return the key of an OpenSSH or PEM file; a needless passphrase is no error.

    Raises:
        ConfigurationError: it is damaged, of an unknown kind, needs a passphrase that
            was not given, or another one.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    is_encrypted = False
    try:
        try:
            return _parse(content, None)
        except TypeError as error:
            is_encrypted = True
            if not passphrase:
                raise _needs_passphrase(path, what) from error
        return _parse(content, passphrase.encode())
    except UnsupportedAlgorithm as error:
        raise _unknown(path, what, str(error)) from error
    except ValueError as error:
        if is_encrypted:
            raise _wrong_passphrase(path, what) from error
        raise _unknown(path, what, "it may be damaged") from error


def _parse(content: bytes, passphrase: bytes | None) -> SSHPrivateKeyTypes:
    from cryptography.hazmat.primitives import serialization

    if _OPENSSH_MARK in content:
        return serialization.load_ssh_private_key(content, passphrase)
    return serialization.load_pem_private_key(content, passphrase)  # type: ignore[return-value]  # callers ask for the kinds that they know


def _unknown(path: Path, what: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what} {path} is not a key that can be read: {reason}",
        hint="Use an ed25519 key of OpenSSH, as ssh-keygen -t ed25519 makes.",
    )


def _needs_passphrase(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what} {path} needs a passphrase, and none is given",
        hint="Give it in the environment or in a file of mode 0600, as "
        "docs/configuration.md says.",
    )


def _wrong_passphrase(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the passphrase does not open {what} {path}",
        hint="Check the passphrase; spaces and line ends belong to it too.",
    )


class NoMatchingIdentity(ConfigurationError):
    """None of the identities opens this."""


@dataclass(frozen=True, kw_only=True)
class Identities:
    """The private keys in a file, as pyrage takes them, and their public keys."""

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
    content = read(path, _WHAT)
    if content.lstrip().startswith(_AGE_MARKS):
        content = _opened(content, path, passphrase)
    if is_private_key(content):
        return _ssh(content, path, passphrase)
    return _age(content, path)


def _opened(content: bytes, path: Path, passphrase: str) -> bytes:
    """Decrypt an identity file that has a passphrase itself."""
    import pyrage

    if not passphrase:
        raise _needs_passphrase(path, _WHAT)
    try:
        opened: bytes = pyrage.passphrase.decrypt(content, passphrase)
    except pyrage.DecryptError as error:
        if str(error) == "Decryption failed":
            raise _wrong_passphrase(path, _WHAT) from error
        raise ConfigurationError(
            f"{_WHAT} {path} is damaged, or not encrypted with a passphrase: "
            + str(error).splitlines()[0],
            hint=_HINT,
        ) from error
    return opened


def _ssh(content: bytes, path: Path, passphrase: str) -> Identities:
    import pyrage
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    key = parse(content, path=path, what=_WHAT, passphrase=passphrase)
    if not isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise ConfigurationError(
            f"{_WHAT} {path} is neither an ed25519 nor an rsa key", hint=_HINT
        )
    plain = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    try:
        identity = pyrage.ssh.Identity.from_buffer(plain)
    except pyrage.IdentityError as error:
        raise ConfigurationError(
            f"{_WHAT} {path} cannot be used: {error}", hint=_HINT
        ) from error
    return Identities(
        path=path, opaque=(identity,), recipients=(line(key.public_key()),)
    )


def _age(content: bytes, path: Path) -> Identities:
    import pyrage

    identities = []
    held = "no identity"
    lines = content.decode("utf-8", "replace").splitlines()
    for number, text in enumerate(map(str.strip, lines), start=1):
        if not text or text.startswith("#"):
            continue
        if _PUBLIC.match(text):
            held = "only public keys"
            continue
        try:
            identities.append(pyrage.x25519.Identity.from_str(text))
        except pyrage.IdentityError as error:
            # Whatever the line is, it may be a secret.
            raise ConfigurationError(
                f"line {number} of {_WHAT} {path} is not an identity", hint=_HINT
            ) from error
    if not identities:
        raise ConfigurationError(f"{_WHAT} {path} holds {held}", hint=_HINT)
    recipients = tuple(str(each.to_public()) for each in identities)
    return Identities(path=path, opaque=tuple(identities), recipients=recipients)
