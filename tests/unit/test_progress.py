"""Progress: a percentage and the time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import opskit
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.snapshot import TableSizes, Weights

_WORK = """
import sys, time
from opskit import log, progress
from opskit.terminal import protect_streams
protect_streams()
log.configure(run_id="abc123", form="auto")
def draw():  # a busy machine may come to it late by itself
    if progress._drawn is not None:
        progress._drawn.refresh()
with progress.bar("reading", 200):
    for _ in range(10):
        time.sleep(0.12)  # it is drawn ten times a second
        progress.advance(20)
        progress.advance(1000, "mutants")  # what another bar counts
        draw()
    log.logger().info("a step", snapshot="0003-1")
    log.logger().warning("a store fails", store="a\\x1b[2J", reason="gone")
    print("a result")
asked = []
def measure():
    asked.append(60)
    return 60 if len(asked) < 3 else 1 / 0
with progress.measured("loading", 100, measure):
    while len(asked) < 4 and progress._drawn is not None:
        time.sleep(0.05)
    draw()
"""


def on_a_terminal(script: str, **variables: str) -> str:
    """Run Python with standard error on a terminal; return what it shows there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(opskit.__file__).resolve().parents[1],
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "120"} | variables,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how a terminal ends
            break
        shown += piece
    os.close(ours)
    assert process.stdout is not None
    assert process.stdout.read() == b"a result\n"
    process.stdout.close()
    assert process.wait() == 0
    return shown.decode()


def test_a_terminal_shows_percentage_and_time_left() -> None:
    """The bar goes up to its end; logs are for people, and stand above it."""
    shown = on_a_terminal(_WORK)

    for percentage in ("10%", "50%", "90%", "60%"):
        assert percentage in shown
    assert "left" in shown
    assert "warning" in shown
    assert "a store fails: gone (store a\\x1b[2J)" in shown
    assert "\x1b[33m" in shown
    assert "a step" not in shown
    assert "abc123" not in shown
    assert "Traceback" not in shown


def test_no_color_is_heeded() -> None:
    """With NO_COLOR nothing is coloured, neither bars nor logs."""
    shown = on_a_terminal(_WORK, NO_COLOR="1")

    assert "50%" in shown
    assert "\x1b[3" not in shown


def test_a_pipe_gets_no_bar() -> None:
    """Off a terminal nothing but what is wrong is written."""
    finished = subprocess.run(
        [sys.executable, "-c", _WORK],
        cwd=Path(opskit.__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )

    assert finished.stdout == "a result\n"
    (line,) = finished.stderr.splitlines()
    assert '"a store fails"' in line


def entry(kind: str, name: str) -> TocEntry:
    """Return an entry of an archive."""
    return TocEntry(
        dump_id=1,
        kind=kind,
        schema="public",
        name=name,
        owner="",
        definition="",
        copy_statement="",
        dependencies=(),
        has_data=True,
    )


def test_the_weights_of_a_dump_are_those_of_its_tables() -> None:
    """Neither indexes nor tables that are left out count; all together is the total."""
    sizes = TableSizes(
        tables={("public", "a"): 700_000, ("public", "b"): 0, ("public", "out"): 5},
        large_objects_bytes=100_000,
        relations=9,
        rows={("public", "a"): 1000},
    )
    weights = Weights({("public", "a"), ("public", "b")}, sizes, 2_000_000)
    pieces = [entry("TABLE DATA", "a"), entry("TABLE DATA", "b"), entry("BLOBS", "")]

    assert [weights.of(each) for each in pieces] == [700_000, 8192, 100_000]
    assert sum(map(weights.of, pieces)) == weights.total
    assert weights.part(pieces[0], rows=500, size_bytes=1) == 350_000
    assert weights.part(pieces[0], rows=2000, size_bytes=1) == 700_000
    assert weights.part(pieces[1], rows=500, size_bytes=4096) == 4096


def test_tables_that_were_never_analyzed_weigh_alike() -> None:
    """Where the catalog knows no size, the size of the database is shared out."""
    sizes = TableSizes(tables={}, large_objects_bytes=0, relations=2)
    weights = Weights({("public", "a"), ("public", "b")}, sizes, 3_000_000)

    assert weights.of(entry("TABLE DATA", "a")) == 1_500_000
    assert weights.total == 3_000_000
