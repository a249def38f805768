"""Manifest: comes back as it was stored, or is refused for a reason that is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.catalog import places
from opskit.catalog.manifest import DatabaseManifest, of_database, parse
from opskit.errors import IntegrityError
from tests.unit import builders

WRITTEN_BY_0_1 = Path(__file__).parents[1] / "fixtures" / "written_by_0_1" / "store"
KEY = "shop/2026-03-10/shop-20260310T030000Z-a1b2c3/manifest.json"
SET = KEY.rpartition("/")[0]
Document = dict[str, Any]

_names = st.text(st.characters(exclude_categories=["Cs"]))
_counts = st.integers(min_value=0, max_value=2**63 - 1)
_values = st.integers(min_value=-(2**63), max_value=2**63 - 1)


def _changed(change: Callable[[Document], object]) -> bytes:
    """Return a stored manifest with a change that JSON allows."""
    document = json.loads(builders.manifest().to_json())
    change(document)
    return json.dumps(document).encode()


def _refused(content: bytes, key: str = KEY) -> str:
    with pytest.raises(IntegrityError) as refused:
        parse(content, key=key)
    assert refused.value.hint
    return refused.value.message


def test_a_manifest_comes_back_as_it_was_stored() -> None:
    """What was written into a store is read from it, field by field."""
    made = builders.manifest()

    assert made.prefix + "manifest.json" == KEY
    assert parse(made.to_json(), key=KEY) == made


@given(_names, _names, st.lists(_names, max_size=3), _counts, _values)
def test_any_name_and_number_comes_back(
    schema: str, name: str, columns: list[str], rows: int, value: int
) -> None:
    """Names of tables and columns survive, whatever they hold, and so do numbers."""
    table = {"schema": schema, "name": name, "rows": rows, "digest": "0" * 32}
    sequence = {"schema": schema, "name": name, "last_value": value}
    made = builders.manifest(
        tables=[table | {"columns": columns}],
        sequences=[sequence | {"is_called": False}],
        inventory=builders.INVENTORY | {"encoding": name},
    )

    assert parse(made.to_json(), key=KEY) == made
    assert made.tables[0].columns == tuple(columns)


def test_names_that_are_no_text_come_back() -> None:
    """Names of a SQL_ASCII database may be any bytes; they stand in the manifest."""
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    table = {"schema": "public", "name": name, "rows": 1, "digest": "0" * 32}
    made = builders.manifest(tables=[table])

    assert b"caf\xe9" in made.to_json()
    assert parse(made.to_json(), key=KEY) == made


def test_the_stored_form_has_the_names_of_the_contract() -> None:
    """Tables and sequences say `schema`, times are RFC 3339, text is text."""
    made = builders.manifest(
        tables=[{"schema": "a", "name": "größe", "rows": 1, "digest": "0" * 32}]
    )
    document = json.loads(made.to_json())

    assert document["tables"][0]["schema"] == "a"
    assert document["sequences"][0]["schema"] == "public"
    assert document["started_at"] == "2026-03-10T03:00:00Z"
    assert document["kind"] == "postgres"
    assert set(document["objects"][0]) >= {"key", "size_bytes", "sha256"}
    assert "größe".encode() in made.to_json()


def test_what_follows_from_the_fields() -> None:
    """Sums, majors and objects by role come from what the manifest holds."""
    made = builders.manifest()

    assert made.size_bytes == sum(map(len, builders.CONTENTS.values()))
    assert (made.rows, made.server_major, made.client_major) == (3, 16, 17)
    assert made.object("roles").key.endswith("/roles")
    with pytest.raises(IntegrityError, match="names no schema object"):
        made.object("schema")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'"x"', b"{}", b"\xff", b"1", b"NaN", b"\x00" * 20],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    """Bytes that are no JSON object with a version are told by their key."""
    assert _refused(content) == f"{KEY} is not a manifest"


@given(st.integers(min_value=0, max_value=2**16))
def test_a_manifest_cut_short_is_refused(length: int) -> None:
    """Wherever a manifest ends too early, it is refused."""
    content = builders.manifest().to_json().rstrip()

    assert "is not a manifest" in _refused(content[: length % len(content)])


@pytest.mark.parametrize("path", sorted(WRITTEN_BY_0_1.glob("*/*/*/manifest.json")))
def test_manifests_of_0_1_are_written_as_they_were(path: Path) -> None:
    """To the byte: of both kinds, encrypted or not."""
    content = path.read_bytes()
    key = path.relative_to(WRITTEN_BY_0_1).as_posix()
    written = parse(content, key=key).to_json()
    # There the digest of no large objects was covered, as if it told anything.
    covered = rb'(?s)("large_objects": .*?"digest": )"[0-9a-f]*"'
    if key.startswith("encrypted-folder/"):
        content, written = (re.sub(covered, rb"\1", e) for e in (content, written))

    assert written == content


def test_a_newer_format_is_refused_before_anything_else() -> None:
    """A format of the future may lack our fields: the version is what is told."""
    content = json.dumps({"format_version": 5, "new": 1}).encode()

    assert "is of format 5, newer than this opskit reads (4)" in _refused(content)


def test_a_key_that_is_not_known_is_no_fault() -> None:
    """A later version of the same format may add keys."""
    content = _changed(lambda document: document.update(added={"a": 1}))

    assert parse(content, key=KEY) == builders.manifest()


def _in_streams(*roles: str, objects: Sequence[str] = ()) -> bytes:
    """Return a manifest that tells of such streams, and names such objects besides."""

    def change(document: Document) -> None:
        document["format_version"] = 2
        document["streams"] = [{"role": role, "dump_bytes": 50} for role in roles]
        like = document["objects"][0]
        for role in objects:
            document["objects"].append(like | {"role": role, "key": like["key"] + role})

    return _changed(change)


def test_a_set_in_streams_tells_the_size_of_each() -> None:
    """The catch-all comes first; without streams there is nothing but that."""
    found = parse(_in_streams("dump", "rows-1", objects=["rows-1"]), key=KEY)

    assert of_database(found).dump_bytes_of == {"dump": 50, "rows-1": 50}
    assert list(of_database(found).dump_bytes_of) == ["dump", "rows-1"]
    assert builders.manifest().dump_bytes_of == {"dump": 100}
    assert builders.folder_manifest().content_roles == ("files",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_in_streams("dump", "rows-1"), "it names no rows-1 object"),
        (_in_streams("dump", objects=["rows-1"]), "its streams are not the dumps"),
        (_in_streams(objects=["rows-1"]), "its streams are not the dumps"),
        (
            _in_streams("rows-1", "dump", objects=["rows-1"]),
            "its streams are not the dumps",
        ),
        (_in_streams("rows-1", objects=["rows-1"]), "its streams are not the dumps"),
    ],
    ids=["no object", "one untold", "none told", "another first", "no catch-all"],
)
def test_streams_are_the_dumps_of_the_set(content: bytes, words: str) -> None:
    """Of a set whose dumps are not all known, a part would be restored as the whole."""
    assert words in _refused(content)


@pytest.mark.parametrize(
    "field",
    [
        name
        for name, field in DatabaseManifest.model_fields.items()
        if field.is_required() and name != "format_version"
    ],
)
def test_a_missing_field_is_named(field: str) -> None:
    """A manifest without one of its fields is refused with the field's name."""
    message = _refused(_changed(lambda document: document.pop(field)))

    assert f"not a complete manifest: {field}: " in message


