"""Records: the manifest's words about what is in the dump's own bytes."""

from __future__ import annotations

from collections.abc import Mapping

from opskit.backup import dump as backup_dump
from opskit.catalog.manifest import LargeObjectsRecord, SequenceRecord, TableRecord
from opskit.postgres.archive.digest import LargeObjectDigest, RowDigest
from opskit.postgres.archive.reader import ArchiveReader
from tests.unit import archive_builder as build
from tests.unit.archive_builder import Entry

EXTENSIONS: Mapping[tuple[str, str], tuple[str, str | None]] = {
    ("cron", "job"): ("pg_cron", "WHERE id > 10"),
    ("public", "job_seq"): ("pg_cron", None),
}


def _digest(*rows: bytes) -> str:
    digest = RowDigest()
    digest.update(b"".join(row + b"\n" for row in rows))
    return digest.result().digest


def _read(entries: list[Entry], *blocks: bytes) -> ArchiveReader:
    reader = ArchiveReader()
    reader.feed(build.head([build.encoding(), *entries]) + b"".join(blocks))
    reader.close()
    return reader


def _setval(name: str, value: int, called: str) -> str:
    return f"SELECT pg_catalog.setval('public.{name}', {value}, {called});\n"


def test_each_table_has_its_rows_digest_and_columns() -> None:
    """In the order of the contents, whatever the order of the data."""
    reader = _read(
        [
            build.table_data(2, "orders", ("id", '"the day"')),
            build.table_data(3, "empty", ()),
        ],
        build.rows_block(3, []),
        build.rows_block(2, [b"1\ta", b"2\tb"]),
    )

    assert backup_dump.table_records([reader], {}) == (
        TableRecord(
            schema="public",
            name="orders",
            rows=2,
            digest=_digest(b"1\ta", b"2\tb"),
            columns=("id", "the day"),
        ),
        TableRecord(schema="public", name="empty", rows=0, digest="0" * 32),
    )


def test_rows_that_are_loaded_through_a_root_say_so() -> None:
    """The record names the partition that they came from and the table they go to."""
    part = build.table_data(2, "part")
    through = Entry(
        dump_id=3,
        kind="TABLE DATA",
        name="other",
        schema="public",
        copy='COPY sales."Whole" (id) FROM stdin;\n',
        state=build.NOT_YET_KNOWN,
    )
    reader = _read(
        [part, through], build.rows_block(2, [b"1"]), build.rows_block(3, [])
    )
    found = backup_dump.table_records([reader], {})

    assert [each.via_root for each in found] == [None, ("sales", "Whole")]
    assert [each.name for each in found] == ["part", "other"]


def test_a_table_of_an_extension_is_told_with_the_rows_that_are_dumped() -> None:
    """By schema and name: the same name elsewhere is the user's own."""
    reader = _read(
        [build.table_data(2, "job", schema="cron"), build.table_data(3, "job")],
        build.rows_block(2, [b"11"]),
        build.rows_block(3, [b"1"]),
    )
    found = backup_dump.table_records([reader], EXTENSIONS)

    assert [(each.extension, each.condition) for each in found] == [
        ("pg_cron", "WHERE id > 10"),
        (None, None),
    ]


def test_a_table_without_data_in_the_archive_has_no_record() -> None:
    """Nothing is said of what never came by."""
    reader = _read([Entry(dump_id=2, kind="TABLE", name="t", schema="public")])

    assert backup_dump.table_records([reader], {}) == ()


def test_each_sequence_that_is_set_has_its_value() -> None:
    """And the extension whose it is; a sequence that is only made is not set."""
    reader = _read(
        [
            Entry(dump_id=2, kind="SEQUENCE", name="made", schema="public"),
            build.sequence_set(
                3, "orders_id_seq", _setval("orders_id_seq", -5, "false")
            ),
            build.sequence_set(4, "job_seq", _setval("job_seq", 7, "true")),
        ]
    )

    assert backup_dump.sequence_records(reader, EXTENSIONS) == (
        SequenceRecord(
            schema="public", name="orders_id_seq", last_value=-5, is_called=False
        ),
        SequenceRecord(
            schema="public",
            name="job_seq",
            last_value=7,
            is_called=True,
            extension="pg_cron",
        ),
    )


def test_large_objects_are_told_together() -> None:
    """Their number, size and one digest over all of them."""
    expected = LargeObjectDigest()
    for oid, content in ((16400, b"abcd"), (16401, b"")):
        expected.begin(oid)
        expected.update(content)
        expected.end()
    reader = _read(
        [build.large_objects(2)],
        build.large_objects_block(2, {16400: [b"ab", b"cd"], 16401: []}),
    )
    found = backup_dump.large_objects_record(reader)

    assert (found.count, found.size_bytes) == (2, 4)
    assert found.digest == expected.result().digest
    assert backup_dump.large_objects_record(_read([])) == LargeObjectsRecord(
        count=0, size_bytes=0, digest="0" * 32
    )
