"""Game days: what fails one, and the table of what was seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime

import pytest
import yaml

from opskit.runbook.text import read
from opskit.watch.rules import render
from tests.gamedays import scenario as scenarios
from tests.gamedays import table
from tests.gamedays.guarded import Guarded
from tests.gamedays.registry import SCENARIOS
from tests.gamedays.scenario import RUNBOOKS, Scenario, act
from tests.unit.test_rules import SETTINGS
from tests.watching import at_once

DAY = date(2026, 11, 30)
KNOWN = next(iter(SCENARIOS.values()))


class Sign:
    """A sign that links a runbook once the system is broken."""

    def __init__(self, link: str | None) -> None:
        self._link = link

    def seen(self, system: System) -> str | None:
        """Return the link, or that there is none yet."""
        return self._link if system.is_broken else None

    def words(self, _system: System) -> str:
        """Return a name."""
        return "a sign"


class System:
    """A system that is broken or not."""

    is_broken = False

    def start(self, _stack: object) -> None:
        """Have nobody watch it."""

    def document(self, *_arguments: str) -> None:
        """Mend it, as the player does."""
        self.is_broken = False


class Breaking(Scenario):
    """A scenario that is as it should be."""

    runbook = KNOWN.runbook
    broken = KNOWN.broken
    sign = Sign(runbook)  # type: ignore[assignment]

    def break_(self, system: System) -> None:  # type: ignore[override]
        """Break it."""
        system.is_broken = True

    def faults(self, system: System) -> list[str]:  # type: ignore[override]
        """Tell whether it is broken."""
        return ["it is broken"] if system.is_broken else []


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what never happens, and the system is none."""

    @contextmanager
    def hosted(_ground: object) -> Iterator[System]:
        yield System()

    monkeypatch.setattr(scenarios, "hosted", hosted)
    monkeypatch.setattr(scenarios, "_TOLD_SECONDS_MAX", 0)
    monkeypatch.setattr(scenarios, "_STEADY_SECONDS_MAX", 0)


def fails(scenario: Scenario) -> str:
    """Return why a game day failed."""
    with pytest.raises(AssertionError) as failed:
        act(None, scenario)  # type: ignore[arg-type]
    return str(failed.value)


def test_a_game_day_passes_if_all_is_as_it_must_be() -> None:
    """Its row says what was broken, who told, and on which day."""
    seen = act(None, Breaking())  # type: ignore[arg-type]

    cells = [each.strip() for each in seen.row().strip("|").split("|")]
    assert cells[:3] == [
        f"[{KNOWN.runbook}]({KNOWN.runbook}.md)",
        KNOWN.broken,
        "a sign",
    ]
    assert cells[5] == seen.day.isoformat()


def test_a_runbook_that_does_nothing_fails() -> None:
    """The system is still broken afterwards."""

    class Idle(Breaking):
        def follow(self, system: object) -> None:
            """Do nothing."""

    assert fails(Idle()) == "not steady: ['it is broken']"


def test_nothing_that_tells_fails() -> None:
    """The system is broken, and no alert fires."""

    class Silent(Breaking):
        sign = Sign(None)

    assert fails(Silent()).startswith("nothing told: ")


@pytest.mark.parametrize("link", ["", "store-failing"])
def test_a_link_to_another_runbook_fails(link: str) -> None:
    """Also none at all."""

    class Misleading(Breaking):
        sign = Sign(link)

    assert f"leads to {link or 'no runbook'}" in fails(Misleading())


def test_a_break_that_breaks_nothing_fails() -> None:
    """The steady state must know what was broken."""

    class Harmless(Breaking):
        def faults(self, system: object) -> list[str]:
            """See nothing."""
            return []

    assert fails(Harmless()) == "what was broken is no fault"


def test_a_sign_that_is_there_before_fails() -> None:
    """It would tell of something else."""

    class Early(Sign):
        def seen(self, system: object) -> str | None:
            """Return the runbook at any time."""
            return KNOWN.runbook

    class Alarmed(Breaking):
        sign = Early("")

    assert fails(Alarmed()) == "the sign is there"


