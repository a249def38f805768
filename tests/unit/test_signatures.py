"""Signatures: whose, of what, and that ssh-keygen and opskit believe each other."""

from __future__ import annotations

import base64
import re
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from opskit.crypto import keys as crypto_keys
from opskit.crypto import signatures
from opskit.crypto.signatures import SignatureError, Signer
from opskit.errors import ConfigurationError
from tests.unit import stock

CONTENT = b'{"backup_id": "shop-20260101T000000Z-0001"}\n'
KEY = Signer(ed25519.Ed25519PrivateKey.generate())
OTHER = Signer(ed25519.Ed25519PrivateKey.generate())
SIGNATURE = KEY.sign(CONTENT)
OPENSSH = serialization.PrivateFormat.OpenSSH
PKCS8 = serialization.PrivateFormat.PKCS8


def _key_file(
    path: Path, key, form: serialization.PrivateFormat, passphrase: str = ""
) -> Path:
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = serialization.BestAvailableEncryption(passphrase.encode())
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, lock))
    path.chmod(0o600)
    return path


def _refused(content: bytes, signature: bytes, *trusted: str) -> str:
    with pytest.raises(SignatureError) as refused:
        signatures.verify(content, signature, trusted or [KEY.public_key])
    assert refused.value.exit_code == 20
    assert refused.value.hint.endswith(".")
    return refused.value.message


def _armoured(raw: bytes) -> bytes:
    return b"-----BEGIN SSH SIGNATURE-----\n%s\n-----END SSH SIGNATURE-----\n" % (
        base64.b64encode(raw)
    )


def _raw(armoured: bytes) -> bytes:
    return base64.b64decode(b"".join(armoured.splitlines()[1:-1]))


@given(st.binary(max_size=200))
def test_a_signature_names_the_key_that_made_it(content: bytes) -> None:
    """Whichever of the trusted keys it was."""
    found = signatures.verify(
        content, KEY.sign(content), [OTHER.public_key, f" {KEY.public_key} ops@a b\n"]
    )

    assert found == KEY.fingerprint


def test_a_signature_by_a_key_that_is_not_trusted_is_refused() -> None:
    """And says whose it is, so that a person can judge."""
    expected = f"it is signed by the key {KEY.fingerprint}, which is not trusted"

    assert _refused(CONTENT, SIGNATURE, OTHER.public_key) == expected
    with pytest.raises(SignatureError, match="is not trusted"):
        signatures.verify(CONTENT, SIGNATURE, [])


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b" ", b"other"])
def test_a_signature_of_other_content_is_refused(content: bytes) -> None:
    """A byte is enough."""
    assert _refused(content, SIGNATURE) == (
        f"the signature by the key {KEY.fingerprint} is not of this content"
    )


def test_any_byte_of_a_signature_counts() -> None:
    """None can be changed without being noticed."""
    raw = _raw(SIGNATURE)
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        assert _refused(CONTENT, _armoured(bytes(changed)))

    assert signatures.verify(CONTENT, _armoured(raw), [KEY.public_key])


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"signed, honestly",
        SIGNATURE[:-30],
        SIGNATURE[20:],
        SIGNATURE + b"more",
        b"more\n" + SIGNATURE,
        SIGNATURE + SIGNATURE,
        SIGNATURE.replace(b"U1NI", b"!!!!", 1),
        _armoured(b""),
        _armoured(_raw(SIGNATURE)[:-1]),
        _armoured(_raw(SIGNATURE) + b"\0"),
        _armoured(_raw(SIGNATURE)[:8]),
        _armoured(_raw(SIGNATURE).replace(b"sha512", b"sha999")),
        _armoured(b"SSHSIG" + (2).to_bytes(4) + _raw(SIGNATURE)[10:]),
        _armoured(_raw(SIGNATURE).replace(b"opskit\0\0\0\0", b"opskit\0\0\0\1x")),
    ],
    ids=count(),
)
def test_what_is_no_signature_is_refused(signature: bytes) -> None:
    """Cut, with something added, of a later version, or of another world."""
    assert _refused(CONTENT, signature) == (
        "this is not a signature of OpenSSH's format"
    )


