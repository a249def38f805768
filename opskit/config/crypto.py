"""The settings of encryption and signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from opskit.config.section import Section
from opskit.crypto import keys
from opskit.errors import ConfigurationError


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


KeyFile = Annotated[Path | None, BeforeValidator(_none_if_empty)]


class _KeySection(Section):
    """A section with a private key in a file and its passphrase."""

    @model_validator(mode="before")
    @classmethod
    def _no_private_key(cls, data: Any) -> Any:
        """Refuse secrets here, where the error does not show the value."""
        if not isinstance(data, dict):
            return data
        (name,) = cls._secrets
        if not isinstance(data.get(name, ""), str | SecretStr):
            raise ValueError(f"{name} must be a text, in quotes")
        for key, value in data.items():
            if key != name and keys.holds_private_key(str(value)):
                raise ValueError(
                    f"{key} holds a private key, which must stay in its file"
                )
        return data

    def resolve_passphrase(self) -> str:
        """Return the passphrase of the key's file, empty if there is none.

        Raises:
            ConfigurationError: the file with it cannot be read, may be read by others,
                or does not hold one line.
        """
        (name,) = self._secrets
        return self._resolve(name, _read_passphrase)


class EncryptionSettings(_KeySection):
    """The keys that backup sets are encrypted to, and the one that decrypts them."""

    _secrets = ("identity_passphrase",)

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
        return [keys.recipient(each)[0] for each in recipients]


class SigningSettings(_KeySection):
    """The key that signs sets and evidence, and the keys that are trusted."""

    _secrets = ("key_passphrase",)

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
        return [keys.signing_key(each)[0] for each in trusted_keys]


def _read_passphrase(key: str, path: Path) -> str:
    try:
        text = keys.read(path, key).decode()
    except UnicodeDecodeError:
        text = ""
    if len(text.splitlines()) != 1 or not text.strip("\r\n"):
        raise ConfigurationError(
            f"{key} {path} does not hold a passphrase on one line",
            hint="The file holds the passphrase on its first line and nothing else.",
        )
    return text.rstrip("\r\n")
