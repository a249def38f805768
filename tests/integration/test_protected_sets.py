"""Encrypted, signed sets on a real S3 server and in a folder: proved, refused, opened.

What a person needs without opskit is run with the stock `age`, `zstd`, PostgreSQL
programs and `ssh-keygen` alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pyrage  # type: ignore[import-untyped]
import pytest

from opskit.backup.create import create_backup
from opskit.backup.database import DatabaseBackup
from opskit.catalog import catalog
from opskit.catalog.documents import Trust
from opskit.catalog.manifest import MANIFEST_NAME, Manifest, of_database
from opskit.catalog.reader import SetReader, verify_set
from opskit.catalog.sets import BackupSet
from opskit.catalog.writer import Protection
from opskit.config import Settings
from opskit.config.settings import EncryptionSettings
from opskit.crypto import age
from opskit.crypto import keys as crypto_keys
from opskit.crypto.keys import Identities, NoMatchingIdentity
from opskit.crypto.signatures import Signer
from opskit.drill.report import render
from opskit.errors import ConfigurationError, IntegrityError
from opskit.evidence import publish_evidence, store_evidence
from opskit.operations import keys
from opskit.postgres import database
from opskit.postgres.connect import connect
from opskit.postgres.servers import programs, throwaway
from opskit.store import LocalStore, Store, open_store
from tests import s3_servers
from tests.conftest import MajorServer
from tests.integration.test_restore import run_restore
from tests.s3_servers import S3Server
from tests.sample import SAMPLE
from tests.support import SOURCE, execute, failed, now, run_drill, value
from tests.unit import stock

BUCKET, PREFIX = "protected", "backups"
SECRET = "the-secret-of-row-42"
ROLE_PASSWORD = "md5" + "deadbeef" * 4
KINDS = ("x25519", "ed25519", "rsa")
MORE = f"""
    CREATE TABLE public.secrets (id int PRIMARY KEY, word text);
    INSERT INTO public.secrets VALUES (42, '{SECRET}');
    CREATE TABLE public.same (id int PRIMARY KEY, word text);
    INSERT INTO public.same VALUES (42, '{SECRET}');
    DO $$ BEGIN CREATE ROLE protected_app LOGIN PASSWORD '{ROLE_PASSWORD}';
    EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    ALTER ROLE protected_app SET app.token = '{SECRET}';
    GRANT SELECT ON public.secrets TO protected_app;
"""


@dataclass(frozen=True, kw_only=True)
class Made:
    """One backup, and where and how it was made."""

    folder: Path
    keys: Path
    server: S3Server
    manifest: Manifest
    plain: Manifest
    url: str

    @property
    def s3(self) -> Store:
        """The store in the bucket."""
        return open_store("offsite", self.server.settings(BUCKET, PREFIX))

    @property
    def trust(self) -> Trust:
        """Trust in the key that signed the set."""
        return Trust((public_key(self.keys / "signing"),))

    def own(self, kind: str = "x25519") -> Identities:
        """Return one of the identities."""
        return crypto_keys.load(self.keys / kind)

    def chosen(self, *stores: Store) -> BackupSet:
        """Return the set as it lies in the stores, its signature checked."""
        (found,) = catalog.read(stores, trust=self.trust).sets
        return found

    def copy(self, folder: Path) -> LocalStore:
        """Return a store of its own with the set, to be damaged."""
        shutil.copytree(self.folder, folder)
        return LocalStore("copy", folder)


def public_key(path: Path) -> str:
    """Return the line of the public key without its comment."""
    return " ".join(path.with_name(f"{path.name}.pub").read_text().split()[:2])


def _make_keys(folder: Path) -> list[str]:
    """Make the identities, one more that opens nothing, and two that sign."""
    folder.mkdir()
    recipients = []
    for name in ("x25519", "stranger"):
        own = pyrage.x25519.Identity.generate()
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(f"{own}\n")
        recipients.append(str(own.to_public()))
    del recipients[1:]
    recipients.append(stock.ssh_key(folder / "ed25519"))
    recipients.append(stock.ssh_key(folder / "rsa", "-b", "2048", kind="rsa"))
    stock.ssh_key(folder / "signing")
    stock.ssh_key(folder / "other signing")
    return recipients


@pytest.fixture(scope="module")
def weed(seaweedfs: S3Server) -> Iterator[S3Server]:
    """SeaweedFS with a bucket, and its credentials in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, each in s3_servers.environment().items():
            patch.setenv(name, each)
        client(seaweedfs).create_bucket(Bucket=BUCKET)
        yield seaweedfs


