"""The settings of encryption and signatures.

What is checked here is the form of public keys; whether they are ones shows when they
are used.
"""

from __future__ import annotations

import base64
import re
import stat
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from opskit.config.section import Section
from opskit.errors import ConfigurationError

_PRIVATE = re.compile(r"AGE-(SECRET-KEY|PLUGIN)-|PRIVATE KEY", re.IGNORECASE)
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_STEPS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_RSA_BYTES_MIN = 256  # 2048 bits


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


KeyFile = Annotated[Path | None, BeforeValidator(_none_if_empty)]


def recipient(text: str) -> str:
    """Return an age recipient without its comment.

    Raises:
        ValueError: it does not have the form of one.
    """
    plain = text.strip()
    if is_age_recipient(plain.lower()):
        return plain.lower()
    found = _ssh_key(plain, ("ssh-ed25519", "ssh-rsa"))
    if found is None:
        raise ValueError(
            f"{plain!r} is none: a recipient is age1…, as age-keygen prints it, "
            "ssh-ed25519 AAAA…, or ssh-rsa AAAA… of 2048 bits or more"
        )
    return found


def public_key(text: str) -> str:
    """Return an ed25519 public key without its comment.

    Raises:
        ValueError: it does not have the form of one.
    """
    found = _ssh_key(text.strip(), ("ssh-ed25519",))
    if found is None:
        raise ValueError(
            f"{text.strip()!r} is none: a trusted key is ssh-ed25519 AAAA…, the line "
            "of the .pub file that ssh-keygen -t ed25519 makes"
        )
    return found


def is_age_recipient(text: str) -> bool:
    """Tell whether this is an X25519 recipient; the check sum finds misspellings."""
    found = re.fullmatch(rf"age1([{_BECH32}]{{58}})", text)
    if found is None:
        return False
    human = [ord(letter) for letter in "age"]
    values = [each >> 5 for each in human] + [0] + [each & 31 for each in human]
    check = 1
    for value in values + [_BECH32.index(letter) for letter in found[1]]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, step in enumerate(_BECH32_STEPS):
            check ^= step if top >> bit & 1 else 0
    return check == 1


def _ssh_key(text: str, kinds: tuple[str, ...]) -> str | None:
    """Return `KIND AAAA…` if the text is the line of such a public key."""
    words = text.split()
    if len(text.splitlines()) != 1 or len(words) < 2 or words[0] not in kinds:
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except ValueError:
        return None
    fields = []
    while blob:
        size = int.from_bytes(blob[:4])
        if len(blob) < 4 + size:
            return None
        fields.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    if not fields or fields[0] != words[0].encode():
        return None
    if words[0] == "ssh-ed25519":
        whole = [len(each) for each in fields[1:]] == [32]
    else:
        whole = len(fields) == 3 and len(fields[2].lstrip(b"\0")) >= _RSA_BYTES_MIN
    return f"{words[0]} {words[1]}" if whole else None


class _KeySection(Section):
    """A section with a private key in a file and its passphrase."""

    _unlocked_by: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _nothing_shown(cls, data: Any) -> Any:
        """Refuse what must not be shown here, where no value is shown."""
        if not isinstance(data, dict):
            return data
        name = cls._unlocked_by
        if not isinstance(data.get(name, ""), str | SecretStr):
            raise ValueError(f"{name} must be a text, in quotes")
        for key, value in data.items():
            if key != name and _PRIVATE.search(str(value)):
                raise ValueError(
                    f"{key} holds a private key, which must stay in its file"
                )
        return data

    @model_validator(mode="after")
    def _one_passphrase(self) -> _KeySection:
        name = self._unlocked_by
        if self._passphrase().get_secret_value() and self._passphrase_file():
            raise ValueError(f"only one of {name} and {name}_file may be set")
        return self

    def resolve_passphrase(self) -> str:
        """Return the passphrase of the key's file, empty where there is none.

        Raises:
            ConfigurationError: the file with it cannot be read, may be read by others,
                or does not hold one line.
        """
        path = self._passphrase_file()
        if path is None:
            return self._passphrase().get_secret_value()
        return _read_passphrase(f"{self._unlocked_by}_file", path)

    def _passphrase(self) -> SecretStr:
        found: SecretStr = getattr(self, self._unlocked_by)
        return found

    def _passphrase_file(self) -> Path | None:
        found: Path | None = getattr(self, f"{self._unlocked_by}_file")
        return found


class EncryptionSettings(_KeySection):
    """To whom backup sets are encrypted, and what opens them again."""

    _unlocked_by: ClassVar[str] = "identity_passphrase"

    recipients: list[str] = Field(
        default=[],
        description="public keys that sets are encrypted to: `age1…`, `ssh-ed25519 "
        "AAAA…`, `ssh-rsa AAAA…`; empty: sets are not encrypted",
    )
    identity_file: KeyFile = Field(
        default=None,
        description="the private key, of age or OpenSSH: needed to restore and to "
        "drill, never to back up",
    )
    identity_passphrase: SecretStr = Field(
        default=SecretStr(""),
        description="its passphrase, if it has one; leave it to the environment",
    )
    identity_passphrase_file: KeyFile = Field(
        default=None,
        description="a file of mode 0600 that holds the passphrase",
    )

    @field_validator("recipients")
    @classmethod
    def _known_recipients(cls, recipients: list[str]) -> list[str]:
        return [recipient(each) for each in recipients]


class SigningSettings(_KeySection):
    """What sets and evidence are signed with, and whose signatures are believed."""

    _unlocked_by: ClassVar[str] = "key_passphrase"

    key_file: KeyFile = Field(
        default=None,
        description="a private ed25519 key of OpenSSH that signs manifests and "
        "evidence; empty: they are not signed",
    )
    key_passphrase: SecretStr = Field(
        default=SecretStr(""),
        description="its passphrase, if it has one; leave it to the environment",
    )
    key_passphrase_file: KeyFile = Field(
        default=None,
        description="a file of mode 0600 that holds the passphrase",
    )
    trusted_keys: list[str] = Field(
        default=[],
        description="public keys, `ssh-ed25519 AAAA…`; if there is one, a set that "
        "none of them signed is refused",
    )

    @field_validator("trusted_keys")
    @classmethod
    def _known_keys(cls, trusted_keys: list[str]) -> list[str]:
        return [public_key(each) for each in trusted_keys]


def _read_passphrase(key: str, path: Path) -> str:
    try:
        found = path.stat().st_mode
        # A pipe without a writer must not hold us up.
        text = path.read_text(encoding="utf-8") if stat.S_ISREG(found) else ""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigurationError(
            f"{key} {path} cannot be read: {reason}",
            hint="Check the path and that this user may read it.",
        ) from error
    if found & 0o077 and stat.S_ISREG(found):
        raise ConfigurationError(
            f"{key} {path} may be read by others (mode {stat.S_IMODE(found):04o})",
            hint=f"Run chmod 600 {path}; if others could read it, change it.",
        )
    if len(text.splitlines()) != 1 or not text.strip("\r\n"):
        raise ConfigurationError(
            f"{key} {path} does not hold a passphrase on one line",
            hint="The file holds the passphrase on its first line and nothing else.",
        )
    return text.rstrip("\r\n")
