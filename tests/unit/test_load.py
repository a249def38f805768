"""Loading: the one setting that an older server does not know is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.errors import ClientToolError
from opskit.postgres.programs import CLIENT_PROGRAMS, Installation
from opskit.restore.load import choose_program, without_unknown_parameter
from tests.unit.pieces import cut, of_size

SETTING = b"SET transaction_timeout = 0;\n"
# pg_restore of 17 and newer begins like this.
BEFORE = (
    b"--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\n"
    b"SET lock_timeout = 0;\nSET idle_in_transaction_session_timeout = 0;\n"
)
AFTER = b"SET client_encoding = 'UTF8';\n\nCREATE TABLE public.t (x text);\n\n"
ROWS = b"COPY public.t (x) FROM stdin;\n" + SETTING + b"a\n\\.\n\n\n"


def _passed(pieces: list[bytes]) -> bytes:
    """Return what comes out, without the empty lines in front."""
    return b"".join(without_unknown_parameter(iter(pieces))).lstrip(b"\n")


@given(st.data())
def test_the_setting_is_left_out_wherever_the_blocks_end(data: st.DataObject) -> None:
    """The line goes, and nothing else, however the script is cut into blocks."""
    pieces = cut(data, BEFORE + SETTING + AFTER + ROWS)

    assert _passed(pieces) == BEFORE + AFTER + ROWS


@pytest.mark.parametrize("size", [1, 2, 29, 1000])
def test_a_row_with_the_same_words_stays(size: int) -> None:
    """A row that reads like the setting is data, also where no setting stands."""
    with_setting = of_size(BEFORE + SETTING + AFTER + ROWS, size)
    without = of_size(BEFORE + AFTER + ROWS, size)

    assert _passed(with_setting) == BEFORE + AFTER + ROWS
    assert _passed(without) == BEFORE + AFTER + ROWS


@pytest.mark.parametrize("content", [b"", BEFORE, ROWS, BEFORE + AFTER])
def test_a_script_without_the_setting_passes_as_it_is(content: bytes) -> None:
    """What has no such line, or no data, comes out whole."""
    assert _passed(of_size(content, 7)) == content


def test_a_function_with_the_same_words_stays() -> None:
    """A function's text is not the script's head, though it stands before the data."""
    function = b"CREATE FUNCTION f() AS $$\n" + SETTING + b"$$;\n"

    assert _passed([BEFORE + SETTING + AFTER + function + ROWS]) == (
        BEFORE + AFTER + function + ROWS
    )


def test_a_script_without_tables_is_not_held_in_memory() -> None:
    """Large objects alone, of any size, pass by block for block."""
    taken = 0

    def blocks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield BEFORE + SETTING if taken == 1 else b"x" * 2**20

    next(without_unknown_parameter(blocks()))

    assert taken < 10


def _installation(tmp_path: Path, major: int, *programs: str) -> Installation:
    bin_dir = tmp_path / str(major)
    bin_dir.mkdir()
    for name in programs or CLIENT_PROGRAMS:
        (bin_dir / name).touch(mode=0o755)
    return Installation(
        bin_dir=bin_dir, version=f"{major}.1", major=major, embedded=False
    )


@pytest.mark.parametrize(
    ("client_major", "server_major", "chosen"),
    [
        (15, 16, 16),
        (16, 15, 16),
        (15, 15, 15),
        (16, 14, 16),
        (17, 15, 18),
        (15, 18, 18),
    ],
)
def test_programs_of_the_servers_own_major_are_chosen(
    tmp_path: Path, client_major: int, server_major: int, chosen: int
) -> None:
    """The server's own major if it reads the archive, else the oldest that does."""
    available = [_installation(tmp_path, major) for major in (18, 15, 16)]
    found = choose_program(
        available, client_major=client_major, server_major=server_major
    )

    assert found.major == chosen


def test_programs_that_cannot_read_the_archive_are_refused(tmp_path: Path) -> None:
    """Older programs, and folders without pg_restore, are no use."""
    available = [
        _installation(tmp_path, 15),
        _installation(tmp_path, 17, "pg_dump", "psql"),
    ]

    with pytest.raises(ClientToolError, match="major 16 or newer") as refused:
        choose_program(available, client_major=16, server_major=17)

    assert "postgresql-client-16" in refused.value.hint