def client(running: S3Server) -> Any:
    """Return boto3's own client."""
    return boto3.client(
        "s3", endpoint_url=running.endpoint_url, region_name="us-east-1"
    )


@pytest.fixture(scope="module")
def made(
    weed: S3Server, server_of: MajorServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Made]:
    """One set for three recipients, signed, in the bucket and in a folder."""
    base = tmp_path_factory.mktemp("protected")
    recipients = _make_keys(base / "keys")
    (base / "store").mkdir()
    running = server_of(16)
    with connect(running.url(), purpose="test") as connection:
        database.run_script(connection, "CREATE DATABASE protected")
    url = running.url("protected")
    execute(url, SAMPLE)
    execute(url, MORE)
    found = [each for each in programs.installations() if each.major == 16]
    stores = [
        open_store("offsite", weed.settings(BUCKET, PREFIX)),
        LocalStore("near", base / "store"),
    ]
    result = create_backup(
        DatabaseBackup(name=SOURCE, url=url, installations=found),
        stores,
        run_id="abc123",
        state_dir=base / "state",
        clock=now,
        protection=Protection(
            recipients=tuple(recipients), signer=Signer.load(base / "keys" / "signing")
        ),
    )
    assert result.failed == {}
    reader = SetReader(
        manifest=result.manifest,
        store=stores[1],
        identities=crypto_keys.load(base / "keys" / "x25519"),
    )
    yield Made(
        folder=base / "store",
        keys=base / "keys",
        server=weed,
        manifest=result.manifest,
        plain=reader.opened(),
        url=url,
    )
    with connect(running.url(), purpose="test") as connection:
        database.drop(connection, "protected")
        connection.execute("DROP ROLE protected_app")


@pytest.fixture
def target(server_of: MajorServer) -> Iterator[str]:
    """The name of a database that is dropped after the test."""
    yield "opened"
    with connect(server_of(16).url(), purpose="test") as connection:
        database.drop(connection, "opened")


@pytest.mark.parametrize("kind", KINDS)
def test_each_recipient_can_drill_the_set(kind: str, made: Made) -> None:
    """From the bucket, with one identity alone; every row is compared."""
    evidence = run_drill(made.chosen(made.s3), identities=made.own(kind), mutants=2)

    assert failed(evidence) == []
    assert (evidence.figures.tables, evidence.figures.rows) == (7, 2104)
    assert evidence.figures.mutants is not None
    assert evidence.figures.mutants["killed"] == evidence.figures.mutants["planted"] > 0


def test_a_set_is_restored_from_the_bucket(
    made: Made, server_of: MajorServer, target: str
) -> None:
    """Decrypted, compared, named; the secret is there again."""
    chosen = made.chosen(made.s3)

    result = run_restore(chosen, server_of(16), target, identities=made.own("rsa"))

    assert (result.tables, result.rows) == (7, 2104)
    copy = server_of(16).url(target)
    assert value(copy, "SELECT word FROM public.secrets") == SECRET


def test_a_passphrase_opens_an_identity(made: Made, tmp_path: Path) -> None:
    """Of an SSH key; without it, or with another, exit code 2 says what is missing."""
    path = tmp_path / "locked"
    shutil.copy(made.keys / "ed25519", path)
    stock.run("ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", path)

    def own(passphrase: str) -> Identities | None:
        encryption = EncryptionSettings.model_validate(
            {"identity_file": path, "identity_passphrase": passphrase}
        )
        return keys.own_identities(Settings(encryption=encryption))

    opened = SetReader(
        manifest=made.manifest, store=made.s3, identities=own("open sesame")
    )
    assert opened.opened() == made.plain
    for passphrase, reason in [("", "needs a passphrase"), ("x", "does not open")]:
        with pytest.raises(ConfigurationError, match=reason) as caught:
            own(passphrase)
        assert caught.value.exit_code == 2


