"""Configuration of encryption and signatures: forms, passphrases, nothing shown."""

from __future__ import annotations

import base64
import os
from itertools import count
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from opskit.config.settings import EncryptionSettings, SigningSettings
from opskit.crypto import keys as crypto_keys
from opskit.errors import ConfigurationError
from tests.unit.conftest import LoadConfig

_own = pyrage.x25519.Identity.generate()
AGE, SECRET = str(_own.to_public()), str(_own)


def _ssh(kind: str, *fields: bytes) -> str:
    parts = [kind.encode(), *fields]
    blob = b"".join(len(each).to_bytes(4) + each for each in parts)
    return f"{kind} {base64.b64encode(blob).decode()}"


def _line(private: Any) -> str:
    return crypto_keys.line(private.public_key())


ED25519 = _line(Ed25519PrivateKey.generate())
RSA = _line(rsa.generate_private_key(65537, 2048))
SMALL_RSA = _line(rsa.generate_private_key(65537, 1024))
KINDS = [AGE, ED25519, RSA]
SECTIONS = [("encryption", "identity"), ("signing", "key")]
PASSPHRASE = " correct horse "


def _message(load_config: LoadConfig, text: str, **variables: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load_config(text, **variables)
    assert refused.value.exit_code == 2
    return refused.value.message


def test_nothing_is_encrypted_or_signed_by_itself(load_config: LoadConfig) -> None:
    """An empty file name means none, as the example writes it."""
    text = '[encryption]\nrecipients = []\nidentity_file = ""\n[signing]\nkey_file = ""'
    for found in (load_config(""), load_config(text)):
        assert (found.encryption.recipients, found.signing.trusted_keys) == ([], [])
        assert (found.encryption.identity_file, found.signing.key_file) == (None, None)
        assert found.encryption.resolve_passphrase() == ""
        assert found.signing.resolve_passphrase() == ""


def test_files_of_keys_are_paths(load_config: LoadConfig) -> None:
    """They are read when they are needed, not before."""
    found = load_config(
        '[encryption]\nidentity_file = "/none/a"\n[signing]\nkey_file = "/none/b"'
    )

    assert found.encryption.identity_file == Path("/none/a")
    assert found.signing.key_file == Path("/none/b")


@pytest.mark.parametrize("written", ["{}", "  {} ", "{} ops@example", "{}  a b"])
@pytest.mark.parametrize("kind", [ED25519, RSA], ids=count())
def test_comments_of_keys_go(kind: str, written: str) -> None:
    """A key is the same with any."""
    text = written.format(kind)

    assert EncryptionSettings(recipients=[AGE, text]).recipients == [AGE, kind]
    if kind == ED25519:
        assert SigningSettings(trusted_keys=[text]).trusted_keys == [kind]


@given(st.data())
def test_one_letter_amiss_in_a_recipient_is_noticed(data: st.DataObject) -> None:
    """By its check sum; capital letters are no difference."""
    good = str(pyrage.x25519.Identity.generate().to_public())
    at = data.draw(st.integers(4, len(good) - 1))
    letter = data.draw(st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
    bad = good[:at] + letter + good[at + 1 :]

    assert EncryptionSettings(recipients=[good.upper()]).recipients == [good]
    if bad != good:
        with pytest.raises(ValueError, match="is not a recipient"):
            EncryptionSettings(recipients=[bad])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "age1",
        AGE[:-1],
        AGE + "q",
        AGE + " " + AGE,
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 !!!",
        ED25519[:-4],
        ED25519 + "\n" + ED25519,
        _ssh("ssh-ed25519", b"k" * 31),
        _ssh("ssh-ed25519", b"k" * 32, b"x"),
        ED25519.replace("ssh-ed25519", "ssh-rsa"),
        SMALL_RSA,
        _ssh("ssh-rsa", b"\1\0\1", b"\0" * 256),
        _ssh("ssh-dss", b"k" * 32),
    ],
    ids=count(),
)
def test_what_is_no_recipient_is_refused(load_config: LoadConfig, text: str) -> None:
    """What is allowed stands in the message, beside the one that is none."""
    message = _message(
        load_config,
        "",
        OPSKIT_ENCRYPTION__RECIPIENTS=str([AGE, text]).replace("'", '"'),
    )

    assert message.split(": ", 1)[1].startswith("encryption.recipients = ")
    assert f"{text.strip()!r} is not a recipient: write age1…" in message


