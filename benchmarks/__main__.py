"""`python -m benchmarks`: what `inv bench` runs."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import parts, report
from benchmarks.dataset import SIZES_MB
from benchmarks.measure import ContenderFailed
from benchmarks.options import Options, Part
from benchmarks.rounds import say

_JOBS_MAX = 8
_INTERRUPTED = 130
# In their order; the first ones answer the table of targets.
PARTS = {
    "backup": parts.backup,
    "s3": parts.s3,
    "drill": parts.drill,
    "list": parts.listing,
    "catalog": parts.catalog,
    "memory": parts.memory,
    "curves": parts.curves,
    "stages": parts.stages,
    "nights": parts.nights,
    "fleet": parts.fleet,
}
_USUAL = ("backup", "s3", "drill", "list")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for, as the command line says it."""

    parts: list[str]
    options: Options
    out: Path
    write: bool


def parse(arguments: Sequence[str] | None = None) -> Wanted:
    """Read the command line; a wrong one ends the process with 2."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", default="small", help="small, medium, large or MB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--sets", type=int, default=10_000)
    parser.add_argument("--memory-sizes", default="", help="MB, with a comma between")
    parser.add_argument("--timeout", type=float, default=3600, help="of one command")
    parser.add_argument("--parts", default="", help=f"of {', '.join(PARTS)}; or all")
    parser.add_argument("--work-dir", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", default="")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(arguments)
    chosen = [each for each in given.parts.split(",") if each] or list(_USUAL)
    if chosen == ["all"]:
        chosen = list(PARTS)
    unknown = sorted(set(chosen) - PARTS.keys())
    if unknown:
        parser.error(f"unknown parts: {', '.join(unknown)}")
    try:
        size_mb = float(SIZES_MB.get(given.size, given.size))
        memory_sizes = [float(each) for each in given.memory_sizes.split(",") if each]
    except ValueError as error:
        parser.error(f"not a size: {error}")
    if size_mb <= 0 or given.rounds < 1:
        parser.error("sizes and rounds are 1 or more")
    return Wanted(
        parts=chosen,
        options=Options(
            size_mb=size_mb,
            rounds=given.rounds,
            jobs=given.jobs or min(_JOBS_MAX, os.cpu_count() or 1),
            sets=given.sets,
            memory_sizes_mb=memory_sizes or [size_mb, 10 * size_mb],
            timeout_seconds=given.timeout,
            work_dir=given.work_dir,
        ),
        out=Path(given.out or tempfile.mkdtemp(prefix="opskit-bench-results-")),
        write=given.write,
    )


def main() -> int:
    """Run the parts that are asked for, write what they found, return an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    wanted = parse()
    wanted.out.mkdir(parents=True, exist_ok=True)
    found = []
    for name in wanted.parts:
        say(f"== {name}")
        found.append(_part(name, wanted.options))
        # After each part: what is measured is not lost when a later one is interrupted.
        report.write(wanted.out, wanted.options, found)
    print((wanted.out / "results.md").read_text())
    if wanted.write:
        report.update(wanted.out, [each.name for each in found if not each.failed])
    say(f"the results lie in {wanted.out}")
    return int(any(each.failed for each in found))


def _part(name: str, options: Options) -> Part:
    """Run one part; one that fails is told of, and does not keep the rest from it."""
    try:
        return PARTS[name](options)
    except (
        ContenderFailed,
        RuntimeError,
        OSError,
        subprocess.SubprocessError,
    ) as error:
        say(f"{name} failed: {error}")
        return Part(name=name, text=f"## {name}\n\nfailed: {error}\n", failed=True)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt  # every server and folder is in a `with`


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