def test_an_identity_that_others_may_read_is_refused(
    made: Made, tmp_path: Path
) -> None:
    """It is no secret any more."""
    path = tmp_path / "identity"
    shutil.copy(made.keys / "x25519", path)
    path.chmod(0o640)
    encryption = EncryptionSettings.model_validate({"identity_file": path})

    with pytest.raises(ConfigurationError, match="may be read by others") as caught:
        keys.own_identities(Settings(encryption=encryption))

    assert caught.value.exit_code == 2


def test_without_an_identity_every_byte_is_verified(made: Made) -> None:
    """In the bucket and in the folder, by anybody."""
    for store in made.chosen(made.s3, LocalStore("near", made.folder)).stores:
        found = verify_set(made.manifest, store)

        assert (found.objects, found.bad) == (len(made.manifest.objects), ())
        assert found.size_bytes == made.manifest.size_bytes


@pytest.mark.parametrize("who", [None, "stranger"])
def test_drill_and_restore_say_whose_identity_is_needed(
    who: str | None, made: Made, server_of: MajorServer
) -> None:
    """With none, or the wrong one: exit code 2, and no verdict on the set."""
    chosen = made.chosen(LocalStore("near", made.folder))
    own = None if who is None else made.own(who)
    errors = []
    with pytest.raises(ConfigurationError) as caught:
        run_drill(chosen, identities=own)
    errors.append(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        run_restore(chosen, server_of(16), "never", identities=own)
    errors.append(caught.value)

    assert [each.exit_code for each in errors] == [2, 2]
    assert [isinstance(each, NoMatchingIdentity) for each in errors] == [bool(who)] * 2
    assert made.manifest.encryption is not None
    for error in errors:
        if who is None:
            assert all(
                each in error.message for each in made.manifest.encryption.recipients
            )
            assert "identity_file" in error.hint
        else:
            assert "stranger" in error.message


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _beheaded(path: Path) -> None:
    content = path.read_bytes()
    at = content.find(b"-> ") + 4  # in the first stanza, or the guide's first bytes
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _missing(path: Path) -> None:
    path.unlink()


ROLES = ("dump", "roles", "schema", "private", "guide")
# Another's identity ends at the dump: only its damage can be taken for that.
CASES = [*((role, "x25519") for role in ROLES), ("dump", "stranger")]


@pytest.mark.parametrize("damage", [_flipped, _beheaded, _cut, _missing])
@pytest.mark.parametrize(("role", "who"), CASES)
def test_damage_in_any_object_is_told_as_damage(
    role: str,
    who: str,
    damage: Callable[[Path], None],
    made: Made,
    server_of: MajorServer,
    tmp_path: Path,
) -> None:
    """`verify` names it, the drill does not pass, the restore refuses."""
    store = made.copy(tmp_path / "copy")
    key = made.manifest.object(role).key
    damage(tmp_path / "copy" / key)
    chosen = made.chosen(store)

    verified = verify_set(made.manifest, store)
    evidence = run_drill(chosen, identities=made.own(who))
    with pytest.raises(IntegrityError) as caught:
        run_restore(chosen, server_of(16), "never", identities=made.own(who))

    assert [each.key for each in verified.bad] == [key]
    assert verified.bad[0].missing == (damage is _missing)
    assert [each.name for each in failed(evidence)] == ["stored objects"]
    assert key in failed(evidence)[0].detail
    assert caught.value.exit_code == 20
    assert caught.value.message.startswith(key)


def test_a_restore_takes_the_copy_that_is_whole(
    made: Made, server_of: MajorServer, target: str, tmp_path: Path
) -> None:
    """The head of the near dump is damaged; the one in the bucket is restored."""
    near = made.copy(tmp_path / "copy")
    _beheaded(tmp_path / "copy" / made.manifest.object("dump").key)
    chosen = made.chosen(near, made.s3)
    assert [each.name for each in chosen.stores] == ["copy", "offsite"]

    result = run_restore(chosen, server_of(16), target, identities=made.own())

    assert result.rows == 2104


def _altered(place: Path, _made: Made) -> None:
    path = place / MANIFEST_NAME
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"rows": 500', b'"rows": 501'))
    assert path.read_bytes() != content


def _unsigned(place: Path, _made: Made) -> None:
    (place / "manifest.json.sig").unlink()


def _signed_by_another(place: Path, made: Made) -> None:
    signer = Signer.load(made.keys / "other signing")
    path = place / MANIFEST_NAME
    (place / "manifest.json.sig").write_bytes(signer.sign(path.read_bytes()))


def _moved(place: Path, _made: Made) -> None:
    place.rename(
        place.with_name(place.name[:-1] + ("0" if place.name[-1] != "0" else "1"))
    )


@pytest.mark.parametrize("change", [_altered, _unsigned, _signed_by_another, _moved])
def test_a_set_that_is_not_as_it_was_signed_is_refused(
    change: Callable[[Path, Made], None], made: Made, tmp_path: Path
) -> None:
    """By its id and as the newest; it is told why."""
    store = made.copy(tmp_path / "copy")
    change(tmp_path / "copy" / made.manifest.prefix.rstrip("/"), made)

    found = catalog.read([store], trust=made.trust)

    (bad,) = found.unreadable
    assert found.sets == ()
    for ask in (
        lambda: found.find(bad.key.split("/")[2]),
        lambda: found.newest(SOURCE),
    ):
        with pytest.raises(IntegrityError) as caught:
            ask()
        assert caught.value.exit_code == 20
        assert bad.reason in caught.value.message


def test_the_sets_own_guide_opens_it_without_opskit(made: Made, tmp_path: Path) -> None:
    """Downloaded by boto3; every command of RESTORE.md as written; every row is back."""
    for name in ("age", "zstd"):
        stock.program(name)
    folder = tmp_path / "downloaded"
    folder.mkdir()
    s3 = client(made.server)
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix=f"{PREFIX}/{made.manifest.prefix}"
    )
    for each in (each for page in pages for each in page["Contents"]):
        name = each["Key"].rpartition("/")[2]
        if "/evidence/" not in each["Key"]:
            s3.download_file(BUCKET, each["Key"], str(folder / name))
    s3.close()
    _check_signature(folder, public_key(made.keys / "signing"), tmp_path / "allowed")
    guide, _heading, _one_entry_fails = (
        (folder / "RESTORE.md").read_text().partition("## If one entry fails")
    )
    blocks = re.findall(r"```sh\n(.*?)```", guide, re.S)
    installed = programs.installations()
    clients = next(each for each in installed if each.major == 16)

    with throwaway.throwaway(programs.find_server(installed, major=16)) as fresh:
        finished = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", "\n".join(blocks)],
            cwd=folder,
            env={
                "PATH": _only(tmp_path / "bin", clients.bin_dir),
                "AGE_IDENTITY": str(made.keys / "ed25519"),
                "PGHOST": str(fresh.socket_dir),
                "PGPORT": str(fresh.port),
                "PGUSER": throwaway.SUPERUSER,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        copy = fresh.url("protected")
        counts = {
            (each.schema_name, each.name): value(
                copy, f'SELECT count(*) FROM "{each.schema_name}"."{each.name}"'
            )
            for each in of_database(made.manifest).tables
        }
        secret = value(copy, "SELECT word FROM public.secrets")
        password = value(
            copy, "SELECT rolpassword FROM pg_authid WHERE rolname = 'protected_app'"
        )

    assert counts == {
        (t.schema_name, t.name): t.rows for t in of_database(made.manifest).tables
    }
    assert (secret, password) == (SECRET, ROLE_PASSWORD)


def _only(folder: Path, postgres: Path) -> str:
    """Return a PATH on which only what the guide names can be found."""
    folder.mkdir()
    for name in ("age", "bash", "zstd", "sha256sum"):
        (folder / name).symlink_to(stock.program(name))
    for name in ("psql", "pg_restore", "createdb"):
        (folder / name).symlink_to(postgres / name)
    return str(folder)


def _check_signature(folder: Path, trusted: str, allowed: Path) -> None:
    """Check a downloaded set's signature as a third party does, offline."""
    allowed.write_text(f"backups {trusted}\n")
    stock.run(
        "ssh-keygen", "-Y", "verify", "-n", "opskit", "-I", "backups",
        "-f", allowed, "-s", folder / "manifest.json.sig",
        stdin=(folder / MANIFEST_NAME).read_bytes(),
    )  # fmt: skip
    stock.run(
        "ssh-keygen", "-Y", "verify", "-n", "opskit", "-I", "backups",
        "-f", allowed, "-s", folder / "manifest.json.sig",
        stdin=(folder / MANIFEST_NAME).read_bytes() + b" ",
        fails=True,
    )  # fmt: skip


def _in_the_open(folder: Path) -> bytes:
    """Return every byte of a store that is not encrypted, names included."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    assert {".age", ".json", ".md", ".sig"} == {path.suffix for path in paths}
    return b"\n".join(
        str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes()
        for path in paths
        if path.suffix != age.SUFFIX
    )


def _damage_rows(url: str) -> None:
    execute(url, "UPDATE public.secrets SET word = word || '!'")
    execute(url, "DELETE FROM public.same")
    execute(url, "DROP VIEW public.big")


@pytest.mark.parametrize("tamper", [None, _damage_rows], ids=["passed", "failed"])
def test_what_lies_in_the_open_tells_no_row(
    tamper: Callable[[str], None] | None, made: Made, tmp_path: Path
) -> None:
    """Nor a digest of rows or passwords; the encrypted report does, to its owner."""
    store = made.copy(tmp_path / "copy")
    signer = Signer.load(made.keys / "signing")
    evidence = run_drill(
        made.chosen(store), identities=made.own(), mutants=5, tamper=tamper
    )
    rendered = render(evidence, made.chosen(store).manifest)
    store_evidence(evidence, rendered, [store], signer=signer)

    (path,) = (tmp_path / "copy").rglob("*.md.age")
    opened = stock.run("age", "--decrypt", "--identity", made.keys / "rsa", path)
    assert opened.decode("utf-8", "surrogateescape") == rendered
    plain = made.plain
    hidden = {each.digest for each in of_database(plain).tables} | {
        of_database(plain).large_objects.digest
    }
    hidden |= {
        e.password for e in of_database(plain).inventory.roles if e.password is not None
    }
    hidden |= {SECRET, ROLE_PASSWORD, "md5" + "deadbeef"}
    hidden |= _observed(evidence.as_json()["checks"])
    seen = _in_the_open(tmp_path / "copy")
    assert [each for each in hidden if each.encode() in seen] == []
    publish_evidence(evidence, rendered, tmp_path / "published", signer=signer)
    published = [*(tmp_path / "published").glob("*/*")]
    assert {"".join(each.suffixes) for each in published} == {".json", ".json.sig"}
    for each in published:
        (stored,) = (tmp_path / "copy").rglob(f"evidence/{each.name}")
        assert stored.read_bytes() == each.read_bytes()
    assert evidence.passed is (tamper is None)
    proof = "drilled" if tamper is None else "failed"
    assert made.chosen(store).proof == proof


def _observed(checks: Sequence[dict[str, str]]) -> set[str]:
    """Return every digest that the checks saw."""
    words = " ".join(f"{each['expected']} {each['observed']}" for each in checks)
    found = set(re.findall(r"\b[0-9a-f]{32}\b", words))
    assert len(found) > 4
    return found


def test_equal_tables_are_not_told(made: Made) -> None:
    """Two tables with the same rows have the same digest, which nobody sees."""
    plain = {each.name: each.digest for each in of_database(made.plain).tables}
    public = {each.name: each.digest for each in of_database(made.manifest).tables}

    assert plain["secrets"] == plain["same"]
    assert set(public.values()) == {""}


def test_both_stores_hold_the_same_set(made: Made) -> None:
    """Byte for byte, and nothing else."""
    near = LocalStore("near", made.folder)

    def contents(store: Store) -> dict[str, bytes]:
        return {each.key: _read(store, each.key) for each in store.list()}

    found = contents(near)
    assert found == contents(made.s3)
    assert len(found) == len(made.manifest.objects) + 2


def _read(store: Store, key: str) -> bytes:
    with store.open(key) as file:
        return file.read()
