"""Progress of long work: a bar with percentage and time left, on a terminal only.

There is one screen for the process. Code that starts long work opens a bar; code that
reads, loads or compares advances it, from any thread.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from opskit.threads import Thread

_POLL_SECONDS = 0.5
_END_SECONDS_MAX = 5.0
# The Progress of rich while it draws.
_drawn: Any = None
_bars: list[Bar] = []
_guard = threading.Lock()
_is_quiet = False


class Bar:
    """What is shown of one piece of work. Without a total there is no percentage."""

    def __init__(self, title: str, total: float | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total or None, unit
        self.done = 0.0
        self._drawn_at = 0.0
        self._task = _drawn and _drawn.add_task(title, total=self.total)

    def reach(self, done: float) -> None:
        """Set how much is done; a bar never goes back nor beyond its end."""
        done = max(done, self.done)
        self.done = done if self.total is None else min(done, self.total)
        now = time.monotonic()
        if _drawn is not None and now - self._drawn_at > _POLL_SECONDS / 5:
            self._drawn_at = now
            _drawn.update(self._task, completed=self.done)

    def show(self, visible: bool) -> None:
        """Show it, or hide it while another one is shown."""
        if _drawn is not None:
            _drawn.update(self._task, visible=visible)

    def close(self) -> None:
        """Take it off the screen."""
        if _drawn is not None:
            _drawn.remove_task(self._task)


def hide() -> None:
    """Draw nothing from now on, not even on a terminal."""
    global _is_quiet
    _is_quiet = True


def is_shown() -> bool:
    """Return whether a bar that is opened now is drawn."""
    return not _is_quiet and sys.stderr.isatty()


def advance(amount: float, unit: str = "bytes") -> None:
    """Add to the bar that is shown, if it counts this unit."""
    with _guard:
        if _bars and _bars[-1].unit == unit:
            _bars[-1].reach(_bars[-1].done + amount)


@contextlib.contextmanager
def bar(
    title: str, total: float | None = None, *, unit: str = "bytes"
) -> Iterator[Bar]:
    """Show a piece of work for the length of the block; hide the bar around it."""
    with _screen():
        shown = Bar(title, total, unit)
        with _guard:
            around = _bars[-1] if _bars else None
            _bars.append(shown)
        if around is not None:
            around.show(False)
        try:
            yield shown
        finally:
            with _guard:
                _bars.remove(shown)
            shown.close()
            if around is not None:
                around.show(True)


@contextlib.contextmanager
def measured(
    title: str, total: float | None, measure: Callable[[], float]
) -> Iterator[None]:
    """Show work that does not report itself: `measure` is called regularly."""
    if not is_shown():
        yield
        return
    ended = threading.Event()

    def ask(shown: Bar) -> None:
        while not ended.wait(_POLL_SECONDS):
            with contextlib.suppress(Exception):  # it is only shown: work goes on
                shown.reach(measure())

    with bar(title, total, unit="measured") as shown:
        asking = Thread(ask, shown, name="progress")
        try:
            yield
        finally:
            ended.set()
            asking.join(_END_SECONDS_MAX)


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """Draw on standard error while there is a bar, if that is a terminal."""
    global _drawn
    if _drawn is not None or not is_shown():
        yield
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # results go where they always go
    ) as drawn:
        _drawn = drawn
        try:
            yield
        finally:
            _drawn = None
