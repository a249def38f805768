"""Table of contents: what an archive's head says, in each version of the format."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.errors import ArchiveError
from opskit.postgres.archive import toc
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import Contents, NeedMore
from tests.unit import archive_builder as build
from tests.unit.archive_builder import VERSIONS, Entry, Version

ENTRIES = (
    build.encoding(),
    Entry(
        dump_id=7,
        kind="TABLE",
        name="orders",
        schema="public",
        definition="CREATE TABLE public.orders (id integer);\n",
        dependencies=(3, 12),
    ),
    build.table_data(8, "orders"),
)


def _entry(each: Entry, *, codec: str = "utf-8", encoding: str = "UTF8") -> TocEntry:
    content = build.head([build.encoding(encoding, dump_id=99), each], codec=codec)
    return toc.parse(content).entries[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_is_read(version: Version) -> None:
    """The three versions of PostgreSQL 12 to 18 are read to the same contents."""
    content = build.head(ENTRIES, version=version)
    found = toc.parse(content + b"\1the data")

    assert found == Contents(
        version=version,
        database="shop",
        server_version="16.4",
        client_version="16.4",
        codec="utf-8",
        entries=found.entries,
        data_offset=len(content),
        layout=found.layout,
    )
    assert list(found.layout.spans) == [
        each.dump_id for each in found.entries if each.has_data
    ]
    assert found.entries[1] == TocEntry(
        dump_id=7,
        kind="TABLE",
        schema="public",
        name="orders",
        owner="ops",
        definition="CREATE TABLE public.orders (id integer);\n",
        copy_statement="",
        dependencies=(3, 12),
        has_data=False,
        access_method="heap",
    )
    assert [entry.has_data for entry in found.entries] == [False, False, True]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_head_cut_short_needs_more(version: Version) -> None:
    """Wherever the head is cut, more bytes are asked for."""
    content = build.head(ENTRIES, version=version)

    for length in range(len(content)):
        with pytest.raises(NeedMore):
            toc.parse(content[:length])


@pytest.mark.parametrize("state", [build.NOT_YET_KNOWN, build.KNOWN])
def test_data_is_due_wherever_its_place_may_be(state: int) -> None:
    """An entry has data whether or not pg_dump could go back to note where."""
    assert _entry(replace(build.table_data(2, "orders"), state=state)).has_data


@pytest.mark.parametrize("version", [(1, 13), (1, 17), (0, 15), (2, 0), (255, 255)])
def test_an_unknown_version_is_refused(version: Version) -> None:
    """A version outside of what was read in the sources is refused by its number."""
    with pytest.raises(ArchiveError, match=f"format {version[0]}.{version[1]} "):
        toc.parse(build.head(ENTRIES, version=version))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_compressed_archive_is_refused(version: Version) -> None:
    """Rows that pg_dump has compressed itself cannot be read as they pass."""
    with pytest.raises(ArchiveError, match="compressed"):
        toc.parse(build.head(ENTRIES, version=version, compression=1))


@pytest.mark.parametrize("start", [b"PGDMX", b"-- Po", b"\0\0\0\0\0", b"pgdmp"])
def test_another_mark_is_refused(start: bytes) -> None:
    """What does not begin as an archive is refused at once."""
    with pytest.raises(ArchiveError, match="mark"):
        toc.parse(start + build.head(ENTRIES)[5:])


@pytest.mark.parametrize(("place", "value"), [(8, 8), (9, 4), (10, 3), (10, 5)])
def test_another_layout_is_refused(place: int, value: int) -> None:
    """Other sizes of numbers and the tar and directory formats are refused."""
    content = bytearray(build.head(ENTRIES))
    content[place] = value

    with pytest.raises(ArchiveError, match="custom format"):
        toc.parse(content)


def test_an_archive_must_name_its_encoding() -> None:
    """Without the encoding no name in the archive can be trusted."""
    with pytest.raises(ArchiveError, match="encoding"):
        toc.parse(build.head(ENTRIES[1:]))


@pytest.mark.parametrize(
    ("encoding", "codec", "name"),
    [
        ("UTF8", "utf-8", "Bestellübersicht 订单"),
        ("LATIN1", "latin-1", "Bestellübersicht"),
        ("LATIN2", "iso8859-2", "zamówienia"),
        ("WIN1251", "cp1251", "заказы"),
        ("ISO_8859_5", "iso8859-5", "заказы"),
        ("KOI8R", "koi8-r", "заказы"),
        ("EUC_JP", "euc_jp", "注文"),
    ],
)
def test_names_are_read_in_the_archives_encoding(
    encoding: str, codec: str, name: str
) -> None:
    """Names come out as they were given, in whatever encoding the dump was made."""
    found = _entry(
        replace(build.table_data(2, name, (f'"{name}"',)), owner=name),
        codec=codec,
        encoding=encoding,
    )

    assert (found.name, found.owner, found.columns) == (name, name, (name,))


def test_bytes_that_are_no_text_survive() -> None:
    """Names of a SQL_ASCII database keep their bytes, whatever they are."""
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    found = _entry(build.table_data(2, name), encoding="SQL_ASCII")

    assert found.name.encode("latin-1") == b"caf\xe9"


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ((), ()),
        (("id",), ("id",)),
        (("id", "customer_id"), ("id", "customer_id")),
        (('"Id"', "x"), ("Id", "x")),
        (('"a, b"', '") FROM stdin;"', '"("'), ("a, b", ") FROM stdin;", "(")),
        (('"say ""hi"""', '""""'), ('say "hi"', '"')),
        (('"a\nb"', '" "', '"."'), ("a\nb", " ", ".")),
    ],
)
def test_columns_are_read(columns: tuple[str, ...], names: tuple[str, ...]) -> None:
    """The columns of the COPY statement are read, quoted or not, or none."""
    found = _entry(build.table_data(2, "orders", columns))

    assert found.columns == names


_names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
)


@given(st.lists(_names, max_size=4), _names, _names)
def test_any_quoted_name_is_read(columns: list[str], schema: str, name: str) -> None:
    """Columns come out whatever they, the table and its schema are called."""
    listed = [build.quoted(column) for column in columns]
    found = _entry(build.table_data(2, name, listed, schema=schema))

    assert found.columns == tuple(columns)
    assert (found.schema, found.name) == (schema, name)


@pytest.mark.parametrize("statement", ["", "COPY orders FROM stdin;\n", "SELECT 1"])
def test_another_copy_statement_is_refused(statement: str) -> None:
    """A statement of another form is refused with the table's name."""
    found = _entry(replace(build.table_data(2, "orders"), copy=statement))

    with pytest.raises(ArchiveError, match=r"public\.orders"):
        _ = found.columns


