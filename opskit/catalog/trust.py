"""Trust: whose signatures are believed, and what is refused without one."""

from __future__ import annotations

from dataclasses import dataclass

from opskit.crypto import signatures
from opskit.errors import IntegrityError, ObjectNotFound
from opskit.store import Store

_HINT = (
    "Do not use it before you know who wrote it. Sets from before signatures were "
    "configured can be used while [signing] trusted_keys is empty."
)


@dataclass(frozen=True)
class Trust:
    """The public keys whose signatures count; without any, nothing is asked for."""

    keys: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.keys)

    def require(self, store: Store, key: str, content: bytes) -> None:
        """Check that a trusted key signed what lies under a key of the store.

        Raises:
            IntegrityError: the signature is missing, by another key, or of other bytes.
        """
        if not self.keys:
            return
        try:
            with store.open(key + signatures.SUFFIX) as file:
                signature = file.read()
        except ObjectNotFound:
            raise IntegrityError(f"{key} is not signed", hint=_HINT) from None
        try:
            signatures.verify(content, signature, self.keys)
        except signatures.SignatureError as error:
            raise IntegrityError(f"{key}: {error.message}", hint=_HINT) from error
