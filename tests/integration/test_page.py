"""The page in a real browser, from the real server: looks, keys, and what is read out."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from opskit.config import Settings
from opskit.errors import StoreError
from opskit.log import MASK, hide
from opskit.operations.quickstart import quickstart
from opskit.operations.run import Run
from opskit.watch import web
from opskit.watch.gathering import Watch
from opskit.watch.state import State
from tests.acceptance.scheduling import Daemon, eventually
from tests.integration.browsers import TIMEOUT_MS, chromium
from tests.unit import states

DESKTOP, PHONE = (1280, 900), (390, 844)
HOSTILE = "</title></script><script>window.hit=1</script><img src=x onerror='hit=1'>"

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with sync_playwright() as playwright, chromium(playwright) as running:
        yield running


class _Frozen(Run):
    """A run at the time of the states that are shown."""

    def now(self) -> datetime:
        return states.NOW


@contextmanager
def served(state: State | None, settings: Settings) -> Iterator[str]:
    """Serve a state; yield the address of the page."""

    def gather() -> State:
        if state is None:
            raise StoreError("no store can be reached", hint="Wait.")
        return state

    watch = Watch(gather)
    serving = web.serve(_Frozen(settings), watch)
    try:
        until = time.monotonic() + 60
        while state is not None and watch.state is None and time.monotonic() < until:
            time.sleep(0.01)
        host, port = serving.address
        yield f"http://{host}:{port}/"
    finally:
        serving.stop()
        watch.stop()


def settings(**scheduler: Any) -> Settings:
    """Return settings with an objective, for a server on a free port."""
    given: Any = {
        "drill": {"rto": "2m"},
        "scheduler": {"listen": "127.0.0.1:0", **scheduler},
    }
    return Settings(**given)


@pytest.fixture
def show(browser: Browser) -> Iterator[Open]:
    """Return a function that shows a state; no page may complain or ask elsewhere."""
    complaints: list[str] = []
    stack = ExitStack()

    def show_state(
        state: State, size: tuple[int, int] = DESKTOP, **options: Any
    ) -> Page:
        address = stack.enter_context(served(state, settings()))
        view: Any = {"width": size[0], "height": size[1]}
        context = stack.enter_context(browser.new_context(viewport=view, **options))
        context.set_default_timeout(TIMEOUT_MS)
        shown = context.new_page()
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(address)
                else complaints.append(request.url)
            ),
        )
        shown.goto(address)
        return shown

    with stack:
        yield show_state
    assert complaints == []


def shot(shown: Page, name: str) -> None:
    """Keep a picture where somebody wants to look at it."""
    if folder := os.environ.get("TEST_OPSKIT_SCREENSHOTS"):
        shown.screenshot(path=f"{folder}/{name}.png", full_page=True)


SHOWN = {
    "desktop": (states.well, DESKTOP, "light"),
    "dark": (states.well, DESKTOP, "dark"),
    "phone": (states.well, PHONE, "light"),
    "sick": (states.sick, DESKTOP, "light"),
    "sick-dark-phone": (states.sick, PHONE, "dark"),
    "empty": (lambda: states.state_of([]), PHONE, "light"),
    "crowded": (states.crowded, DESKTOP, "light"),
    "crowded-phone": (states.crowded, (320, 640), "dark"),
    "fleet": (lambda: states.fleet(20), DESKTOP, "light"),
    "sick-fleet-phone": (lambda: states.sick_fleet(20), PHONE, "dark"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_page_fits_and_axe_finds_nothing(show: Open, name: str) -> None:
    """On any screen, light or dark, well or not: no finding, and no sideways scrolling."""
    make, size, scheme = SHOWN[name]
    shown = show(make(), size, color_scheme=scheme)
    for details in shown.locator("summary").all():
        details.click()
    shot(shown, name)

    found = Axe().run(shown, options={"resultTypes": ["violations"]})

    assert found.generate_snapshot() == ""
    assert shown.evaluate("document.documentElement.scrollWidth") <= size[0]
    light = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (light == "rgb(247, 247, 245)") is (scheme == "light")


def test_two_hundred_sources_are_one_table_from_which_each_can_be_opened(
    show: Open,
) -> None:
    """On a phone: the worst first, and the faults of many once."""
    shown = show(states.sick_fleet(), (320, 640))
    shot(shown, "two-hundred-phone")

    assert shown.evaluate("document.documentElement.scrollWidth") <= 320
    faults = shown.locator(".wrong h2").all_inner_texts()
    assert len(faults) < 15
    assert any("4 sources: newest set in local" in each for each in faults)
    assert shown.locator(".source").count() == 0
    rows = shown.locator(".losses tbody tr")
    assert rows.count() == 200
    first, last = rows.first.inner_text().split(), rows.last.inner_text().split()
    assert first[:3] == ["customer-0049", "all", "none"]
    assert last[1] not in ("all", "none")
    rows.last.get_by_role("link").click()
    shown.wait_for_url(f"**source={last[0]}**")
    assert shown.locator(".source h2").all_inner_texts() == [last[0]]
    assert shown.locator(".source h2").is_visible()


def test_a_sick_source_is_seen_at_once(show: Open) -> None:
    """What is wrong is on the first screen, with a runbook that can be read."""
    shown = show(states.sick())

    assert shown.title().startswith("Unhealthy (")
    first = shown.locator(".wrong li").first
    assert "database shop: newest set in local" in first.inner_text()
    assert first.bounding_box()["y"] < 300  # type: ignore[index]
    first.get_by_role("link", name="Runbook backup-failing.md").click()
    shown.wait_for_url("**/runbooks/backup-failing.md")
    assert "# A backup, a drill or the scheduler fails" in shown.inner_text("body")
    assert Axe().run(shown).generate_snapshot() == ""
    shown.get_by_role("link", name="State").click()
    shown.wait_for_url(lambda url: "runbooks" not in url)
    assert shown.title().startswith("Unhealthy (")


def test_the_calendar_says_each_day_without_colour(show: Open) -> None:
    """By a shape of its own, in words on pointing, and in a list."""
    shown = show(states.well())
    calendar = shown.locator("#source-shop .calendar")

    assert calendar.locator("g").count() == 90
    assert calendar.locator("g.failed path").count() == 1
    assert calendar.locator("g.missed path").count() == 1
    assert calendar.locator("g.ok path").count() == 0
    label = calendar.get_attribute("aria-label")
    assert label == ("Backups of the last ninety days: 97.7 % of 90 runs succeeded")
    shown.get_by_text("2 days with failed or missed runs").click()
    listed = shown.locator("#source-shop .plain li").all_inner_texts()
    assert [each.strip() for each in listed] == [
        "28 October 2026: 1 missed",
        "30 September 2026: 1 failed",
    ]


def test_the_drill_is_shown_against_its_objective(show: Open) -> None:
    """With a forecast, its range, and how many drills it rests on."""
    shown = show(states.well())
    text = shown.locator("#source-shop").inner_text()

    assert "of 2 min 0 s, the objective" in text
    gauge = shown.locator("#source-shop .gauge").get_attribute("aria-label")
    assert gauge is not None
    assert gauge.endswith("of an objective of 2 min 0 s")
    assert "A restore in ninety days" in text
    assert "Range of 95 %, a straight line through 13 drills." in text
    assert shown.locator("#source-shop .scatter circle").count() == 13


def test_without_scripts_everything_can_be_read_and_filtered(show: Open) -> None:
    """The page has none; the form of the ledger is a plain one."""
    shown = show(states.well(), java_script_enabled=False)

    assert shown.locator("h1").inner_text().strip() == "Healthy"
    assert shown.locator(".ledger tbody tr").count() == 50
    shown.get_by_label("Source").select_option("uploads")
    shown.get_by_label("Operation").select_option("restore-drill")
    shown.get_by_role("button", name="Show").click()
    shown.wait_for_url("**source=uploads**")
    rows = shown.locator(".ledger tbody tr").all_inner_texts()
    assert len(rows) == 5
    assert all("uploads" in each and "restore-drill" in each for each in rows)
    assert shown.get_by_label("Operation").input_value() == "restore-drill"
    shown.get_by_role("link", name="Show all").click()
    shown.wait_for_url(lambda url: "source=" not in url)
    shown.get_by_role("link", name="Older records").click()
    shown.wait_for_url("**before=**")
    assert shown.locator(".ledger tbody tr").count() == 50


def test_the_keyboard_reaches_everything_and_shows_where_it_is(show: Open) -> None:
    """First the link over the navigation, in the end the form; each with an outline."""
    shown = show(states.well())
    shown.keyboard.press("Tab")
    focused = "document.activeElement"
    assert shown.evaluate(f"{focused}.textContent") == "Skip to the state"
    shown.keyboard.press("Enter")
    assert shown.evaluate(f"{focused}.id") == "main"

    seen = []
    for _ in range(60):
        shown.keyboard.press("Tab")
        tag = shown.evaluate(f"{focused}.tagName")
        if tag == "BODY":
            break
        seen.append(tag)
        width = shown.evaluate(f"parseFloat(getComputedStyle({focused}).outlineWidth)")
        assert width >= 2, tag

    assert seen.count("SELECT") == 3
    assert {"SUMMARY", "BUTTON", "A", "DIV"} <= set(seen)
    assert shown.locator("[tabindex]:not([tabindex='0']):not(main)").count() == 0


def test_what_stores_and_ledgers_say_is_text(show: Open) -> None:
    """Markup in a name or an error is shown, and does nothing; a secret is not."""
    hide("hunter2hunter2")
    records = states.Records()
    error = f"{HOSTILE} hunter2hunter2"
    records.add(states.NOW, "backup", "failed", source="shop", error=error, code=40)
    records.add(states.NOW, HOSTILE, source=HOSTILE, backup_id=HOSTILE)
    state = states.state_of(
        [states.source_state("shop", records.entries)],
        entries=tuple(records.entries),
        ledger_faults=(HOSTILE,),
    )
    stores = tuple(replace(each, error=HOSTILE) for each in state.stores)
    shown = show(replace(state, stores=stores))

    assert shown.evaluate("window.hit") is None
    assert shown.locator("script, img").count() == 0
    assert f"{HOSTILE} {MASK}" in shown.locator(".ledger").inner_text()
    assert "hunter2" not in shown.content()
    shown.get_by_label("Source").select_option(HOSTILE)
    shown.get_by_role("button", name="Show").click()
    shown.wait_for_url("**source=%3C**")
    assert shown.locator(".ledger tbody tr").count() == 1
    assert shown.evaluate("window.hit") is None


def test_a_browser_asks_for_the_key(browser: Browser, tmp_path: Any) -> None:
    """Beyond loopback nobody reads the page without it."""
    key = tmp_path / "key"
    key.write_text("correct horse")
    key.chmod(0o600)
    with served(states.well(), settings(api_key_file=key)) as address:
        for password, code in (("wrong", 401), ("correct horse", 200)):
            with browser.new_context(
                http_credentials={"username": "any", "password": password}
            ) as context:
                answer = context.new_page().goto(address, timeout=TIMEOUT_MS)
                assert answer is not None
                assert answer.status == code


def test_before_the_first_state_the_page_says_so(browser: Browser) -> None:
    """The daemon has just started."""
    with served(None, settings()) as address, browser.new_context() as context:
        shown = context.new_page()
        answer = shown.goto(address, timeout=TIMEOUT_MS)

        assert answer is not None
        assert answer.status == 503
        assert shown.inner_text("body") == "Nothing was gathered yet."


def test_the_scheduler_shows_the_sample_of_the_quickstart(
    browser: Browser, tmp_path: Path
) -> None:
    """From nothing to a page: the set, its drill, and the server that is gone."""
    quickstart(tmp_path, on_start=lambda _: None, on_done=lambda _: None)
    with (tmp_path / "opskit.toml").open("a") as configuration:
        configuration.write('[scheduler]\nlisten = "127.0.0.1:0"\n')
    with ExitStack() as stack:
        daemon = Daemon(tmp_path, "daemon")
        stack.callback(daemon.kill)
        daemon.says("status page: http://")
        address = re.findall(r"http://127\.0\.0\.1:\d+/", daemon.output)[0]
        context = stack.enter_context(browser.new_context())
        shown = context.new_page()

        def is_there() -> bool:
            answer = shown.goto(address, timeout=TIMEOUT_MS)
            return answer is not None and answer.ok

        eventually(is_there, that="a page")
        assert shown.locator("h1").inner_text().strip() == "Unhealthy"
        text = shown.locator(".source").inner_text()
        assert "100 % of 1 run succeeded" in text
        assert "passed" in text
        assert "drilled" in text
        shot(shown, "quickstart")
        assert daemon.end() == 0
