"""Builds what protects sets out of the settings: recipients, identities, signatures."""

from __future__ import annotations

from opskit.backup.protection import Protection
from opskit.catalog.trust import Trust
from opskit.config import Settings
from opskit.crypto import age, identities
from opskit.crypto.identities import Identities
from opskit.crypto.signatures import Signer
from opskit.errors import ConfigurationError


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
        ConfigurationError: a recipient or the key cannot be used.
    """
    try:
        recipients = [age.check_recipient(e) for e in settings.encryption.recipients]
    except ValueError as error:
        raise ConfigurationError(
            f"encryption.recipients: {error}",
            hint="Mend it in the configuration; nothing was touched.",
        ) from error
    return Protection(recipients=tuple(recipients), signer=signer(settings))


def trust(settings: Settings) -> Trust:
    """Return whose signatures are believed."""
    return Trust(tuple(settings.signing.trusted_keys))


def own_identities(settings: Settings) -> Identities | None:
    """Return what opens encrypted sets, if an identity file is configured.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    encryption = settings.encryption
    if encryption.identity_file is None:
        return None
    return identities.load(
        encryption.identity_file, passphrase=encryption.resolve_passphrase()
    )
