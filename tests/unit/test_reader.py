"""SetReader: what is read of a set is checked, decrypted, unpacked, or refused."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pyrage  # type: ignore[import-untyped]
import pytest
import zstandard

from opskit.backup.stream import compressed
from opskit.catalog import private
from opskit.catalog.manifest import Encryption, Manifest, StoredObject, of_database
from opskit.catalog.reader import SetReader, verify_set
from opskit.catalog.writer import Protection, SetWriter
from opskit.crypto.keys import Identities, NoMatchingIdentity
from opskit.errors import (
    ClientToolError,
    ConfigurationError,
    DatabaseError,
    IntegrityError,
    ObjectUnreadable,
)
from opskit.postgres import schema
from opskit.postgres.schema import SchemaObject
from opskit.restore.unpack import unpack_dump
from tests.faulty import FaultyStore
from tests.memory_store import MemoryStore
from tests.unit import builders

DUMP = bytes(range(256)) * 20_000
ROLES = 'CREATE ROLE "caf\udce9";\n'
SCHEMA = [SchemaObject("TABLE", "public.t\udce9", "state")]
GUIDE = b"# Restore\n"


def identity(name: str) -> Identities:
    """Return a new identity."""
    own = pyrage.x25519.Identity.generate()
    return Identities(
        path=Path(name), opaque=(own,), recipients=(str(own.to_public()),)
    )


OWN, SECOND, STRANGER = map(identity, ("own.txt", "second.txt", "stranger.txt"))
RECIPIENTS = (*OWN.recipients, *SECOND.recipients)


@dataclass
class Stored:
    """A set in a store, as it was before it was split, and as it is."""

    store: MemoryStore
    plain: Manifest
    manifest: Manifest

    def reader(self, identities: Identities | None = OWN) -> SetReader:
        """Return a reader of the set."""
        return SetReader(
            manifest=self.manifest, store=self.store, identities=identities
        )

    def alter(self, role: str, change: Callable[[bytes], bytes], *, told: bool) -> None:
        """Alter an object, and with `told` what the manifest says of it, too."""
        stored = self.manifest.object(role)
        with self.store.open(stored.key) as file:
            content = change(file.read())
        self.store.delete(stored.key)
        self.store.put(stored.key, [content])
        if told:
            digest = hashlib.sha256(content).hexdigest()
            new = stored.model_copy(
                update={"size_bytes": len(content), "sha256": digest}
            )
            objects = tuple(
                new if each == stored else each for each in self.manifest.objects
            )
            self.manifest = self.manifest.model_copy(update={"objects": objects})


def stored(
    recipients: Sequence[str] = RECIPIENTS, dump: bytes = DUMP, role: str = "dump"
) -> Stored:
    """Store a set as a backup does, encrypted if there are recipients."""
    store = MemoryStore("ram")
    plain = builders.manifest(
        dump_bytes=len(dump), schema_format=schema.FORMAT, objects=()
    )
    protection = Protection(recipients=tuple(recipients))
    writer = SetWriter(prefix=plain.prefix, stores=[store], protection=protection)
    lines = "".join(json.dumps(list(vars(each).values())) + "\n" for each in SCHEMA)
    writer.put("dump.pgdump.zst", role, compressed([dump]))
    writer.put("roles.sql", "roles", [ROLES.encode("utf-8", "surrogateescape")])
    writer.put("schema.jsonl.zst", "schema", compressed([lines.encode()]))
    manifest: Manifest = plain
    if recipients:
        manifest, hidden = private.split(plain)
        writer.put(private.NAME, private.ROLE, [hidden])
        encryption = Encryption(format="age", recipients=tuple(recipients))
        manifest = manifest.model_copy(update={"encryption": encryption})
    writer.put_open("RESTORE.md", "guide", [GUIDE])
    objects = {"objects": tuple(writer.objects)}
    return Stored(store, plain, manifest.model_copy(update=objects))


@pytest.fixture
def encrypted() -> Stored:
    """A set for two recipients."""
    return stored()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert [each for each in _threads() if each.startswith("age-")] == []


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def read_all(reader: SetReader, folder: Path) -> Manifest:
    """Read everything of a set, as a restore does."""
    unpack_dump(reader, folder / "dump.pgdump")
    reader.read_others()
    return reader.opened()


def read_one(reader: SetReader, role: str, folder: Path) -> None:
    """Read one object of a set."""
    if role == "dump":
        unpack_dump(reader, folder / "dump.pgdump")
    else:
        reader.read_text(role)


@pytest.mark.parametrize("recipients", [(), OWN.recipients, RECIPIENTS])
def test_a_set_is_read_as_it_was_written(
    recipients: Sequence[str], tmp_path: Path
) -> None:
    """Encrypted or not: the dump, the texts, the objects, and the private digests."""
    made = stored(recipients)
    reader = made.reader(OWN if recipients else None)
    unpack_dump(reader, tmp_path / "dump")

    assert (tmp_path / "dump").read_bytes() == DUMP
    assert reader.read_text("roles") == ROLES
    assert reader.read_text("guide").encode() == GUIDE
    assert reader.read_schema() == SCHEMA
    assert reader.read_others() == (4 if recipients else 3)
    hidden: dict[str, object] = {"objects": (), "encryption": None, "format_version": 1}
    assert reader.opened().model_copy(update=hidden) == made.plain


@pytest.mark.parametrize("own", [OWN, SECOND])
def test_every_recipient_opens_the_set(
    own: Identities, encrypted: Stored, tmp_path: Path
) -> None:
    """Each with its own identity alone."""
    opened = read_all(encrypted.reader(own), tmp_path)

    assert of_database(opened).tables == of_database(encrypted.plain).tables


def test_an_identity_that_is_not_needed_does_no_harm(tmp_path: Path) -> None:
    """A plain set is read on a machine that reads encrypted ones too."""
    made = stored(())

    assert read_all(made.reader(OWN), tmp_path) == made.manifest


@pytest.mark.parametrize(
    "ask",
    [
        SetReader.require_identities,
        SetReader.opened,
        SetReader.read_others,
        SetReader.read_schema,
        lambda reader: reader.read_text("roles"),
        lambda reader: unpack_dump(reader, Path("/dev/null")),
    ],
)
def test_without_an_identity_it_is_said_whose_is_needed(
    encrypted: Stored, ask: Callable[[SetReader], object]
) -> None:
    """By name of the key in the configuration; nothing is wrong with the set."""
    with pytest.raises(ConfigurationError) as caught:
        ask(encrypted.reader(None))

    assert caught.value.exit_code == 2
    assert all(each in caught.value.message for each in RECIPIENTS)
    assert encrypted.manifest.backup_id in caught.value.message
    assert "identity_file in [encryption]" in caught.value.hint


def test_without_an_identity_every_stored_byte_is_verified(encrypted: Stored) -> None:
    """What was stored is what the manifest says, for anybody."""
    found = verify_set(encrypted.manifest, encrypted.store)

    assert (found.objects, found.bad) == (5, ())
    assert found.size_bytes == sum(each.size_bytes for each in encrypted.store.list())


def test_a_plain_set_needs_no_identity() -> None:
    """Nothing is asked for that is not needed."""
    made = stored(())

    made.reader(None).require_identities()

    assert made.reader(None).opened() is made.manifest


@pytest.mark.parametrize("role", ["dump", "roles", "schema", "private"])
def test_the_identity_of_somebody_else_is_named(encrypted: Stored, role: str) -> None:
    """It is a matter of the configuration: the set is not at fault."""
    reader = encrypted.reader(STRANGER)

    with pytest.raises(NoMatchingIdentity, match=r"stranger\.txt") as caught:
        reader.read_text(role)

    assert caught.value.exit_code == 2
    assert caught.value.hint


def _flipped(part: float, at: int = 0) -> Callable[[bytes], bytes]:
    """Return what flips a bit after a part of the content and so many bytes."""

    def flip(content: bytes) -> bytes:
        altered = bytearray(content)
        altered[min(int(part * len(content)) + at, len(content) - 1)] ^= 1
        return bytes(altered)

    return flip


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "the first bit": _flipped(0),
    "in the head": _flipped(0, 60),
    "a stanza": lambda content: content.replace(b"-> X25519 ", b"-> X25518 "),
    "in the middle": _flipped(0.5),
    "the last bit": _flipped(1),
    "cut": lambda content: content[: len(content) // 2],
    "cut by a byte": lambda content: content[:-1],
    "empty": lambda _content: b"",
    "more": lambda content: content + b"\0",
}
every_damage = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@every_damage
@pytest.mark.parametrize("role", ["dump", "roles", "schema", "private"])
@pytest.mark.parametrize("own", [OWN, STRANGER], ids=["own", "stranger"])
def test_damage_is_told_as_damage(
    encrypted: Stored,
    role: str,
    damage: Callable[[bytes], bytes],
    own: Identities,
    tmp_path: Path,
) -> None:
    """In each object, and never taken for another's identity."""
    encrypted.alter(role, damage, told=False)
    reader = encrypted.reader(own)

    with pytest.raises(IntegrityError) as caught:
        read_one(reader, role, tmp_path)

    assert caught.value.message.startswith(encrypted.manifest.object(role).key)
    assert caught.value.hint


