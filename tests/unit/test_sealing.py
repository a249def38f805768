"""Sealing: what an encrypted set's manifest keeps from an outsider, and gives back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.catalog import manifest as manifests
from opskit.catalog import reader
from opskit.catalog.manifest import MANIFEST_NAME, Manifest
from opskit.errors import IntegrityError
from tests.unit.builders import INVENTORY, manifest

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


def made(tables: dict[tuple[str, str], str], **changes: Any) -> Manifest:
    """Return a manifest with these tables and roles with secrets."""
    records = [
        {"schema": schema, "name": name, "rows": 1, "digest": digest}
        for (schema, name), digest in tables.items()
    ]
    changes = {"inventory": {"encoding": "UTF8", "roles": ROLES}} | changes
    return manifest(tables=records, **changes)


SMALL = made({("public", "a"): DIGEST, ("public", "b"): DIGEST})


@given(tables, digests, st.lists(names, max_size=3))
def test_what_was_sealed_comes_back(
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

    public, private = reader.sealed(original)
    read = manifests.parse(public.to_json(), key=public.prefix + MANIFEST_NAME)

    assert reader.opened(read, private) == original


def test_tables_with_the_same_rows_look_different() -> None:
    """Nor does a table look the same in two sets, nor as its plain digest."""
    seen = [table.digest for _ in range(2) for table in reader.sealed(SMALL)[0].tables]

    assert len({DIGEST, *seen}) == 5
    assert all(len(each) == len(DIGEST) for each in seen)


def test_the_public_manifest_tells_no_secret() -> None:
    """No plain digest, of rows or of a role's password or setting, nor the key."""
    original = made(
        {("public", "a"): DIGEST},
        large_objects={"count": 1, "size_bytes": 2, "digest": OTHER_DIGEST},
    )

    public, private = reader.sealed(original)
    text = public.to_json().decode()

    key = json.loads(private)["seal_key"]
    assert [
        each for each in (DIGEST, OTHER_DIGEST, PASSWORD, SETTING, key) if each in text
    ] == []
    assert json.loads(text)["inventory"]["roles"] == [
        {"name": "app", "login": True},
        {"name": "other", "login": False},
    ]


def test_all_else_stays_visible() -> None:
    """A catalog is made of manifests: names, rows, sizes and sequences are needed."""
    public, _private = reader.sealed(SMALL)

    hidden: dict[str, Any] = {"tables": (), "large_objects": None, "inventory": {}}
    assert public.model_copy(update=hidden) == SMALL.model_copy(update=hidden)
    assert [
        each.model_copy(update={"digest": DIGEST}) for each in public.tables
    ] == list(SMALL.tables)
    assert public.large_objects.count == SMALL.large_objects.count
    assert public.inventory.encoding == "UTF8"


def test_only_its_own_private_object_opens_a_set() -> None:
    """The key of another set gives other digests, never the plain ones."""
    public, _private = reader.sealed(SMALL)
    _public, other = reader.sealed(SMALL)

    opened = reader.opened(public, other)

    assert DIGEST not in {each.digest for each in opened.tables}


_PUBLIC, _PRIVATE = reader.sealed(SMALL)
_DOCUMENT = json.loads(_PRIVATE)


@given(st.integers(0, len(_PRIVATE.rstrip()) - 1))
def test_a_private_object_that_is_cut_is_refused(length: int) -> None:
    """Wherever it was cut."""
    with pytest.raises(IntegrityError, match="private object of shop-"):
        reader.opened(_PUBLIC, _PRIVATE[:length])


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\xff\xfe", b"null", b"5", b"[]", b"{}", b"[" * 200_000],
    ids=lambda damaged: repr(damaged[:4]),
)
def test_what_is_no_private_object_is_refused(damaged: bytes) -> None:
    """Whatever stands there instead."""
    with pytest.raises(IntegrityError) as caught:
        reader.opened(_PUBLIC, damaged)

    assert caught.value.exit_code == 20
    assert caught.value.hint


@pytest.mark.parametrize("key", [None, 5, "", "no hex", "ab" * 31, "ab" * 33])
def test_a_key_that_is_none_is_refused(key: object) -> None:
    """The set is refused, and no error of ours is shown."""
    with pytest.raises(IntegrityError):
        reader.opened(_PUBLIC, json.dumps(_DOCUMENT | {"seal_key": key}).encode())


@pytest.mark.parametrize("roles", [None, "app", {"name": "app"}, ["app"], [None]])
def test_roles_that_are_none_are_refused(roles: object) -> None:
    """Here, and not where the copy's roles are compared with them."""
    with pytest.raises(IntegrityError, match="no list of records"):
        reader.opened(_PUBLIC, json.dumps(_DOCUMENT | {"roles": roles}).encode())


@pytest.mark.parametrize("missing", ["seal_key", "roles"])
def test_a_private_object_without_a_part_is_refused(missing: str) -> None:
    """Neither part can be done without."""
    document = {name: each for name, each in _DOCUMENT.items() if name != missing}

    with pytest.raises(IntegrityError, match=missing):
        reader.opened(_PUBLIC, json.dumps(document).encode())


def test_a_digest_that_cannot_have_been_sealed_is_refused() -> None:
    """An altered manifest, whose signature nobody asked for."""
    large = _PUBLIC.large_objects.model_copy(update={"digest": "no hex"})

    with pytest.raises(IntegrityError, match="sealed digest"):
        reader.opened(_PUBLIC.model_copy(update={"large_objects": large}), _PRIVATE)
