"""Identity files: what opens, and what is refused with a word of what to do."""

from __future__ import annotations

import base64
import hmac
import os
import pty
import secrets
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from opskit.crypto import age
from opskit.crypto import keys as crypto_keys
from opskit.crypto.keys import Identities
from opskit.errors import ConfigurationError
from tests.unit import stock
from tests.unit.conftest import Unprivileged

PASSPHRASE = "correct horse ünd battery"
_first, _second = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
FIRST, SECOND = str(_first.to_public()), str(_second.to_public())
AGE_FILE = f"# created: today\n# public key: {FIRST}\n{_first}\n\n  {_second}  \r\n"
ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
OPENSSH = serialization.PrivateFormat.OpenSSH
PKCS8 = serialization.PrivateFormat.PKCS8
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
Write = Callable[..., Path]
Private = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def _public(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        .decode()
    )


def _private(
    key: Private, form: serialization.PrivateFormat, passphrase: str = ""
) -> bytes:
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(serialization.Encoding.PEM, form, lock)


def _armoured(content: bytes) -> bytes:
    text = base64.b64encode(content)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    edges = [b"-----%s AGE ENCRYPTED FILE-----" % word for word in (b"BEGIN", b"END")]
    return b"\n".join([edges[0], *lines, edges[1], b""])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a key file."""

    def write(content: bytes | str, mode: int = 0o600) -> Path:
        path = tmp_path / "identity"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    return write


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def _locked() -> bytes:
    """Write an age identity file with a passphrase by hand, quick to be opened.

    The libraries choose a work factor that takes a second and more.
    """
    file_key, salt, nonce = (secrets.token_bytes(16) for _ in range(3))
    seasoned = b"age-encryption.org/v1/scrypt" + salt
    wrapping = Scrypt(seasoned, 32, 2**10, 8, 1).derive(PASSPHRASE.encode())
    wrapped = ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None)
    head = b"age-encryption.org/v1\n-> scrypt %s 10\n%s\n---" % (
        base64.b64encode(salt).rstrip(b"="),
        base64.b64encode(wrapped).rstrip(b"="),
    )
    mac = hmac.digest(_derived(file_key, b"", b"header"), head, "sha256")
    payload = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
    # The nonce of the first block that is the last too.
    sealed = payload.encrypt(bytes(11) + b"\1", AGE_FILE.encode(), None)
    return head + b" " + base64.b64encode(mac).rstrip(b"=") + b"\n" + nonce + sealed


def _opens(own: Identities) -> bool:
    """Tell whether each of the public keys told belongs to an identity."""
    return all(
        b"".join(age.decrypted(age.encrypted([b"rows"], [each]), own)) == b"rows"
        for each in own.recipients
    )


def _refused(path: Path, passphrase: str = "") -> ConfigurationError:
    with pytest.raises(ConfigurationError) as refused:
        crypto_keys.load(path, passphrase=passphrase)
    assert refused.value.exit_code == 2
    assert refused.value.hint.endswith(".")
    assert PASSPHRASE not in refused.value.message + refused.value.hint
    return refused.value


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_an_age_file_may_hold_several_keys_and_comments(
    write: Write, mode: int
) -> None:
    """Each of them opens what is for it."""
    own = crypto_keys.load(write(AGE_FILE, mode))

    assert own.recipients == (FIRST, SECOND)
    assert _opens(own)


def test_identities_show_nothing_of_themselves(write: Write) -> None:
    """In a log or a traceback there is the path and public keys."""
    own = crypto_keys.load(write(AGE_FILE))

    assert repr(own) == (
        f"Identities(path={own.path!r}, recipients=({FIRST!r}, {SECOND!r}))"
    )


@pytest.mark.parametrize(
    ("content", "public"),
    [
        (_private(ED25519, OPENSSH), _public(ED25519)),
        (_private(ED25519, PKCS8), _public(ED25519)),
        (_private(RSA, OPENSSH), _public(RSA)),
        (_private(RSA, PKCS8), _public(RSA)),
        (_private(RSA, TRADITIONAL), _public(RSA)),
    ],
    ids=["ed25519", "ed25519 in PEM", "rsa", "rsa in PEM", "rsa in old PEM"],
)
def test_ssh_keys_are_identities(write: Write, content: bytes, public: str) -> None:
    """A passphrase that the key does not need is no fault."""
    own = crypto_keys.load(write(content))

    assert own.recipients == (public,)
    assert _opens(own)
    assert crypto_keys.load(write(content), passphrase="x").recipients == (public,)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_ssh_keys_with_a_passphrase_open(tmp_path: Path, kind: str) -> None:
    """As ssh-keygen makes them; wrong and missing passphrases are told apart."""
    path = tmp_path / "key"
    public = stock.ssh_key(path, "-a", "2", kind=kind, passphrase=PASSPHRASE)

    own = crypto_keys.load(path, passphrase=PASSPHRASE)

    assert own.recipients == (public,)
    assert _opens(own)
    assert _refused(path, "wrong").message == (
        f"the passphrase does not open identity file {path}"
    )
    assert _refused(path).message == (
        f"identity file {path} needs a passphrase, and none is given"
    )


@pytest.mark.parametrize("form", [PKCS8, TRADITIONAL])
def test_pem_keys_with_a_passphrase_open(
    write: Write, form: serialization.PrivateFormat
) -> None:
    """Of both forms of PEM."""
    path = write(_private(RSA, form, PASSPHRASE))

    assert crypto_keys.load(path, passphrase=PASSPHRASE).recipients == (_public(RSA),)
    assert "passphrase does not open" in _refused(path, "wrong").message
    assert "needs a passphrase" in _refused(path).message


@pytest.mark.parametrize("form", [bytes, _armoured])
def test_an_age_file_with_a_passphrase_opens(
    write: Write, form: Callable[[bytes], bytes]
) -> None:
    """Binary or armoured; wrong and missing passphrases are told apart."""
    path = write(form(_locked()))

    own = crypto_keys.load(path, passphrase=PASSPHRASE)

    assert own.recipients == (FIRST, SECOND)
    assert _refused(path, "wrong").message == (
        f"the passphrase does not open identity file {path}"
    )
    assert _refused(path).message == (
        f"identity file {path} needs a passphrase, and none is given"
    )


def test_an_identity_file_that_the_stock_program_locked_opens(tmp_path: Path) -> None:
    """`age -p` asks on a terminal, so it gets one."""
    public = stock.age_key(tmp_path / "plain")
    path = tmp_path / "locked"
    shell = f"exec {stock.program('age')} -p -o {path} {tmp_path / 'plain'}"
    mine, its = pty.openpty()
    try:
        # The first terminal that the leader of a session opens becomes its own.
        command = ["sh", "-c", f"exec <{os.ttyname(its)}; {shell}"]
        os.write(mine, b"a passphrase\na passphrase\n")
        done = subprocess.run(
            command, start_new_session=True, capture_output=True, timeout=60
        )
    finally:
        os.close(mine)
        os.close(its)
    assert done.returncode == 0, done.stderr
    path.chmod(0o600)

    assert crypto_keys.load(path, passphrase="a passphrase").recipients == (public,)


def test_an_identity_file_encrypted_to_a_key_is_refused(write: Write) -> None:
    """A passphrase cannot open it, and that is said."""
    path = write(b"".join(age.encrypted([AGE_FILE.encode()], [FIRST])))

    assert "not encrypted with a passphrase" in _refused(path, "x").message


def test_a_damaged_file_with_a_passphrase_is_refused(
    write: Write,
) -> None:
    """Cut in its head, so that no passphrase is tried at length."""
    assert "is damaged" in _refused(write(_locked()[:60]), "x").message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644])
def test_a_file_that_others_may_read_is_refused(write: Write, mode: int) -> None:
    """Whatever others may do with it."""
    path = write(AGE_FILE, mode)

    error = _refused(path)

    assert error.message == (
        f"identity file {path} may be read by others (mode {mode:04o})"
    )
    assert error.hint.startswith(f"Run chmod 600 {path}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With its path."""
    path = tmp_path / "none"

    assert _refused(path).message == f"identity file {path} does not exist"


