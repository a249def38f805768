"""Errors: values that do not change, and the words of others kept apart from ours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import pytest

from opskit.errors import BackupFailed, DatabaseError, OpskitError, ServerFault
from opskit.operations.outcome import Record
from opskit.postgres import client
from opskit.postgres.connect import translated
from opskit.restore.load import LoadFailed

ROW = "Key (iban)=(DE02 1203 0000: 0000) already exists"


def _raise_translated() -> None:
    with translated("database shop"):
        raise psycopg.errors.UniqueViolation(ROW)


def _raise_from_pg_dump() -> None:
    raise client.failure("/usr/bin/pg_dump", 1, ROW)


def _raise_from_pg_restore() -> None:
    raise LoadFailed(ROW)


def test_an_error_with_other_words_is_a_new_one() -> None:
    """Of the same class, with all that is not named; the first stays as it is."""
    error = ServerFault("first", said="words", hint="Try.", sqlstate="57P01")
    other = error.replace(summary="store: first", details={"n": 1})

    assert type(other) is ServerFault
    assert (str(other), other.hint, other.sqlstate) == (
        "store: first: words",
        "Try.",
        "57P01",
    )
    assert other.details == {"n": 1}
    with pytest.raises(AttributeError, match="use replace"):
        error.hint = "Another."
    with pytest.raises(TypeError):
        error.details["n"] = 1  # type: ignore[index]
    assert (str(error), error.details) == ("first: words", {})


def test_without_words_of_others_the_message_is_the_summary() -> None:
    """Also where it has a colon of its own."""
    assert str(BackupFailed("a: b")) == BackupFailed("a: b").summary == "a: b"


@pytest.mark.parametrize(
    "fail",
    [
        _raise_translated,
        _raise_from_pg_dump,
        _raise_from_pg_restore,
        lambda: client.require_success("pg_dumpall", 1, ROW),
    ],
)
def test_what_a_server_says_is_shown_and_never_recorded(
    fail: Callable[[], None],
) -> None:
    """It may hold rows, and copies of the ledger are not encrypted."""
    with pytest.raises(OpskitError) as raised:
        fail()
    record = Record(
        operation="backup",
        run_id="a1",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        require_ledger=lambda: None,
    )
    record.fail(raised.value)
    record.end()

    assert ROW in str(raised.value)
    assert record.details["error"] == raised.value.summary
    assert "iban" not in raised.value.summary
    assert "iban" not in DatabaseError("x", said=ROW).replace(hint="y").summary


@pytest.mark.parametrize(
    ("words", "entry"),
    [
        ("pg_restore: error: could not read from input file: end of file", None),
        ("pg_restore: from TOC entry 215; 1259 16385 TABLE t app\nfrom TOC entry 9;",
         215),
        ("", None),
    ],
)  # fmt: skip
def test_a_load_that_failed_names_the_first_entry(
    words: str, entry: int | None
) -> None:
    """It is tried once more to tell whether the set or the server is to blame."""
    assert LoadFailed(words).entry == entry
    assert LoadFailed(words).replace(hint="x").entry == entry
