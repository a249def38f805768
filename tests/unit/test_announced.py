"""What pg_restore announces is told from what it complains of."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from opskit.errors import DatabaseError
from opskit.restore import load as restore_load

SAID = b"""pg_restore: connecting to database for restore
pg_restore: launching item 215 TABLE DATA orders
pg_restore: finished item 215 TABLE DATA orders
pg_restore: warning: a word of caution
that goes on
pg_restore: NOTICE:  said by the server
and goes on as well
pg_restore: finished item 9 INDEX a
pg_restore: finished item 77 of another line
pg_restore:pg_restore:  finished item 78 TABLE DATA a
 finished item 79 TABLE DATA b
pg_restore: while PROCESSING TOC:
pg_restore: from TOC entry 3210; 1259 16385 TABLE orders ops
pg_restore: error: could not execute query: ERROR:  it is there
LINE 1: CREATE TABLE
Command was: CREATE USER MAPPING FOR a
OPTIONS (password 'hunter2');
pg_restore: pg_restore: from TOC entry 7; 0 0 ACL TABLE orders ops
pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter "transaction_timeout"
Command was: SET transaction_timeout = 0;
pg_restore: detail: one
pg_restore: hint: two
"""


def _lines(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


def test_only_what_it_complains_of_is_kept() -> None:
    """A line goes with the one before, where it does not begin with the name.

    A statement that was refused is left out, for it may hold a password.
    """
    kept = b"".join(restore_load.Said().complaints(_lines(SAID)))

    assert kept.decode().splitlines() == [
        "pg_restore: warning: a word of caution",
        "that goes on",
        "pg_restore: from TOC entry 3210; 1259 16385 TABLE orders ops",
        "pg_restore: error: could not execute query: ERROR:  it is there",
        "LINE 1: CREATE TABLE",
        "pg_restore: pg_restore: from TOC entry 7; 0 0 ACL TABLE orders ops",
        "pg_restore: detail: one",
        "pg_restore: hint: two",
    ]


def test_what_is_finished_is_called_out_in_order() -> None:
    """By its dump id; what was only launched is not."""
    called: list[int] = []

    list(restore_load.Said(called.append).complaints(_lines(SAID)))

    assert called == [215, 9, 77, 78, 79]


NAME = "pg_restore: "
ENTRY = "pg_restore: from TOC entry {0}; 1259 16385 INDEX i ops\n"
ERROR = "pg_restore: error: could not execute query: ERROR:  no\n"
UNKNOWN = 'pg_restore: error: ERROR:  parameter "transaction_timeout"\n'
WENT_ON = "pg_restore: warning: errors ignored on restore: {0}\n"


@pytest.mark.parametrize(
    ("said", "failed"),
    [
        (ENTRY.format(7) + ERROR + WENT_ON.format(1), {7}),
        (ENTRY.format(7) + ERROR + ENTRY.format(8) + ERROR + WENT_ON.format(2), {7, 8}),
        (UNKNOWN + ENTRY.format(7) + ERROR + WENT_ON.format(2), {7}),
        # Two jobs wrote at once.
        (f"{NAME}{ENTRY.format(7)}{ERROR}{WENT_ON.format(1)}", {7}),
        (f"{NAME}{ERROR}{ENTRY.format(7)[len(NAME) :]}{WENT_ON.format(1)}", {7}),
        (f"{NAME}error: {ENTRY.format(8)}no\n{WENT_ON.format(1)}", {8}),
        (f"pg_restore:{NAME} {ENTRY.format(8)[len(NAME) :]}{WENT_ON.format(1)}", {8}),
        (f"{ENTRY.format(7)[:-1]}{ENTRY.format(8)}{WENT_ON.format(2)}", {7, 8}),
        (f"{NAME}finished item 9 A{ENTRY.format(8)}{WENT_ON.format(1)}", {8}),
        (UNKNOWN + UNKNOWN + WENT_ON.format(2), set()),
        # It names the first entry, which has nothing to do with it.
        (ENTRY.format(7) + UNKNOWN + WENT_ON.format(1), set()),
        (ENTRY.format(9) + UNKNOWN + WENT_ON.format(1), set()),
        # Not all of what may fail, or not at its end.
        (ENTRY.format(9) + ERROR + WENT_ON.format(1), None),
        (ENTRY.format(7) + ERROR, None),
        (UNKNOWN + ERROR + WENT_ON.format(2), None),
        (UNKNOWN, None),
        (ERROR + WENT_ON.format(1), None),
        (WENT_ON.format(1), None),
    ],
)
def test_only_entries_that_may_fail_are_let_go(
    tmp_path: Path, said: str, failed: set[int] | None
) -> None:
    """And only where pg_restore came to its end and said which they are."""
    script = f"cat >&2 <<'EOF'\n{said}EOF\nexit 1"
    arguments = [_program(tmp_path, script)]
    options: dict[str, Any] = {"timeout_seconds": 30, "may_fail": frozenset({7, 8})}
    if failed is None:
        with pytest.raises(DatabaseError, match="pg_restore failed"):
            restore_load.run(arguments, os.environ, **options)
    else:
        assert restore_load.run(arguments, os.environ, **options)[1] == failed


def test_an_entry_that_must_not_fail_ends_the_run_at_once(tmp_path: Path) -> None:
    """Nobody waits for the rest of a load that is lost."""
    script = f"printf '{ENTRY.format(9)}{ERROR}' >&2\nexec sleep 60"

    with pytest.raises(DatabaseError, match="from TOC entry 9"):
        restore_load.run([_program(tmp_path, script)], os.environ, timeout_seconds=30)


def _program(folder: Path, script: str) -> str:
    path = folder / "pg_restore"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def test_its_words_are_returned_without_its_progress(tmp_path: Path) -> None:
    """It is asked to be verbose, and not to translate."""
    program = _program(
        tmp_path,
        'echo "pg_restore: finished item 5 TABLE DATA a" >&2\n'
        'echo "pg_restore: warning: $1 $2 $LC_ALL $LANGUAGE." >&2',
    )
    called: list[int] = []

    words, failed = restore_load.run(
        [program, "--jobs=2"],
        {**os.environ, "LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de"},
        timeout_seconds=30,
        finished=called.append,
    )

    assert words == "pg_restore: warning: --jobs=2 --verbose C ."
    assert called == [5]
    assert not failed


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo 'pg_restore: error: no' >&2; exit 1", "failed: pg_restore: error: no"),
        ("exit 3", "failed: exit code 3"),
        ("exec sleep 60", "took longer than 0.2 seconds and was stopped"),
    ],
)
def test_a_bad_end_is_an_error(tmp_path: Path, script: str, error: str) -> None:
    """With its words, or its code, or that it was stopped; nothing goes on."""
    before = set(threading.enumerate())

    with pytest.raises(DatabaseError, match=f"pg_restore {error}"):
        restore_load.run(
            [_program(tmp_path, script)],
            os.environ,
            timeout_seconds=0.2 if "sleep" in script else 30,
            finished=lambda _number: None,
        )

    assert set(threading.enumerate()) <= before