@every_damage
@pytest.mark.parametrize("role", ["dump", "private"])
def test_damage_that_the_manifest_confirms_is_found(
    encrypted: Stored, role: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """Whoever may write to the store alters both; age itself notices."""
    encrypted.alter(role, damage, told=True)

    with pytest.raises((IntegrityError, NoMatchingIdentity)):
        read_all(encrypted.reader(), tmp_path)


@pytest.mark.parametrize("role", ["dump", "roles", "schema", "private"])
def test_plain_bytes_in_an_encrypted_set_are_refused(
    encrypted: Stored, role: str, tmp_path: Path
) -> None:
    """Nothing that lies in the open is taken from a set that says it does not."""
    encrypted.alter(role, lambda _content: b"plain bytes", told=True)

    with pytest.raises(IntegrityError, match=encrypted.manifest.object(role).key):
        read_all(encrypted.reader(), tmp_path)


@pytest.mark.parametrize("recipients", [(), RECIPIENTS])
@pytest.mark.parametrize("role", ["dump", "roles", "schema", "guide"])
def test_an_object_that_is_missing_is_named(
    recipients: Sequence[str], role: str, tmp_path: Path
) -> None:
    """It is the set that is not whole, wherever it lies."""
    made = stored(recipients)
    key = made.manifest.object(role).key
    made.store.delete(key)

    with pytest.raises(IntegrityError, match="it is missing") as caught:
        read_all(made.reader(), tmp_path)

    assert caught.value.message.startswith(key)


@pytest.mark.parametrize("role", ["dump", "roles", "schema", "guide"])
def test_an_object_that_cannot_be_read_is_named(role: str, tmp_path: Path) -> None:
    """Its store answers, so it is the set that is not whole there."""
    made = stored(())
    key = made.manifest.object(role).key

    class BadBlock(FaultyStore):
        def open(self, asked: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
            if asked == key:
                raise ObjectUnreadable(f"{key}: Input/output error")
            return super().open(asked, start)

    reader = replace(made.reader(), store=BadBlock(made.store))
    with pytest.raises(IntegrityError, match=f"{key}: .*Input/output error"):
        read_all(reader, tmp_path)


@pytest.mark.parametrize("role", ["private", "roles"])
def test_a_manifest_without_a_role_is_refused(encrypted: Stored, role: str) -> None:
    """It was altered."""
    objects = tuple(each for each in encrypted.manifest.objects if each.role != role)
    encrypted.manifest = encrypted.manifest.model_copy(update={"objects": objects})
    reader = encrypted.reader()

    with pytest.raises(IntegrityError, match=f"names no {role} object"):
        _ = reader.opened() if role == "private" else reader.read_text(role)


def test_a_dump_of_another_size_is_refused(encrypted: Stored, tmp_path: Path) -> None:
    """The manifest says how many bytes come out."""
    other = encrypted.manifest.model_copy(update={"dump_bytes": len(DUMP) + 1})
    encrypted.manifest = other

    with pytest.raises(IntegrityError, match=f"unpacks to {len(DUMP)} bytes"):
        unpack_dump(encrypted.reader(), tmp_path / "dump")


def test_a_dump_that_unpacks_to_more_fills_no_disk(tmp_path: Path) -> None:
    """A few kilobytes can unpack to any size; it ends where the manifest says."""
    made = stored((), dump=bytes(50_000_000))
    made.manifest = made.manifest.model_copy(update={"dump_bytes": 1_000_000})

    with pytest.raises(IntegrityError, match="unpacks to more bytes"):
        unpack_dump(made.reader(), tmp_path / "dump")
    assert (tmp_path / "dump").stat().st_size <= 1_000_000


def test_an_archive_of_files_that_unpacks_to_more_is_refused() -> None:
    """No more is read of it than the manifest says."""
    made = stored((), dump=bytes(50_000_000), role="files")
    made.manifest = made.manifest.model_copy(update={"dump_bytes": 1_000_000})
    taken: list[int] = []

    def take_all() -> None:
        with made.reader().open_tar() as stream:
            taken.extend(map(len, iter(lambda: stream.read(65536), b"")))

    with pytest.raises(IntegrityError, match="unpacks to more bytes"):
        take_all()
    assert sum(taken) <= 1_000_000


@pytest.mark.parametrize("role", ["dump", "files", "schema"])
def test_a_frame_without_a_checksum_is_refused(tmp_path: Path, role: str) -> None:
    """Ours all have one; without it the unpacked bytes are checked by nobody."""
    made = stored((), role="files" if role == "files" else "dump")

    def without(content: bytes) -> bytes:
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(content)
        return zstandard.ZstdCompressor(write_checksum=False).compress(plain)

    made.alter(role, without, told=True)

    def read_it() -> None:
        if role == "schema":
            made.reader().read_schema()
        elif role == "files":
            with made.reader().open_tar() as stream:
                stream.read()
        else:
            unpack_dump(made.reader(), tmp_path / "dump")

    with pytest.raises(IntegrityError, match="has no checksum"):
        read_it()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "is no list of objects"),
        (b'["a"]', "is no list of objects"),
        (b"{", "is no list of objects"),
        (b"7", "is no list of objects"),
        (b'["a", "b", "c"]\n' * 11, "lists too many objects"),
        (b" " * 10_000_001, "unpacks to more bytes"),
    ],
)
def test_a_list_of_objects_is_read_within_bounds(
    monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    """Whatever it unpacks to, it is refused as damage, and takes no more room."""
    made = stored(())
    made.alter("schema", lambda _old: b"".join(compressed([content])), told=True)
    monkeypatch.setattr("opskit.catalog.reader.BYTES_MAX", 10_000_000)
    monkeypatch.setattr("opskit.catalog.reader._SCHEMA_OBJECTS_MAX", 10)

    with pytest.raises(IntegrityError, match=words):
        made.reader().read_schema()


@pytest.mark.parametrize("role", ["roles", "schema"])
def test_what_is_read_into_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """The manifest says how large it is, before anything of it is read."""
    made = stored(())
    monkeypatch.setattr("opskit.catalog.reader.BYTES_MAX", 10)
    made.store.delete(made.manifest.object(role).key)  # it is not even opened

    with pytest.raises(IntegrityError, match="larger than it may be"):
        made.reader().read_text(role)


def test_a_dump_that_does_not_unpack_is_refused(tmp_path: Path) -> None:
    """Also where the manifest says that these are the bytes."""
    made = stored(())
    made.alter("dump", lambda content: content[:-9] + b"123456789", told=True)

    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        unpack_dump(made.reader(), tmp_path / "dump")


def test_a_list_in_another_form_is_the_programs_fault(encrypted: Stored) -> None:
    """Whoever can read it is named."""
    other = encrypted.manifest.model_copy(update={"schema_format": 999})
    encrypted.manifest = other

    with pytest.raises(ClientToolError, match="format 999"):
        encrypted.reader().read_schema()


def test_objects_that_changed_places_are_refused(encrypted: Stored) -> None:
    """Each is the recipient's own, but not what the manifest names."""
    roles, private = (encrypted.manifest.object(role) for role in ("roles", "private"))

    def moved(one: StoredObject, other: StoredObject) -> StoredObject:
        return one.model_copy(update={"key": other.key})

    objects = (moved(roles, private), moved(private, roles))
    encrypted.manifest = encrypted.manifest.model_copy(update={"objects": objects})

    # Sizes of what age encrypts vary: the other one may be shorter or longer.
    with pytest.raises(IntegrityError, match="the manifest says"):
        encrypted.reader().opened()


@pytest.mark.parametrize("recipients", [(), RECIPIENTS], ids=["plain", "encrypted"])
def test_an_archive_of_files_need_not_be_read_to_its_end(
    recipients: Sequence[str],
) -> None:
    """Behind a tar's end there may be blocks; they are checked all the same."""
    made = stored(
        recipients, dump=random.Random(1).randbytes(8 * 1024**2), role="files"
    )

    with made.reader().open_tar() as file:
        start = file.read(10)

    assert start == random.Random(1).randbytes(8 * 1024**2)[:10]
    made.alter("files", _flipped(1), told=False)
    with pytest.raises(IntegrityError, match=r"dump\.pgdump\.zst"):
        _open_and_close(made.reader())


def _open_and_close(reader: SetReader) -> None:
    with reader.open_tar() as file:
        file.read(10)


def test_no_thread_outlives_a_full_disk() -> None:
    """The decryption ends with the error, not when somebody forgets it."""
    made = stored(dump=random.Random(1).randbytes(8 * 1024**2))

    with pytest.raises(DatabaseError, match="No space left"):
        unpack_dump(made.reader(), Path("/dev/full"))

    assert "age-decrypt" not in _threads()


def test_no_secret_is_shown(encrypted: Stored) -> None:
    """The identities stay out of every log and error."""
    assert "own.txt" not in repr(encrypted.reader())
