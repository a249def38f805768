"""Certificates that nobody but a test trusts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_HOUR = timedelta(hours=1)


class Authority:
    """One that signs certificates; its own is `file`, signed by `signer` or itself."""

    def __init__(self, folder: Path, signer: Authority | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name("below" if signer else "root")
        self.certificate = _signed(
            self.name, self.key, signer or self, _HOUR, is_ca=True
        )
        self.file = folder / f"{'below' if signer else 'root'}.pem"
        self.file.write_bytes(_pem(self.certificate))
        self._folder = folder

    def issue(
        self,
        *names: str,
        valid_for: timedelta = _HOUR,
        chain: tuple[Authority, ...] = (),
    ) -> Path:
        """Make a certificate of names or addresses, with its key in the same file.

        What stands between it and the root is sent with it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = _signed(_name("service"), key, self, valid_for, names=names)
        path = self._folder / f"{made.serial_number}.pem"
        sent = (made, *(each.certificate for each in chain))
        path.write_bytes(_key_pem(key) + b"".join(map(_pem, sent)))
        return path


def self_signed(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1, its `key.pem` beside it, and return its file."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = _signed(_name("test"), key, None, _HOUR, names=("127.0.0.1",), is_ca=True)
    path = folder / "certificate.pem"
    path.write_bytes(_pem(made))
    path.with_name("key.pem").write_bytes(_key_pem(key))
    return path


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: Authority | None,
    valid_for: timedelta,
    *,
    names: tuple[str, ...] = (),
    is_ca: bool = False,
) -> x509.Certificate:
    """Return a certificate that its own key has signed if there is no signer."""
    end = datetime.now(UTC) + valid_for
    issuer_key = signer.key if signer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.name if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(end, datetime.now(UTC)) - _HOUR)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if is_ca:
        builder = builder.add_extension(_SIGNS, critical=True)
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_alternative(each) for each in names]),
            critical=False,
        )
    return builder.sign(issuer_key, hashes.SHA256())


_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