def test_every_cut_of_a_signature_is_refused() -> None:
    """Only the last line end may be missing."""
    for length in range(len(SIGNATURE) - 1):
        assert _refused(CONTENT, SIGNATURE[:length])

    assert signatures.verify(CONTENT, SIGNATURE[:-1], [KEY.public_key])


def test_lines_may_end_as_elsewhere() -> None:
    """A mail program's line ends are no difference."""
    changed = SIGNATURE.replace(b"\n", b"\r\n")

    assert signatures.verify(CONTENT, changed, [KEY.public_key]) == KEY.fingerprint


def test_a_trusted_key_that_is_none_is_a_matter_of_the_configuration() -> None:
    """Nothing is refused or believed for it."""
    with pytest.raises(ConfigurationError, match="'ssh-rsa A' is not an ed25519 key"):
        signatures.verify(CONTENT, SIGNATURE, [KEY.public_key, "ssh-rsa A"])


def test_a_public_key_is_normalised() -> None:
    """The comment and spaces go."""
    assert crypto_keys.signing_key(KEY.public_key)[0] == KEY.public_key
    assert crypto_keys.signing_key(f" {KEY.public_key}  a b\n")[0] == KEY.public_key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 !!!!",
        KEY.public_key[:-4],
        KEY.public_key.replace("ssh-ed25519", "ssh-rsa"),
        KEY.public_key + "\n" + OTHER.public_key,
        "ssh-ed25519 " + base64.b64encode(b"\0\0\0\1x\0\0\0\1y").decode(),
        'namespaces="opskit" ' + KEY.public_key,
    ],
    ids=count(),
)
def test_what_is_no_ed25519_key_is_refused(text: str) -> None:
    """What is allowed stands in the message."""
    with pytest.raises(
        ValueError, match="is not an ed25519 key: write ssh-ed25519 AAAA…"
    ):
        crypto_keys.signing_key(text)


@pytest.mark.parametrize(
    "secret",
    ["-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn", "AGE-SECRET-KEY-1b3Blbn"],
)
def test_a_private_key_given_by_mistake_is_not_shown(secret: str) -> None:
    """Neither in part."""
    with pytest.raises(ValueError, match="must stay secret") as refused:
        crypto_keys.signing_key(secret)

    assert "b3Blbn" not in str(refused.value)


@pytest.mark.parametrize("form", [OPENSSH, PKCS8])
def test_keys_of_both_forms_sign(
    tmp_path: Path, form: serialization.PrivateFormat
) -> None:
    """A passphrase that is not needed is no fault."""
    key = ed25519.Ed25519PrivateKey.generate()
    path = _key_file(tmp_path / "key", key, form)

    signer = Signer.load(path, passphrase="x")

    assert signer.public_key == Signer.load(path).public_key
    assert signatures.verify(b"a", signer.sign(b"a"), [signer.public_key])
    assert repr(signer) == f"Signer({signer.fingerprint})"


def test_keys_with_a_passphrase_sign(tmp_path: Path) -> None:
    """Wrong and missing passphrases are told apart."""
    key = ed25519.Ed25519PrivateKey.generate()
    path = _key_file(tmp_path / "key", key, PKCS8, "hunter2")

    assert Signer.load(path, passphrase="hunter2").sign(b"a")
    for passphrase, words in (("", "needs a passphrase"), ("x", "does not open")):
        with pytest.raises(ConfigurationError, match=words) as refused:
            Signer.load(path, passphrase=passphrase)
        assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ecdsa", "rsa"],
)
def test_other_kinds_of_keys_do_not_sign(tmp_path: Path, key) -> None:
    """The signature must be one that opskit checks."""
    path = _key_file(tmp_path / "key", key, OPENSSH)
    with pytest.raises(ConfigurationError) as refused:
        Signer.load(path)

    assert refused.value.message == f"signing key {path} is not an ed25519 key"


@pytest.mark.parametrize(
    ("content", "held"),
    [(KEY.public_key, "only a public key"), ("", "no key"), ("hunter2", "no key")],
    ids=count(),
)
def test_a_file_without_a_private_key_is_refused(
    tmp_path: Path, content: str, held: str
) -> None:
    """The public key, named by mistake, signs nothing; nothing of it is shown."""
    path = tmp_path / "key.pub"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError) as refused:
        Signer.load(path)

    assert refused.value.message == f"signing key {path} holds {held}"


