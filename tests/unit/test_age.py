"""age streams: whole or refused, without a thread left, as the stock program has them."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.crypto import age, keys
from opskit.crypto import keys as crypto_keys
from opskit.crypto.age import BLOCK_BYTES, BlockReader, BlockWriter, streamed
from opskit.crypto.keys import Identities, NoMatchingIdentity
from opskit.errors import ConfigurationError, IntegrityError
from tests.unit import stock

AGE_BLOCK = 65536
_own = pyrage.x25519.Identity.generate()
OWN = Identities(
    path=Path("own.txt"), opaque=(_own,), recipients=(str(_own.to_public()),)
)
_other = pyrage.x25519.Identity.generate()
OTHER = Identities(
    path=Path("other.txt"), opaque=(_other,), recipients=(str(_other.to_public()),)
)
SIZES = sorted(
    size + more
    for size in (0, 1, 8192, AGE_BLOCK, 2 * AGE_BLOCK, BLOCK_BYTES, 3 * BLOCK_BYTES)
    for more in (-1, 0, 1)
    if size + more >= 0
)


def _content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def _encrypted(content: bytes, *recipients: str) -> bytes:
    return b"".join(age.encrypted([content], recipients or OWN.recipients))


def _decrypted(content: bytes, own: Identities = OWN, piece: int = 1 << 20) -> bytes:
    return b"".join(age.decrypted(_pieces(content, piece), own))


def _threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("age-")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert _threads() == []


@given(st.sampled_from(SIZES), st.sampled_from([1000, AGE_BLOCK, BLOCK_BYTES, 1 << 30]))
def test_what_was_encrypted_comes_back(size: int, piece: int) -> None:
    """For every size around the limits of blocks, in pieces of any size."""
    content = _content(size)

    cipher = b"".join(age.encrypted(_pieces(content, piece), OWN.recipients))

    assert _decrypted(cipher, piece=piece) == content
    assert content[:20] not in cipher or size < 20


@given(st.lists(st.binary(max_size=30)))
def test_empty_and_tiny_chunks_are_no_difference(chunks: list[bytes]) -> None:
    """An empty chunk is not the end of the stream."""
    cipher = b"".join(age.encrypted(chunks, OWN.recipients))

    assert _decrypted(cipher, piece=1) == b"".join(chunks)


def test_blocks_are_of_about_a_mebibyte() -> None:
    """What consumes the stream is not called for every little piece."""
    pieces = _pieces(_content(10 * BLOCK_BYTES), 5000)

    sizes = [len(block) for block in age.encrypted(pieces, OWN.recipients)]

    assert len(sizes) <= 11
    assert max(sizes) < 2 * BLOCK_BYTES


def test_memory_does_not_grow_with_the_stream() -> None:
    """Also where the consumer is slower than the source, and chunks are huge."""
    chunks = (bytes(32 * BLOCK_BYTES) for _ in range(6))
    tracemalloc.start()
    try:
        for plain in age.decrypted(age.encrypted(chunks, OWN.recipients), OWN):
            assert plain
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 96 * BLOCK_BYTES


def test_every_recipient_alone_opens_it() -> None:
    """Naming one twice is no fault."""
    cipher = _encrypted(b"rows", *OWN.recipients, *OTHER.recipients, *OWN.recipients)

    assert _decrypted(cipher, OWN) == b"rows"
    assert _decrypted(cipher, OTHER) == b"rows"


def test_any_of_several_identities_opens_it() -> None:
    """Whichever comes first in the file."""
    both = Identities(path=Path("both"), opaque=(_other, _own), recipients=())

    assert _decrypted(_encrypted(b"rows"), both) == b"rows"


def test_another_identity_is_told_from_damage() -> None:
    """It is a matter of the configuration, and says which file did not open it."""
    with pytest.raises(NoMatchingIdentity) as refused:
        _decrypted(_encrypted(b"rows"), OTHER)

    assert refused.value.message == "no identity in other.txt opens this"
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("size", [0, 100, AGE_BLOCK])
def test_a_cut_at_any_byte_is_noticed(size: int) -> None:
    """Of the head, in a block, and between the blocks."""
    cipher = _encrypted(_content(size))
    ends = len(cipher) - 1 - size // 997 * 997
    for length in [*range(ends + 1), *range(ends, len(cipher), 997), len(cipher) - 1]:
        with pytest.raises(IntegrityError, match="damaged or cut"):
            _decrypted(cipher[:length])


def test_a_cut_between_two_blocks_is_noticed_there() -> None:
    """All that came before it is handed on, and is right."""
    content = _content(3 * AGE_BLOCK)
    cipher = _encrypted(content)
    head = len(cipher) - 3 * (AGE_BLOCK + 16)
    got: list[bytes] = []
    with pytest.raises(IntegrityError, match="truncated"):
        got.extend(age.decrypted([cipher[: head + 2 * (AGE_BLOCK + 16)]], OWN))

    assert b"".join(got) == content[: 2 * AGE_BLOCK]


def test_any_byte_changed_is_noticed() -> None:
    """No plain text comes out; in the stanza it looks like another recipient's."""
    cipher = _encrypted(b"rows of a small table")
    errors = set()
    for at in range(len(cipher)):
        changed = bytearray(cipher)
        changed[at] ^= 1
        got: list[bytes] = []
        with pytest.raises((IntegrityError, NoMatchingIdentity)) as refused:
            got += age.decrypted([bytes(changed)], OWN)
        errors.add(type(refused.value))
        assert got == []

    assert errors == {IntegrityError, NoMatchingIdentity}


