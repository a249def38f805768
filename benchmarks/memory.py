"""Memory of opskit's own process at two sizes an order apart."""

from __future__ import annotations

from benchmarks import dataset
from benchmarks.contenders import Place, opskit_backup
from benchmarks.options import Options, Part
from benchmarks.rounds import in_turn, say
from benchmarks.tables import markdown

_MB = 1_000_000
_AT_MOST_MB = 150


def measure_memory(options: Options, here: Place) -> Part:
    """Back up a database of each size once, and tell the peak of the first process."""
    rows, data = [], []
    for size_mb in options.memory_sizes_mb:
        database = f"memory_{size_mb:.0f}"
        say(f"building {size_mb:g} MB")
        dataset.build(here.source, database, size_mb=size_mb)
        place = Place(
            source=here.source, folder=here.folder, jobs=here.jobs, database=database
        )
        contender = opskit_backup(place, f"opskit-{size_mb:.0f}", "opskit")
        (found,) = in_turn(
            [contender], rounds=1, timeout_seconds=options.timeout_seconds
        )
        here.source.psql("postgres", f"DROP DATABASE {database};")
        if found.missing:
            rows.append([f"{size_mb:,.0f}", found.missing, "", ""])
            continue
        own, whole = found.own_peak_bytes / _MB, found.peak_bytes / _MB
        rows.append(
            [
                f"{size_mb:,.0f}",
                f"**{own:.0f}**",
                f"{whole:.0f}",
                f"{found.seconds:.1f}",
            ]
        )
        data.append({"size_mb": size_mb, "own_mb": own, "whole_mb": whole})
    head = ["dump MB", "peak MB, opskit's own process", "with pg_dump", "seconds"]
    goal = f"Must reach: the same at both sizes, under {_AT_MOST_MB} MB.\n"
    return Part(
        name="memory",
        text=f"## Memory\n\n{goal}\n{markdown(head, rows)}",
        data=data,
    )