def test_a_key_that_others_may_read_does_not_sign(tmp_path: Path) -> None:
    """Nor one that is missing."""
    key = ed25519.Ed25519PrivateKey.generate()
    path = _key_file(tmp_path / "key", key, OPENSSH)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"by others \(mode 0644\)"):
        Signer.load(path)
    with pytest.raises(ConfigurationError, match="none does not exist"):
        Signer.load(tmp_path / "none")


def _ssh_verify(path: Path, public: str, *, fails: bool = False) -> bytes:
    allowed = path.with_name("allowed_signers")
    allowed.write_text(f'opskit namespaces="opskit" {public}\n')
    return stock.run(
        "ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "opskit", "-n", "opskit",
        "-s", f"{path}.sig", stdin=path.read_bytes(), fails=fails,
    )  # fmt: skip


def test_the_stock_program_believes_our_signature(tmp_path: Path) -> None:
    """And refuses it where content or key is another."""
    public = stock.ssh_key(tmp_path / "key")
    signer = Signer.load(tmp_path / "key")
    path = tmp_path / "manifest.json"
    path.write_bytes(CONTENT)
    Path(f"{path}.sig").write_bytes(signer.sign(CONTENT))

    assert signer.public_key == public
    assert signer.fingerprint.encode() in _ssh_verify(path, public)
    _ssh_verify(path, OTHER.public_key, fails=True)
    path.write_bytes(CONTENT + b" ")
    _ssh_verify(path, public, fails=True)


def test_fingerprints_are_those_of_the_stock_program(tmp_path: Path) -> None:
    """As `ssh-keygen -l` prints them."""
    stock.ssh_key(tmp_path / "key")
    printed = stock.run("ssh-keygen", "-l", "-f", tmp_path / "key").decode()

    assert printed.split()[1] == Signer.load(tmp_path / "key").fingerprint


@pytest.mark.parametrize("name", ["sha512", "sha256"])
def test_we_believe_the_stock_program(tmp_path: Path, name: str) -> None:
    """With either of its digests, and byte for byte the same as we write."""
    public = stock.ssh_key(tmp_path / "key")
    signer = Signer.load(tmp_path / "key")
    options = ("-n", "opskit", "-O", f"hashalg={name}", "-f", tmp_path / "key")
    theirs = stock.run("ssh-keygen", "-Y", "sign", *options, stdin=CONTENT)

    assert signatures.verify(CONTENT, theirs, [public]) == signer.fingerprint
    assert (theirs == signer.sign(CONTENT)) == (name == "sha512")
    assert "not of this content" in _refused(CONTENT + b" ", theirs, public)


def test_a_signature_for_another_use_is_refused(tmp_path: Path) -> None:
    """A commit signed with the same key is no manifest."""
    public = stock.ssh_key(tmp_path / "key")
    options = ("-n", "git", "-f", tmp_path / "key")
    theirs = stock.run("ssh-keygen", "-Y", "sign", *options, stdin=CONTENT)

    assert _refused(CONTENT, theirs, public) == (
        "the signature is for 'git', not for 'opskit'"
    )


def test_a_signature_by_another_kind_of_key_names_it(tmp_path: Path) -> None:
    """It is well-formed, only not trusted."""
    stock.ssh_key(tmp_path / "key", kind="ecdsa")
    options = ("-n", "opskit", "-f", tmp_path / "key")
    theirs = stock.run("ssh-keygen", "-Y", "sign", *options, stdin=CONTENT)
    listed = stock.run("ssh-keygen", "-l", "-f", tmp_path / "key").decode()
    found = re.search(r"SHA256:\S+", _refused(CONTENT, theirs))

    assert found is not None
    assert found[0].rstrip(",") == listed.split()[1]


def test_a_key_with_a_passphrase_of_the_stock_program_signs(tmp_path: Path) -> None:
    """As ssh-keygen locks it."""
    path = tmp_path / "key"
    public = stock.ssh_key(path, "-a", "2", passphrase="hunter2")

    assert Signer.load(path, passphrase="hunter2").public_key == public
    with pytest.raises(ConfigurationError, match="does not open"):
        Signer.load(path, passphrase="x")
