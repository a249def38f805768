"""Builds what protects sets out of the settings: recipients, identities, signatures."""

from __future__ import annotations

from opskit.catalog.documents import Trust
from opskit.catalog.writer import Protection
from opskit.config import Settings
from opskit.crypto import keys as crypto_keys
from opskit.crypto.keys import Identities
from opskit.crypto.signatures import Signer
from opskit.errors import ConfigurationError
from opskit.log import logger


def signer(settings: Settings) -> Signer | None:
    """Return what signs manifests and evidence, if a key is configured.

    Raises:
        ConfigurationError: the key cannot be used.
    """
    signing = settings.signing
    if signing.key_file is None:
        return None
    return Signer.load(signing.key_file, passphrase=signing.resolve_passphrase())


def protection(settings: Settings) -> Protection:
    """Return for whom new sets are encrypted, and who signs them.

    Raises:
        ConfigurationError: the key cannot be used.
    """
    recipients = tuple(settings.encryption.recipients)
    return Protection(recipients=recipients, signer=signer(settings))


def require_own_trust(settings: Settings, *, what: str = "the set") -> None:
    """Refuse to make what this very configuration would refuse to use.

    Raises:
        ConfigurationError: keys are trusted, and what is signed here is not by one.
    """
    trusted = settings.signing.trusted_keys
    if not trusted:
        return
    own = signer(settings)
    if own is None:
        raise ConfigurationError(
            f"signing.trusted_keys is set, but no key_file: {what} would not be "
            "signed, and refused where these keys are trusted",
            hint="Set key_file in [signing] to the private key of one of them.",
        )
    if own.public_key not in trusted:
        raise ConfigurationError(
            f"signing.key_file holds a key that trusted_keys does not name "
            f"({own.fingerprint}): {what} would be refused",
            hint="Add its public key to trusted_keys, or use the key that is there.",
        )


def trust(settings: Settings) -> Trust:
    """Return whose signatures are believed."""
    return Trust(tuple(settings.signing.trusted_keys))


def warn_of_unsigned(settings: Settings) -> None:
    """Say that evidence which nobody signs does not count where keys are trusted."""
    if settings.signing.trusted_keys and settings.signing.key_file is None:
        logger().warning(
            "this evidence is not signed, so it does not count where trusted_keys is "
            "set; set key_file in [signing]"
        )


def own_identities(settings: Settings) -> Identities | None:
    """Return what opens encrypted sets, if an identity file is configured.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    encryption = settings.encryption
    if encryption.identity_file is None:
        return None
    return crypto_keys.load(
        encryption.identity_file, passphrase=encryption.resolve_passphrase()
    )