def test_a_file_that_cannot_be_read_is_named(
    shared_path: Path, unprivileged: Unprivileged
) -> None:
    """With the system's reason."""
    path = shared_path / "identity"
    path.write_text(AGE_FILE)
    path.chmod(0)
    with unprivileged():
        message = _refused(path).message

    assert message == f"identity file {path} cannot be read: Permission denied"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, and a pipe that nobody writes to, without waiting for it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)

    assert _refused(tmp_path).message == f"identity file {tmp_path} is not a file"
    assert _refused(pipe).message == f"identity file {pipe} is not a file"
    assert "cannot be read" in _refused(Path("a\0b")).message


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ("", "no identity"),
        ("# nothing yet\n\n", "no identity"),
        (FIRST, "only public keys"),
        (f"# two\n{FIRST}\n{_public(ED25519)} ops@example\n", "only public keys"),
        (_public(RSA), "only public keys"),
    ],
    ids=count(),
)
def test_a_file_without_an_identity_is_refused(
    write: Write, content: str, held: str
) -> None:
    """Public keys open nothing."""
    path = write(content)

    assert _refused(path).message == f"identity file {path} holds {held}"


@pytest.mark.parametrize(
    "line",
    ["hunter2", str(_first)[:-1], "AGE-PLUGIN-X-1QQQQ", "\x00\xff", "ssh-dss A"],
    ids=count(),
)
def test_a_line_that_is_no_identity_is_not_shown(write: Write, line: str) -> None:
    """It may be a secret; its number tells where it is."""
    path = write(f"# keys\n{_second}\n{line}\n")

    assert (
        _refused(path).message == f"line 3 of identity file {path} is not an identity"
    )


def test_a_key_that_age_does_not_know_is_refused(write: Write) -> None:
    """A key on another curve opens nothing."""
    path = write(_private(ec.generate_private_key(ec.SECP256R1()), OPENSSH))

    assert "is neither an ed25519 nor an rsa key" in _refused(path).message


@pytest.mark.parametrize("passphrase", ["", "x"])
@pytest.mark.parametrize("form", [OPENSSH, PKCS8])
def test_a_damaged_ssh_key_is_refused(
    write: Write, form: serialization.PrivateFormat, passphrase: str
) -> None:
    """Whether a passphrase is configured or not, it is not blamed."""
    whole = _private(ED25519, form)
    path = write(whole[: len(whole) // 2] + whole[-40:])

    assert _refused(path, passphrase).message == (
        f"identity file {path} is not a key that can be read: it may be damaged"
    )


def test_a_file_far_too_large_is_refused(write: Write) -> None:
    """A dump named by mistake is not read to its end."""
    path = write(b"#" * 2_000_000)

    assert _refused(path).message == f"identity file {path} is too large for a key file"