_VERSIONS: list[object] = ["1", True, 0, -1, 1.0, 1.5, []]
_SIZES: list[object] = ["1", True, 2**63, 2**70, 1.0, None]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("dump_bytes",), -1),
        (("kind",), "mysql"),
        (("started_at",), "2026-03-10T03:00:00"),
        (("objects", 0, "sha256"), "0" * 63),
        (("objects", 0, "sha256"), "A" * 64),
        (("objects", 0, "size_bytes"), -1),
        (("tables", 0, "rows"), -1),
        (("sequences", 0, "last_value"), "x"),
        (("sequences", 0, "last_value"), 2**63),
        (("sequences", 0, "is_called"), 1),
        *((("format_version",), value) for value in _VERSIONS),
        *((("dump_bytes",), value) for value in _SIZES),
        (("objects", 0, "size_bytes"), 2**70),
        (("objects", 0, "size_bytes"), "12"),
        (("tables", 0, "rows"), 2**70),
        (("tables", 0, "rows"), 1.0),
        (("large_objects", "count"), -1),
        (("large_objects", "size_bytes"), 2**70),
        (("schema_format",), "1"),
        (("started_at",), 1_773_111_600),
        (("finished_at",), "1773111600"),
        (("snapshot_at",), -5.5),
    ],
)
def test_an_impossible_value_is_named(where: tuple[Any, ...], value: object) -> None:
    """A value that cannot be is refused with its place."""

    def change(document: Document) -> None:
        place: Any = document
        for part in where[:-1]:
            place = place[part]
        place[where[-1]] = value

    assert f": {'.'.join(map(str, where))}: " in _refused(_changed(change))


@pytest.mark.parametrize(
    "key",
    [
        KEY.replace("a1b2c3", "ffffff"),
        KEY.replace("2026-03-10", "2026-03-11"),
        KEY.replace("shop/", "crm/", 1),
        f"copy/{KEY}",
    ],
)
def test_a_manifest_in_another_place_is_refused(key: str) -> None:
    """A manifest that was moved is not that of the set in whose place it lies."""
    message = _refused(builders.manifest().to_json(), key)

    assert "is the manifest of another set (shop-20260310T030000Z-a1b2c3)" in message


