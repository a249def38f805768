"""age encryption of streams, such as the stock `age` program reads and writes."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Sequence
from typing import Any

from opskit.crypto.keys import Identities, NoMatchingIdentity
from opskit.crypto.streaming import BlockReader, BlockWriter, streamed
from opskit.errors import ConfigurationError, IntegrityError

SUFFIX = ".age"
_ALLOWED = "a recipient is age1…, ssh-ed25519 AAAA… or ssh-rsa AAAA…"
_PRIVATE = re.compile(r"AGE-(SECRET-KEY|PLUGIN)-|PRIVATE KEY", re.IGNORECASE)
# What pyrage says where no stanza of the head is for one of the identities.
_NO_MATCH = "No matching keys found"


def encrypted(chunks: Iterable[bytes], recipients: Sequence[str]) -> Generator[bytes]:
    """Yield the stream encrypted to every one of the recipients.

    In blocks of about 1 MiB, with constant memory. An error of the source comes
    through as it is, and then what was yielded is not a whole age file. Closing the
    iterator closes the source.

    Raises:
        ConfigurationError: there is no recipient, or one is none; at once.
    """
    if not recipients:
        raise ConfigurationError(
            "there is no recipient to encrypt to",
            hint="Name at least one in [encryption] recipients.",
        )
    keys = [_recipient(text) for text in dict.fromkeys(recipients)]

    def work(reader: BlockReader, writer: BlockWriter) -> None:
        import pyrage  # type: ignore[import-untyped]

        pyrage.encrypt_io(reader, writer, keys)

    return streamed(work, chunks, name="age-encrypt")


def decrypted(chunks: Iterable[bytes], identities: Identities) -> Generator[bytes]:
    """Yield the plain stream; each block that is yielded is authentic.

    It is whole only when the iterator has come to its end without an error.

    Raises:
        IntegrityError: the stream is damaged, cut, or goes on behind its end; raised
            where that shows.
        NoMatchingIdentity: it is not for any of the identities. Age does not say whom
            it is for, so a damaged head may look the same: compare the digest first.
    """

    def work(reader: BlockReader, writer: BlockWriter) -> None:
        import pyrage

        try:
            pyrage.decrypt_io(reader, writer, list(identities.opaque))
        except (pyrage.DecryptError, OSError) as error:
            if str(error) == _NO_MATCH:
                raise NoMatchingIdentity(
                    f"no identity in {identities.path} opens this",
                    hint="Name the identity file of one of the recipients that it "
                    "was encrypted to.",
                ) from error
            raise IntegrityError(
                "the encrypted stream is damaged or cut: " + str(error).splitlines()[0],
                hint="Use another set or another store.",
            ) from error

    return streamed(work, chunks, name="age-decrypt")


def check_recipient(text: str) -> str:
    """Return a recipient as it is written: without a comment and spaces around it.

    Raises:
        ValueError: it is none; a private key is not shown.
    """
    return _parsed(text)[0]


def _recipient(text: str) -> Any:
    try:
        return _parsed(text)[1]
    except ValueError as error:
        raise ConfigurationError(
            str(error), hint="Mend it in [encryption] recipients."
        ) from error


def _parsed(text: str) -> tuple[str, Any]:
    import pyrage

    if _PRIVATE.search(text):
        raise ValueError(f"this is a private key, which must stay secret: {_ALLOWED}")
    words = text.split()
    is_ssh = len(words) > 1 and words[0] in ("ssh-ed25519", "ssh-rsa")
    plain = " ".join(words[:2]) if is_ssh else " ".join(words).lower()
    kind = pyrage.ssh if is_ssh else pyrage.x25519
    try:
        if len(text.strip().splitlines()) != 1:
            raise ValueError(f"one recipient, on one line, is needed: {_ALLOWED}")
        return plain, kind.Recipient.from_str(plain)
    except pyrage.RecipientError as error:
        raise ValueError(f"{_shortened(text)} is no recipient: {_ALLOWED}") from error


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 32 else text[:31] + "…")
