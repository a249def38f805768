"""Browsers for the tests of pages: Debian's Chromium, without a window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Playwright

from tests.unit import stock

_ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
]
# The machine may be busy with other tests.
TIMEOUT_MS = 60_000


@contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """Yield a running browser."""
    browser = playwright.chromium.launch(
        executable_path=stock.program("chromium"),
        args=_ARGUMENTS,
        timeout=TIMEOUT_MS,
    )
    try:
        yield browser
    finally:
        browser.close()
