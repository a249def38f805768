"""Identities: the private keys that open what was encrypted to their public ones."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from opskit.crypto import public
from opskit.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization.ssh import SSHPrivateKeyTypes
import re
from dataclasses import dataclass, field
from typing import Any

_SIZE_BYTES_MAX = 1024 * 1024
OPENSSH_MARK = b"-----BEGIN OPENSSH PRIVATE KEY-----"
PEM_MARKS = (b"PRIVATE KEY-----", b"-----BEGIN ")


def read(path: Path, what: str) -> bytes:
    """Return the content of a file that holds a secret; `what` names its use.

    Raises:
        ConfigurationError: it is missing, not a file, cannot be read, is far too large,
            or somebody other than its owner may read or change it.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(found) and not found & 0o077:
                content = file.read(_SIZE_BYTES_MAX + 1)
    except IsADirectoryError:
        found = stat.S_IFDIR
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from error
    if not stat.S_ISREG(found):
        raise ConfigurationError(
            f"{what} {path} is not a file", hint="Name the file that holds the key."
        )
    if found & 0o077:
        raise ConfigurationError(
            f"{what} {path} may be read by others (mode {stat.S_IMODE(found):04o})",
            hint=f"Run chmod 600 {path}; if others could read it, replace it.",
        )
    if len(content) > _SIZE_BYTES_MAX:
        raise ConfigurationError(
            f"{what} {path} is too large for a key file",
            hint="Name the file that holds the key.",
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
    """Tell whether this is a private key of OpenSSH or in PEM, readable or not."""
    return all(mark in content for mark in PEM_MARKS)


def parse(
    content: bytes, *, path: Path, what: str, passphrase: str
) -> SSHPrivateKeyTypes:
    """Return the key of an OpenSSH or PEM file; a passphrase in excess is no fault.

    Raises:
        ConfigurationError: it is damaged, of a kind that is not known, needs a
            passphrase that was not given, or another one.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    is_encrypted = False
    try:
        try:
            return _parse(content, None)
        except TypeError as error:
            is_encrypted = True
            if not passphrase:
                raise needs_passphrase(path, what) from error
        return _parse(content, passphrase.encode())
    except UnsupportedAlgorithm as error:
        raise _unknown(path, what, str(error)) from error
    except ValueError as error:
        if is_encrypted:
            raise wrong_passphrase(path, what) from error
        raise _unknown(path, what, "it may be damaged") from error


def _parse(content: bytes, passphrase: bytes | None) -> SSHPrivateKeyTypes:
    from cryptography.hazmat.primitives import serialization

    if OPENSSH_MARK in content:
        return serialization.load_ssh_private_key(content, passphrase)
    return serialization.load_pem_private_key(content, passphrase)  # type: ignore[return-value]  # callers ask for the kinds that they know


def _unknown(path: Path, what: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what} {path} is not a key that can be read: {reason}",
        hint="Use an ed25519 key of OpenSSH, as ssh-keygen -t ed25519 makes.",
    )


def needs_passphrase(path: Path, what: str) -> ConfigurationError:
    """Return the error for a key without the passphrase that it asks for."""
    return ConfigurationError(
        f"{what} {path} needs a passphrase, and none is given",
        hint="Give it in the environment or in a file of mode 0600, as "
        "docs/configuration.md says.",
    )


def wrong_passphrase(path: Path, what: str) -> ConfigurationError:
    """Return the error for a passphrase that does not open the key."""
    return ConfigurationError(
        f"the passphrase does not open {what} {path}",
        hint="Check the passphrase; spaces and line ends belong to it too.",
    )


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
    content = read(path, WHAT)
    if content.lstrip().startswith((_BINARY_MARK, _ARMOUR_MARK)):
        content = _opened(content, path, passphrase)
    if is_private_key(content):
        return _ssh(content, path, passphrase)
    return _age(content, path)


def _opened(content: bytes, path: Path, passphrase: str) -> bytes:
    """Decrypt an identity file that has a passphrase itself."""
    import pyrage  # type: ignore[import-untyped]

    if not passphrase:
        raise needs_passphrase(path, WHAT)
    try:
        opened: bytes = pyrage.passphrase.decrypt(content, passphrase)
    except pyrage.DecryptError as error:
        if str(error) == "Decryption failed":
            raise wrong_passphrase(path, WHAT) from error
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

    key = parse(content, path=path, what=WHAT, passphrase=passphrase)
    if not isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise ConfigurationError(
            f"{WHAT} {path} is neither an ed25519 nor an rsa key", hint=_HINT
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
            f"{WHAT} {path} cannot be used: {error}", hint=_HINT
        ) from error
    return Identities(
        path=path, opaque=(identity,), recipients=(public.line(key.public_key()),)
    )


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