@pytest.mark.parametrize(
    "text", ["", "ssh-ed25519", AGE, RSA, ED25519[:-4], "x y"], ids=count()
)
def test_what_is_no_trusted_key_is_refused(load_config: LoadConfig, text: str) -> None:
    """Only ed25519 keys sign."""
    message = _message(load_config, f'[signing]\ntrusted_keys = ["{text}"]')

    assert f"{text!r} is not an ed25519 key: write ssh-ed25519 AAAA…" in message


@pytest.mark.parametrize(
    ("section", "key", "held"),
    [
        ("encryption", "recipients", '["{}"]'),
        ("encryption", "recipients", '"{}"'),
        ("encryption", "identity_file", '"{}"'),
        ("encryption", "identity_passphrase_file", '"{}"'),
        ("encryption", "identiy_file", '"{}"'),
        ("signing", "key_file", '"{}"'),
        ("signing", "trusted_keys", '["{}"]'),
    ],
)
@pytest.mark.parametrize(
    "secret",
    [SECRET, SECRET.lower(), "-----BEGIN OPENSSH PRIVATE KEY-----b3Blbn"],
    ids=count(),
)
def test_a_private_key_given_by_mistake_is_not_shown(
    load_config: LoadConfig, section: str, key: str, held: str, secret: str
) -> None:
    """Wherever it was put."""
    message = _message(load_config, f"[{section}]\n{key} = {held.format(secret)}")

    assert f"{section} = {{…}}: {key} holds a private key" in message
    assert secret[-6:] not in message


@pytest.mark.parametrize(("section", "name"), SECTIONS)
def test_a_passphrase_comes_from_the_environment(
    load_config: LoadConfig, section: str, name: str
) -> None:
    """As it is, and is not shown."""
    variable = f"OPSKIT_{section}__{name}_PASSPHRASE".upper()

    found = getattr(load_config("", **{variable: PASSPHRASE}), section)

    assert found.resolve_passphrase() == PASSPHRASE
    assert PASSPHRASE.strip() not in repr(found)


@pytest.mark.parametrize(("section", "name"), SECTIONS)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_passphrase_comes_from_a_file(
    load_config: LoadConfig, tmp_path: Path, section: str, name: str, end: str
) -> None:
    """Its line end does not belong to it, spaces do."""
    path = tmp_path / "passphrase"
    path.write_bytes((PASSPHRASE + end).encode())
    path.chmod(0o600)

    found = load_config(f'[{section}]\n{name}_passphrase_file = "{path}"')

    assert getattr(found, section).resolve_passphrase() == PASSPHRASE


@pytest.mark.parametrize(("section", "name"), SECTIONS)
def test_two_passphrases_are_refused(
    load_config: LoadConfig, section: str, name: str
) -> None:
    """Neither is shown."""
    text = f'[{section}]\n{name}_passphrase = "hunter2"\n{name}_passphrase_file = "/a"'

    message = _message(load_config, text)

    assert f"only one of {name}_passphrase and {name}_passphrase_file" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(("section", "name"), SECTIONS)
@pytest.mark.parametrize("value", ["31415926", "true", "[31415926]", "3.1415926"])
def test_a_passphrase_that_is_no_text_is_not_shown(
    load_config: LoadConfig, section: str, name: str, value: str
) -> None:
    """Digits without quotes are a number to TOML."""
    message = _message(load_config, f"[{section}]\n{name}_passphrase = {value}")

    assert f"{name}_passphrase must be a text, in quotes" in message
    assert "1415926" not in message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_passphrase_that_others_may_read_is_refused(
    tmp_path: Path, mode: int
) -> None:
    """With what to do about it."""
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE)
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as refused:
        SigningSettings(key_passphrase_file=path).resolve_passphrase()

    assert refused.value.message == (
        f"key_passphrase_file {path} may be read by others (mode {mode:04o})"
    )
    assert refused.value.hint.startswith(f"Run chmod 600 {path}")


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"\n\n"])
def test_a_file_without_one_passphrase_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    """Which of two lines was meant cannot be told."""
    path = tmp_path / "passphrase"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="a passphrase on one line"):
        EncryptionSettings(identity_passphrase_file=path).resolve_passphrase()


def test_a_passphrase_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a folder, a pipe that nobody writes to, not UTF-8."""
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "bytes").chmod(0o600)
    os.mkfifo(tmp_path / "pipe", 0o600)
    words = {
        "none": "does not exist",
        "bytes": "a passphrase on one line",
        "pipe": "is not a file",
        ".": "is not a file",
    }
    for name, expected in words.items():
        found = EncryptionSettings(identity_passphrase_file=tmp_path / name)
        with pytest.raises(ConfigurationError, match=expected):
            found.resolve_passphrase()
