"""Progress: a bar on a terminal, silence elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol


class Progress(Protocol):
    """What long work reports to."""

    def __call__(self, *, size_bytes: int, tables: int) -> None:
        """Say how many bytes and tables are done so far."""


def silent(*, size_bytes: int, tables: int) -> None:
    """Report nothing."""


@contextlib.contextmanager
def bar(
    title: str,
    *,
    bytes_expected: int | None,
    tables_expected: int | None = None,
    unit: str = "tables",
) -> Iterator[Progress]:
    """Yield a progress callback; it draws on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    of_all = "" if tables_expected is None else f"/{tables_expected}"
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[tables]}" + of_all + f" {unit}"),
        TimeElapsedColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(title, total=bytes_expected, tables=0)

        def report(*, size_bytes: int, tables: int) -> None:
            drawn.update(task, completed=size_bytes, tables=tables)

        yield report