def test_damage_is_told_from_another_key_where_the_head_names_it(
    tmp_path: Path,
) -> None:
    """An SSH key has a tag in the head: with the tag right, it must open it."""
    public = stock.ssh_key(tmp_path / "key")
    own = crypto_keys.load(tmp_path / "key")
    cipher = _encrypted(b"rows", public)
    lines = cipher.split(b"\n")
    start = cipher.index(lines[2])
    for at in range(start, start + len(lines[2])):
        changed = bytearray(cipher)
        changed[at] ^= 1
        with pytest.raises(IntegrityError):
            _decrypted(bytes(changed), own)

    assert lines[1].startswith(b"-> ssh-ed25519 ")
    with pytest.raises(NoMatchingIdentity):
        _decrypted(cipher, OWN)


@pytest.mark.parametrize("size", [0, 10, AGE_BLOCK, 4 * BLOCK_BYTES])
@pytest.mark.parametrize("more", [b"x", b"\0" * 16, b"\0" * 4 * BLOCK_BYTES])
def test_bytes_behind_the_end_are_noticed(size: int, more: bytes) -> None:
    """Every byte of the object belongs to the stream."""
    with pytest.raises(IntegrityError):
        _decrypted(_encrypted(_content(size)) + more)


def test_bytes_behind_an_armoured_end_are_noticed() -> None:
    """Also where the other program wrote it as text."""
    armoured = stock.run("age", "-a", "-r", OWN.recipients[0], stdin=b"rows")

    assert _decrypted(armoured) == b"rows"
    with pytest.raises(IntegrityError):
        _decrypted(armoured + b"x" * BLOCK_BYTES)


@pytest.mark.parametrize("content", [b"", b"PGDMP", b"age-encryption.org/v1\n"])
def test_what_is_no_age_stream_is_refused(content: bytes) -> None:
    """A plain dump, say."""
    with pytest.raises(IntegrityError):
        _decrypted(content)


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError(), InterruptedError(), OSError(5, "x"), KeyboardInterrupt()],
)
@pytest.mark.parametrize("before", [0, 10, 5 * BLOCK_BYTES])
@pytest.mark.parametrize("stream", ["encrypted", "decrypted"])
def test_an_error_of_the_source_comes_through(
    error: BaseException, before: int, stream: str
) -> None:
    """The very one, and the stream does not end as if it were whole."""

    def source() -> Iterator[bytes]:
        content = _content(before)
        yield content if stream == "encrypted" else _encrypted(content)[:-20]
        raise error

    streams = {
        "encrypted": lambda: age.encrypted(source(), OWN.recipients),
        "decrypted": lambda: age.decrypted(source(), OWN),
    }
    with pytest.raises(type(error)) as raised:
        list(streams[stream]())

    assert raised.value is error


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_stream_that_is_closed_early_ends_its_thread(taken: int) -> None:
    """And closes its source, in the consumer's thread."""
    closed_in = []

    def source() -> Generator[bytes]:
        try:
            while True:
                yield _content(BLOCK_BYTES)
        finally:
            closed_in.append(threading.current_thread())

    opened = source()
    stream = age.encrypted(opened, OWN.recipients)
    for _ in range(taken):
        next(stream)
    stream.close()

    assert _threads() == []
    # While we hold on to the source, so that it was closed and not only forgotten.
    assert closed_in == [threading.current_thread()] * (taken > 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_the_consumer_ends_the_thread(error: type[BaseException]) -> None:
    """Whatever is on its way."""
    stream = age.encrypted((_content(BLOCK_BYTES) for _ in range(50)), OWN.recipients)
    next(stream)
    with pytest.raises(error):
        stream.throw(error())

    assert _threads() == []


def test_damage_ends_the_reading_of_the_source() -> None:
    """What follows the damage is not fetched to its end first."""
    fetched = []

    def source() -> Iterator[bytes]:
        yield b"no age stream at all\n"
        for number in range(1000):
            fetched.append(number)
            yield b"x" * BLOCK_BYTES

    with pytest.raises(IntegrityError):
        list(age.decrypted(source(), OWN))

    assert len(fetched) < 20


def test_a_call_that_stops_early_is_noticed() -> None:
    """Were the library to leave bytes unread, nobody would know of them."""

    def work(reader: BlockReader, writer: BlockWriter) -> None:
        writer.write(reader.read(10))

    got: list[bytes] = []
    with pytest.raises(IntegrityError, match="bytes behind the end"):
        got.extend(streamed(work, [_content(11)], name="age-test"))

    assert got == [_content(10)]
    assert list(streamed(work, [_content(10)], name="age-test")) == got


def test_nothing_runs_before_the_first_block_is_asked_for() -> None:
    """A stream that is never read leaves nothing behind."""
    stream = age.encrypted([b"rows"], OWN.recipients)

    assert _threads() == []
    assert next(stream)
    list(stream)


def test_without_a_recipient_nothing_is_encrypted() -> None:
    """Refused at once, before a byte of the source is read."""
    with pytest.raises(ConfigurationError, match="there is no recipient"):
        age.encrypted([b"rows"], [])


def test_a_recipient_that_is_none_is_refused_at_once() -> None:
    """With its beginning, so that it can be found."""
    with pytest.raises(
        ConfigurationError, match="'age1nonsense' is not a recipient"
    ) as e:
        age.encrypted([b"rows"], [*OWN.recipients, "age1nonsense"])

    assert e.value.exit_code == 2


def test_recipients_are_normalised(tmp_path: Path) -> None:
    """Spaces and the comment of an SSH key go."""
    own = OWN.recipients[0]
    ed25519 = stock.ssh_key(tmp_path / "ed25519")
    rsa = stock.ssh_key(tmp_path / "rsa", "-b", "2048", kind="rsa")

    assert keys.recipient(f"  {own}\n")[0] == own
    assert keys.recipient(own.upper())[0] == own
    assert keys.recipient(f"{ed25519}  ops@example  two\n")[0] == ed25519
    assert keys.recipient(rsa)[0] == rsa


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "age1",
        OWN.recipients[0][:-1],
        OWN.recipients[0][:-1] + ("q" if OWN.recipients[0][-1] != "q" else "p"),
        OWN.recipients[0] + "\n" + OTHER.recipients[0],
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-rsa x",
        "ecdsa-sha2-nistp256 AAAA",
        "age1yubikey1qqqqqqqq",
    ],
    ids=count(),
)
def test_what_is_no_recipient_is_refused(text: str) -> None:
    """What is allowed stands in the message."""
    with pytest.raises(ValueError, match="is not a recipient: write age1…"):
        keys.recipient(text)