@pytest.mark.parametrize(
    ("name", "value", "written", "expected"),
    [
        ("public.s", "42", "true", (42, True)),
        ("public.s", "1", "false", (1, False)),
        ("public.s", "-9223372036854775808", "true", (-(2**63), True)),
        ("public.s", "9223372036854775807", "true", (2**63 - 1, True)),
        ('public."a\', 7, true);"', "3", "false", (3, False)),
    ],
)
def test_the_value_of_a_sequence_is_read(
    name: str, value: str, written: str, expected: tuple[int, bool]
) -> None:
    """Last value and whether it was handed out are read, negative ones too."""
    literal = name.replace("'", "''")
    statement = f"SELECT pg_catalog.setval('{literal}', {value}, {written});\n"

    assert _entry(build.sequence_set(2, "s", statement)).sequence_value == expected


@pytest.mark.parametrize(
    "statement", ["", "SELECT pg_catalog.setval('public.s', NULL, true);\n"]
)
def test_another_sequence_statement_is_refused(statement: str) -> None:
    """A statement of another form is refused with the sequence's name."""
    found = _entry(build.sequence_set(2, "s", statement))

    with pytest.raises(ArchiveError, match=r"public\.s "):
        _ = found.sequence_value


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [
        (build.text(b"12"), build.text(b"1x")),
        (build.text(b"12"), build.text(b"\xff2")),
        (b"'UTF8'", b"'UT\xff8'"),
    ],
)
def test_a_damaged_head_is_refused(whole: bytes, damaged: bytes) -> None:
    """What cannot be understood is an error of the archive, not a bug of the reader."""
    content = build.head(ENTRIES)
    assert whole in content

    with pytest.raises(ArchiveError):
        toc.parse(content.replace(whole, damaged))


def test_an_encoding_that_no_codec_knows_is_refused() -> None:
    """Names that cannot be read are not guessed at."""
    with pytest.raises(ArchiveError):
        toc.parse(build.head([build.encoding("LATIN99")]))
