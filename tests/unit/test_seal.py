"""Sealed digests: nothing for an outsider, the plain digest for the key's owner."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.crypto import seal
from opskit.errors import IntegrityError

KEY = bytes(range(32))
DIGEST = "00112233445566778899aabbccddeeff"
keys = st.binary(min_size=32, max_size=32)
digests = st.binary(min_size=16, max_size=64).map(bytes.hex)
# Names as PostgreSQL and file systems give them: undecodable bytes are surrogates.
names = st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@given(digests, keys, names)
def test_what_was_sealed_comes_back(digest: str, key: bytes, what: str) -> None:
    """For every length of digest and every name, in hex of the same length."""
    sealed = seal.seal(digest, key=key, what=what)

    assert seal.unseal(sealed, key=key, what=what) == digest
    assert len(sealed) == len(digest)
    assert sealed != digest


def test_the_pad_is_a_keyed_digest_of_the_name() -> None:
    """Written down, because a set of today must be read in years."""
    pad = hashlib.blake2b(
        b"table\0public\0\xff", key=KEY, person=b"opskit-seal", digest_size=16
    ).hexdigest()

    sealed = seal.seal("00" * 16, key=KEY, what="table\0public\0\udcff")

    assert sealed == pad
    assert seal.seal(DIGEST, key=KEY, what="a") == _by_hand(DIGEST, "a")


def _by_hand(digest: str, what: str) -> str:
    pad = hashlib.blake2b(
        what.encode(), key=KEY, person=b"opskit-seal", digest_size=len(digest) // 2
    ).hexdigest()
    return f"{int(pad, 16) ^ int(digest, 16):0{len(digest)}x}"


def test_equal_digests_look_different() -> None:
    """Two tables with the same rows are not told, nor one table in two sets."""
    sealed = {
        seal.seal(DIGEST, key=key, what=what)
        for key in (KEY, seal.new_key())
        for what in ("table\0public\0a", "table\0public\0b", "table\0publica\0")
    }

    assert len(sealed) == 6


def test_another_key_or_name_gives_another_digest() -> None:
    """The comparison that follows fails; that it was changed, the signature tells."""
    sealed = seal.seal(DIGEST, key=KEY, what="a")

    assert seal.unseal(sealed, key=KEY, what="b") != DIGEST
    assert seal.unseal(sealed, key=seal.new_key(), what="a") != DIGEST


def test_capital_letters_are_no_difference() -> None:
    """Hex is hex."""
    assert seal.seal(DIGEST.upper(), key=KEY, what="a") == seal.seal(
        DIGEST, key=KEY, what="a"
    )


def test_every_key_is_new() -> None:
    """Of 32 bytes."""
    made = {seal.new_key() for _ in range(10)}

    assert len(made) == 10
    assert {len(key) for key in made} == {32}


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "00" * 15,
        "00" * 65,
        "0" * 33,
        "g" * 32,
        "00 " * 16,
        "\uff11" * 32,
        "-1" * 16,
    ],
)
def test_what_is_no_digest_is_refused(digest: str) -> None:
    """A fault of ours when it is sealed, one of the set when it is read."""
    with pytest.raises(ValueError, match=r"digest|hex"):
        seal.seal(digest, key=KEY, what="a")
    with pytest.raises(IntegrityError, match="a sealed digest of the manifest"):
        seal.unseal(digest, key=KEY, what="a")


@pytest.mark.parametrize("key", [b"", KEY[:31], KEY + b"x"])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    """BLAKE2 itself would take it."""
    with pytest.raises(ValueError, match="a key has 32 bytes"):
        seal.seal(DIGEST, key=key, what="a")
    with pytest.raises(IntegrityError, match="a key has 32 bytes"):
        seal.unseal(DIGEST, key=key, what="a")
