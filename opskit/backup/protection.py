"""How a set is protected: for whom it is encrypted, and who signs it."""

from __future__ import annotations

from dataclasses import dataclass, field

from opskit.crypto.signatures import Signer


@dataclass(frozen=True, kw_only=True)
class Protection:
    """Public keys that can open the set (none: it lies in the open), and a signer."""

    recipients: tuple[str, ...] = ()
    signer: Signer | None = field(default=None, repr=False)

    @property
    def encrypts(self) -> bool:
        """Whether anything is encrypted."""
        return bool(self.recipients)