def row(day: str = "2026-11-30", seconds: int = 3) -> str:
    """Return a row of the table."""
    name = KNOWN.runbook
    return (
        f"| [{name}]({name}.md) | {KNOWN.broken} | an alert | 1 | {seconds} | {day} |"
    )


@pytest.mark.parametrize("wrong", ["verify", "ledger --verify", "restore-drill"])
def test_sets_the_ledger_and_a_copy_are_looked_at(wrong: str) -> None:
    """What `status` does not see is a fault as well."""

    class Watched(System):
        def faults(self) -> list[str]:
            """See nothing."""
            return []

        def document(  # type: ignore[override]
            self, *arguments: str, codes: object = None
        ) -> dict[str, str]:
            """Fail in one of them."""
            said = " ".join(arguments)
            return {"error": "damaged"} if said.startswith(wrong) else {}

    (fault,) = Guarded().faults(Watched())  # type: ignore[arg-type]
    assert fault.startswith(wrong)
    assert fault.endswith(": damaged")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_follows_the_runbook_that_there_is(name: str) -> None:
    """What it skips may be skipped; what is destroyed in the rest, it names."""
    scenario = SCENARIOS[name]
    steps = read(RUNBOOKS / f"{scenario.runbook}.md").steps

    done = [each for each in steps if each.number not in scenario.skip]
    assert all(steps[number - 1].only_if for number in scenario.skip)
    assert any(each.destroys for each in done) == bool(scenario.destroys)


EMPTY = "before\n\n<!-- gamedays -->\n<!-- end -->\n\nafter\n"


def test_a_row_takes_the_place_of_the_one_of_its_kind() -> None:
    """What stands around the table stays."""
    once = table.with_row(EMPTY, row(seconds=3))
    twice = table.with_row(once, row(seconds=4))

    assert table.rows(once) == {KNOWN.broken: row(seconds=3)}
    assert table.rows(twice) == {KNOWN.broken: row(seconds=4)}
    assert twice.startswith("before\n\n<!-- gamedays -->\n\n| runbook |")
    assert twice.endswith("|\n\n<!-- end -->\n\nafter\n")


def test_a_row_of_no_scenario_goes() -> None:
    """The table tells of those that there are."""
    text = table.with_row(EMPTY, row()).replace(KNOWN.broken, "something else")

    assert table.rows(table.with_row(text, row())) == {KNOWN.broken: row()}


def test_a_rehearsal_that_is_too_old_is_told() -> None:
    """And a runbook without a row, or without a limit."""
    text = table.with_row(EMPTY, row("2026-09-01"))
    every = "# Title\n\nRehearse every 90 days.\n"
    name = KNOWN.runbook

    assert table.overdue(text, {name: every}, DAY) == []
    assert table.overdue(text, {name: every}, date(2026, 12, 1)) == [
        f"{name} was rehearsed 91 days ago"
    ]
    assert table.overdue(text, {"other": every}, DAY) == ["other was never rehearsed"]
    assert table.overdue(text, {name: "# Title\n"}, DAY) == [
        f"{name} does not say how often it is rehearsed"
    ]


def test_every_runbook_was_rehearsed_lately() -> None:
    """`./inv gamedays` rehearses all of them, and writes the table."""
    text = table.DOCUMENT.read_text(encoding="utf-8")
    runbooks = {
        path.stem: path.read_text(encoding="utf-8")
        for path in RUNBOOKS.glob("*.md")
        if path != table.DOCUMENT
    }

    assert len(runbooks) >= 8
    assert table.overdue(text, runbooks, datetime.now(UTC).date()) == []
    assert [*table.rows(text)] == [each.broken for each in SCENARIOS.values()]


def test_rules_at_once_differ_from_those_of_users_in_their_waits_alone() -> None:
    """What an alert asks, and where it leads, is the same."""
    was, now = (yaml.safe_load(each) for each in (_RULES, at_once(_RULES)))

    rules = [each for group in now["groups"] for each in group["rules"]]
    assert {each.pop("for") for each in rules} == {"0s"}
    assert {group.pop("interval", "") for group in now["groups"]} == {"", "1s"}
    for group in was["groups"]:
        group.pop("interval", None)
        for each in group["rules"]:
            each.pop("for")
    assert now == was


_RULES = render(SETTINGS)