@pytest.mark.parametrize(
    "key",
    [
        "shop/2026-03-10/shop-20260310T030000Z-ffffff/dump",
        "shop/2026-03-10/shop-20260310T030000Z-a1b2c3",
        "/etc/passwd",
        "",
        f"{SET}/../../../etc/passwd",
        f"{SET}//dump",
        f"{SET}/./dump",
        f"{SET}/",
        f"{SET}/.dump",
        f"{SET}/du\x1b[2Jmp",
        f"{SET}/dump\n",
        f"{SET}/a\0b",
        f"{SET}/manifest.json",
    ],
)
def test_objects_outside_of_the_set_are_refused(key: str) -> None:
    """A manifest may not name what belongs to another set, or to nobody."""
    content = _changed(lambda document: document["objects"][1].update(key=key))
    note = {"format": "ssh", "namespace": "n", "public_key": "k", "object": key}
    signed = _changed(lambda document: document.update(signature=note))

    assert "names an object outside of its set" in _refused(content)
    assert "names an object outside of its set" in _refused(signed)


@pytest.mark.parametrize("field", ["key", "role"])
def test_no_object_is_named_twice(field: str) -> None:
    """Of two that claim one place or one role, nobody knows which is meant."""

    def change(document: Document) -> None:
        document["objects"][2][field] = document["objects"][0][field]

    assert "names the same object twice" in _refused(_changed(change))


@pytest.mark.parametrize("size", [-1, 2**70, True, "1"])
def test_a_size_of_the_database_is_a_size(size: object) -> None:
    """It decides how much room a restore asks for."""
    content = _changed(lambda document: document["inventory"].update(size_bytes=size))

    assert "inventory.size_bytes" in _refused(content)


def test_a_manifest_that_is_too_large_is_not_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parsing takes several times the room of the text."""
    content = builders.manifest().to_json()
    monkeypatch.setattr("opskit.catalog.manifest.BYTES_MAX", len(content))
    parse(content, key=KEY)
    monkeypatch.setattr("opskit.catalog.manifest.BYTES_MAX", len(content) - 1)

    assert "is larger than" in _refused(content)


@pytest.mark.parametrize(
    "content",
    [
        b'{"tables": [' + b"{}," * 1_200_001 + b"{}]}",
        b"[" + b"[]," * 8_000_000 + b"0]",
    ],
    ids=["records", "values"],
)
def test_a_manifest_of_too_many_parts_is_not_parsed(content: bytes) -> None:
    """Each of them takes many times the room of its text."""
    assert "is larger than" in _refused(content)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        _changed(lambda document: document.update(started_at="0001-01-01T00:00+14:00")),
        _changed(lambda document: document["inventory"].update(more=float("nan"))),
    ],
    ids=["deep", "early", "not a number"],
)
def test_a_tampered_manifest_is_refused_like_any_other(content: bytes) -> None:
    """No content of a manifest may end the reading of all the others."""
    assert KEY in _refused(content)


@pytest.mark.parametrize(("version", "is_read"), [(1, False), (4, True)])
def test_only_a_set_that_was_due_may_begin_on_another_day(
    version: int, is_read: bool
) -> None:
    """The day of its place is that of its id; in older formats both are the start's."""
    content = _changed(
        lambda document: document.update(
            format_version=version, started_at="2026-03-11T00:01:00Z"
        )
    )

    if is_read:
        assert parse(content, key=KEY).prefix == KEY.removesuffix("manifest.json")
    else:
        assert "is the manifest of another set" in _refused(content)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_set_that_is_not_encrypted_has_its_digests(version: int) -> None:
    """There is no private object that could have them."""
    content = _changed(
        lambda document: document.update(
            format_version=version,
            large_objects={"count": 0, "size_bytes": 0, "digest": ""},
        )
    )

    what = "is not encrypted" if version == 3 else "has no digest of large objects"
    assert f"is not a complete manifest: it {what}" in _refused(content)


def test_ids_carry_source_and_time_in_utc() -> None:
    """The id of a set is made of its source, its time and something of its own."""
    tokyo = timezone(timedelta(hours=9))
    made = places.new_backup_id("my-shop", datetime(2026, 3, 1, 8, tzinfo=tokyo))
    other = places.new_backup_id("my-shop", datetime(2026, 2, 28, 23, tzinfo=UTC))

    assert re.fullmatch(r"my-shop-20260228T230000Z-[0-9a-f]{4,}", made)
    assert other != made
    assert places.is_backup_id(made)
    prefix = places.set_prefix("my-shop", made)
    assert prefix == f"my-shop/2026-02-28/{made}/"


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("shop-20260310T030000Z-a1b2", True),
        ("a-b-20260310T030000Z-0123456789abcdef", True),
        ("shop-20260310T030000Z-a1b", False),
        ("shop-20260310T030000Z-A1B2", False),
        ("shop-20260310T030000-a1b2", False),
        ("-20260310T030000Z-a1b2", False),
        ("shop-20260310T030000Z-a1b2\n", False),
        ("lost+found", False),
        ("", False),
    ],
)
def test_ids_are_told_from_other_names(text: str, valid: bool) -> None:
    """Only what has the form of an id is taken for one."""
    assert places.is_backup_id(text) == valid
