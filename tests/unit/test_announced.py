"""What pg_restore announces is told from what it complains of."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from opskit.errors import DatabaseError
from opskit.restore import announced

SAID = b"""pg_restore: connecting to database for restore
pg_restore: launching item 215 TABLE DATA orders
pg_restore: finished item 215 TABLE DATA orders
pg_restore: warning: a word of caution
that goes on
pg_restore: NOTICE:  said by the server
and goes on as well
pg_restore: finished item 9 INDEX a
pg_restore: finished item 77 of another line
pg_restore: error: could not execute query: ERROR:  it is there
Command was: CREATE TABLE public.orders ();
pg_restore: detail: one
pg_restore: hint: two
"""


def _lines(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


def test_only_what_it_complains_of_is_kept() -> None:
    """A line goes with the one before, where it does not begin with the name."""
    kept = b"".join(announced.kept(_lines(SAID), lambda _number: None))

    assert kept.decode().splitlines() == [
        "pg_restore: warning: a word of caution",
        "that goes on",
        "pg_restore: error: could not execute query: ERROR:  it is there",
        "Command was: CREATE TABLE public.orders ();",
        "pg_restore: detail: one",
        "pg_restore: hint: two",
    ]


def test_what_is_finished_is_called_out_in_order() -> None:
    """By its dump id; what was only launched is not."""
    called: list[int] = []

    list(announced.kept(_lines(SAID), called.append))

    assert called == [215, 9, 77]


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

    words = announced.run(
        [program, "--jobs=2"],
        {**os.environ, "LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de"},
        timeout_seconds=30,
        finished=called.append,
    )

    assert words == "pg_restore: warning: --jobs=2 --verbose C ."
    assert called == [5]


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
    before = threading.active_count()

    with pytest.raises(DatabaseError, match=f"pg_restore {error}"):
        announced.run(
            [_program(tmp_path, script)],
            os.environ,
            timeout_seconds=0.2 if "sleep" in script else 30,
            finished=lambda _number: None,
        )

    assert threading.active_count() == before
