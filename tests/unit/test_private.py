"""private.json: what an encrypted set's manifest hides, and gives back."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.catalog import manifest as manifests
from opskit.catalog import private
from opskit.catalog.manifest import (
    MANIFEST_NAME,
    DatabaseManifest,
    Encryption,
    Manifest,
    of_database,
    of_folder,
)
from opskit.errors import IntegrityError
from tests.unit.builders import INVENTORY, folder_manifest, manifest

DIGEST, OTHER_DIGEST = "00112233445566778899aabbccddeeff", "5" * 32
PASSWORD, SETTING = "c0ffee" * 5 + "aa", "app.token " + "f00d" * 8
ROLES: list[dict[str, Any]] = [
    {"name": "app", "login": True, "password": PASSWORD, "settings": [SETTING]},
    {"name": "other", "login": False, "password": None, "settings": []},
]
# As PostgreSQL gives them: bytes that are not UTF-8 are surrogates, and none is zero.
names = (
    st.binary(min_size=1, max_size=20)
    .map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
    .filter(bool)
)
digests = st.binary(min_size=16, max_size=16).map(bytes.hex)
tables = st.dictionaries(st.tuples(names, names), digests, max_size=5)


FILE: dict[str, Any] = {
    "path": "one \udcff", "type": "file", "mode": 0o644, "uid": 0, "gid": 0,
    "mtime_ns": 0, "size_bytes": 1, "sha256": "ab" * 32,
}  # fmt: skip


def made(tables: dict[tuple[str, str], str], **changes: Any) -> DatabaseManifest:
    """Return a manifest with these tables and roles with secrets."""
    records = [
        {"schema": schema, "name": name, "rows": 1, "digest": digest}
        for (schema, name), digest in tables.items()
    ]
    changes = {"inventory": INVENTORY | {"roles": ROLES}} | changes
    return manifest(tables=records, format_version=3, **changes)


def _stored(public: Manifest) -> Manifest:
    """Return a manifest as it is read of a store, once its objects are named."""
    like = public.objects[0]
    stored = public.model_copy(
        update={
            "encryption": Encryption(format="age", recipients=()),
            "objects": (
                *public.objects,
                like.model_copy(update={"role": "private", "key": like.key + "2"}),
            ),
        }
    )
    read = manifests.parse(stored.to_json(), key=public.prefix + MANIFEST_NAME)
    return read.model_copy(update={"encryption": None, "objects": public.objects})


SMALL = made({("public", "a"): DIGEST, ("public", "b"): DIGEST})


@given(tables, digests, st.lists(names, max_size=3))
def test_what_is_hidden_comes_back(
    tables: dict[tuple[str, str], str], large: str, roles: list[str]
) -> None:
    """Through a store and back, for names in any encoding."""
    original = made(
        tables,
        large_objects={"count": 1, "size_bytes": 2, "digest": large},
        inventory=INVENTORY
        | {
            "roles": [
                {"name": each, "password": None, "settings": []} for each in roles
            ]
        },
    )

    public, hidden = private.split(original)
    read = _stored(public)

    assert private.join(read, hidden) == original


def test_the_public_manifest_tells_no_secret() -> None:
    """No digest of rows, of files, of a role's password or setting."""
    original = made(
        {("public", "a"): DIGEST},
        large_objects={"count": 1, "size_bytes": 2, "digest": OTHER_DIGEST},
    )

    public, _hidden = private.split(original)
    text = public.to_json().decode("utf-8", "surrogateescape")

    secrets = (DIGEST, OTHER_DIGEST, PASSWORD, SETTING, "digest")
    assert [each for each in secrets if each in text] == []
    assert json.loads(text)["inventory"]["roles"] == [
        {"name": "app", "login": True},
        {"name": "other", "login": False},
    ]


def test_all_else_stays_visible() -> None:
    """A catalog is made of manifests: names, rows, sizes and sequences are needed."""
    public, _hidden = private.split(SMALL)

    hidden: dict[str, Any] = {"tables": (), "large_objects": None, "inventory": {}}
    assert public.model_copy(update=hidden) == SMALL.model_copy(update=hidden)
    assert [
        each.model_copy(update={"digest": DIGEST})
        for each in of_database(public).tables
    ] == list(SMALL.tables)
    assert of_database(public).large_objects.count == SMALL.large_objects.count
    assert of_database(public).inventory.encoding == "UTF8"


_PUBLIC, _PRIVATE = private.split(SMALL)
_DOCUMENT = json.loads(_PRIVATE)


def _refused(document: object) -> str:
    """Refuse a private object, and return the reason."""
    with pytest.raises(IntegrityError, match="private object of shop-") as caught:
        private.join(_PUBLIC, json.dumps(document).encode())
    assert caught.value.exit_code == 20
    assert caught.value.hint
    return caught.value.message


def test_a_digest_that_is_missing_is_named() -> None:
    """Nothing is compared with the digest of another set, or with none."""
    _public, other = private.split(made({("public", "a"): DIGEST}))

    with pytest.raises(IntegrityError, match="no digest of table public b"):
        private.join(_PUBLIC, other)


@given(st.integers(0, len(_PRIVATE.rstrip()) - 1))
def test_a_private_object_that_is_cut_is_refused(length: int) -> None:
    """Wherever it was cut."""
    with pytest.raises(IntegrityError, match="private object of shop-"):
        private.join(_PUBLIC, _PRIVATE[:length])


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\xff\xfe", b"null", b"5", b"[]", b"{}", b"[" * 200_000],
    ids=lambda damaged: repr(damaged[:4]),
)
def test_what_is_no_private_object_is_refused(damaged: bytes) -> None:
    """Whatever stands there instead."""
    with pytest.raises(IntegrityError) as caught:
        private.join(_PUBLIC, damaged)

    assert caught.value.exit_code == 20
    assert caught.value.hint