def test_an_rsa_key_that_age_refuses_is_refused(tmp_path: Path) -> None:
    """What would be encrypted to it, the stock program would not open."""
    small = stock.ssh_key(tmp_path / "rsa", "-b", "1024", kind="rsa")
    with pytest.raises(ValueError, match="is not a recipient: write age1"):
        keys.recipient(small)


@pytest.mark.parametrize("secret", [str(_own), str(_own).lower()], ids=count())
def test_a_private_key_given_by_mistake_is_not_shown(secret: str) -> None:
    """Neither in the message nor in the error behind it."""
    with pytest.raises(ValueError, match="must stay secret") as refused:
        keys.recipient(secret)

    assert secret not in str(refused.value)
    assert refused.value.__context__ is None


Make = Callable[[Path], str]
KINDS: dict[str, Make] = {
    "X25519": stock.age_key,
    "ssh-ed25519": stock.ssh_key,
    "ssh-rsa": lambda path: stock.ssh_key(path, "-b", "2048", kind="rsa"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_stock_program_reads_and_writes_the_same(kind: str, tmp_path: Path) -> None:
    """In both directions, for each kind of key."""
    key = tmp_path / "key"
    public = KINDS[kind](key)
    content = _content(3 * AGE_BLOCK + 7)
    loaded = crypto_keys.load(key)

    theirs = stock.run("age", "-r", public, stdin=content)
    ours = _encrypted(content, public)

    assert loaded.recipients == (public,)
    assert stock.run("age", "-d", "-i", key, stdin=ours) == content
    assert _decrypted(theirs, loaded) == content


def test_the_stock_program_opens_it_with_each_of_several_keys(tmp_path: Path) -> None:
    """One stream for all kinds of key, ours and theirs."""
    keys = {tmp_path / kind: make(tmp_path / kind) for kind, make in KINDS.items()}
    content = _content(AGE_BLOCK)
    ours = _encrypted(content, *keys.values())
    options = [word for public in keys.values() for word in ("-r", public)]
    theirs = stock.run("age", *options, stdin=content)

    for key in keys:
        assert stock.run("age", "-d", "-i", key, stdin=ours) == content
        assert _decrypted(theirs, crypto_keys.load(key)) == content


def test_the_stock_program_refuses_what_broke_off(tmp_path: Path) -> None:
    """What was encrypted of a source that failed does not pass for a whole stream."""
    public = stock.age_key(tmp_path / "key")
    got: list[bytes] = []

    def source() -> Iterator[bytes]:
        yield _content(4 * BLOCK_BYTES)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        got.extend(age.encrypted(source(), [public]))

    stock.run("age", "-d", "-i", tmp_path / "key", stdin=b"".join(got), fails=True)
