"""Markdown of what was measured: pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import Ratio
from benchmarks.rounds import Result

_MB = 1_000_000


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def results_table(results: Sequence[Result]) -> str:
    """Return every contender's medians, or why it was not run."""
    head = [
        "contender", "what it does", "seconds", "CPU s", "servers' CPU s",
        "peak MB, all its processes", "peak MB, its first process", "result MB",
    ]  # fmt: skip
    return markdown(head, [_result_row(each) for each in results])


def ratios_table(ratios: Sequence[Ratio]) -> str:
    """Return what was asked for beside what was reached."""
    head = ["what", "ratio", "in single rounds", "must reach", "reached"]
    return markdown(
        head,
        [
            [
                each.target.what,
                f"**{each.value:.2f}**",
                f"{each.lowest:.2f} to {each.highest:.2f}",
                f"at most {each.target.at_most:.2f}",
                "yes" if each.reached else "no",
            ]
            for each in ratios
        ],
    )


def phases_table(result: Result) -> str:
    """Return how long each phase of a contender took, if it tells; else nothing."""
    if not result.phases:
        return ""
    rows = [[name, f"{seconds:.2f}"] for name, seconds in result.phases.items()]
    return "\n" + markdown([f"phase of {result.name}", "seconds"], rows)


def _result_row(result: Result) -> list[str]:
    if result.missing:
        words = " ".join(result.missing.split()).replace("|", "/")
        return [result.name, result.what, f"not run: {words}", *[""] * 5]
    return [
        result.name,
        result.what,
        f"{result.seconds:.2f}",
        f"{result.cpu_seconds:.2f}",
        f"{result.server_cpu_seconds:.2f}",
        f"{result.peak_bytes / _MB:.0f}",
        f"{result.own_peak_bytes / _MB:.0f}",
        f"{result.result_bytes / _MB:.1f}" if result.result_bytes else "",
    ]