@pytest.mark.parametrize("roles", [None, "app", {"name": "app"}, ["app"], [None]])
def test_roles_that_are_none_are_refused(roles: object) -> None:
    """Here, and not where the copy's roles are compared with them."""
    assert "roles" in _refused(_DOCUMENT | {"roles": roles})


@pytest.mark.parametrize("missing", ["roles", "tables", "large_objects"])
def test_a_private_object_without_a_part_is_refused(missing: str) -> None:
    """No part can be done without."""
    document = {name: each for name, each in _DOCUMENT.items() if name != missing}

    assert missing in _refused(document)


@pytest.mark.parametrize("digest", ["", "no hex", "0" * 31, "A" * 32, None, 5])
def test_what_is_no_digest_is_refused(digest: object) -> None:
    """Of a table, and of the large objects."""
    tables = [["public", name, digest] for name in "ab"]

    assert "tables.0.2" in _refused(_DOCUMENT | {"tables": tables})
    assert "large_objects" in _refused(_DOCUMENT | {"large_objects": digest})


def test_digests_are_left_out_of_encrypted_manifests_of_the_new_format_alone() -> None:
    """In every other one they would be missing, and nothing could be compared."""
    key = SMALL.prefix + MANIFEST_NAME
    encryption = {"format": "age", "recipients": []}
    bare = _PUBLIC.model_copy(update={"format_version": 1})
    open_one = SMALL.model_copy(update={"format_version": 3})
    for refused, words in ((bare, "no digest of table a"), (open_one, "not encrypted")):
        with pytest.raises(IntegrityError, match=words):
            manifests.parse(refused.to_json(), key=key)
    document = json.loads(bare.to_json()) | {"encryption": encryption}
    document["objects"].append(
        document["objects"][0] | {"role": "private", "key": SMALL.prefix + "private"}
    )
    with pytest.raises(IntegrityError, match="no digest of table a"):
        manifests.parse(json.dumps(document).encode(), key=key)
    document["format_version"] = 3
    assert manifests.parse(json.dumps(document).encode(), key=key).counts["tables"]


# As formats 1 and 2 have it: each digest covered by a pad, whose key was private.
SEAL_KEY = bytes(range(32))


def _pad(digest: str, *place: str) -> str:
    pad = hashlib.blake2b(
        "\0".join(place).encode("utf-8", "surrogateescape"),
        key=SEAL_KEY,
        person=b"opskit-seal",
        digest_size=len(digest) // 2,
    ).hexdigest()
    return f"{int(pad, 16) ^ int(digest, 16):0{len(digest)}x}"


def _sealed(**changes: Any) -> Manifest:
    name = "\udcff"
    fields = {
        "tables": [
            {"schema": "public", "name": name, "rows": 1}
            | {"digest": _pad(DIGEST, "table", "public", name)}
        ],
        "large_objects": {"count": 1, "size_bytes": 2}
        | {"digest": _pad(OTHER_DIGEST, "large objects")},
    }
    return manifest(**fields | changes)


def test_the_digests_of_files_come_back() -> None:
    """They are nowhere in the manifest; what is no file has none."""
    folder = FILE | {"path": ".", "type": "directory", "sha256": ""}
    original = folder_manifest(files=[folder, FILE], format_version=3)

    public, hidden = private.split(original)

    assert FILE["sha256"].encode() not in public.to_json()
    assert hidden.startswith(b'{"files": [')
    assert private.join(public, hidden) == original
    for wrong, words in ((b'{"files": []}', "no digest of file"), (b"{}", "files: ")):
        with pytest.raises(IntegrityError, match=words):
            private.join(public, wrong)


def test_sealed_digests_of_files_are_read() -> None:
    """Of folders in the older formats."""
    sealed = FILE | {"sha256": _pad(FILE["sha256"], "file", FILE["path"])}
    document = {"seal_key": SEAL_KEY.hex(), "roles": []}

    opened = private.join(
        folder_manifest(files=[sealed]), json.dumps(document).encode()
    )

    assert of_folder(opened).files[0].sha256 == FILE["sha256"]


def test_sealed_digests_of_older_formats_are_read() -> None:
    """Of tables and large objects, for names in any encoding."""
    document = {"seal_key": SEAL_KEY.hex(), "roles": ROLES}

    opened = private.join(_sealed(), json.dumps(document).encode())

    assert of_database(opened).tables[0].digest == DIGEST
    assert of_database(opened).large_objects.digest == OTHER_DIGEST
    (app, _other) = of_database(opened).inventory.roles
    assert (app.password, app.settings) == (PASSWORD, (SETTING,))


@pytest.mark.parametrize("key", [None, 5, "", "no hex", "ab" * 31, "ab" * 33])
def test_a_key_that_is_none_is_refused(key: object) -> None:
    """The set is refused, and no error of ours is shown."""
    document = {"seal_key": key, "roles": ROLES}
    with pytest.raises(IntegrityError, match="seal_key"):
        private.join(_sealed(), json.dumps(document).encode())


def test_a_digest_that_cannot_have_been_sealed_is_refused() -> None:
    """An altered manifest, whose signature nobody asked for."""
    document = {"seal_key": SEAL_KEY.hex(), "roles": ROLES}
    altered = _sealed(large_objects={"count": 0, "size_bytes": 0, "digest": "no hex"})

    with pytest.raises(IntegrityError, match="private object of shop-"):
        private.join(altered, json.dumps(document).encode())
