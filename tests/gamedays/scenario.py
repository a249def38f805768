"""Scenario: how a system is broken, who tells, and which runbook mends it."""

from __future__ import annotations

import html
import math
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import ClassVar, Protocol

from tests.gamedays.system import System, hosted
from tests.releases.site import Ground

RUNBOOKS = Path(__file__).resolve().parents[2] / "runbooks"
_TOLD_SECONDS_MAX = 150
_STEADY_SECONDS_MAX = 150
_PAUSE_SECONDS = 0.2
_ENTRY = re.compile(r'<li class="\w+">.*?</li>', re.S)
_LINK = re.compile(r'href="[^"]*runbooks/([\w-]+)\.md"')
# What stands before the steps: symptoms, and which runbook to take.
_STEPS = "\n## Steps\n"


class Sign(Protocol):
    """What tells people that something is wrong."""

    def seen(self, system: System) -> str | None:
        """Return the runbook that it links; None while it is not there."""

    def words(self, system: System) -> str:
        """Return what it is called in the table."""


@dataclass(frozen=True)
class Alert:
    """An alert of the rules of `opskit rules`, in a Prometheus."""

    name: str

    def seen(self, system: System) -> str | None:
        """Return the runbook in its annotation, once it fires."""
        fires = system.alerts().get(self.name)
        return Path(fires[0]["annotations"]["runbook_url"]).stem if fires else None

    def words(self, system: System) -> str:
        """Return its name, and for how long it waits where nobody has it fire at once."""
        rule = system.run("rules").partition(f"alert: {self.name}\n")[2]
        found = re.search(r"for: (\w+)", rule)
        assert found is not None, f"there is no alert {self.name}"
        return f"`{self.name}`" + (f" (waits {found[1]})" if found[1] != "0m" else "")


@dataclass(frozen=True)
class StatusCheck:
    """A check on the status page, by its name."""

    name: str

    def seen(self, system: System) -> str | None:
        """Return the runbook beside it, once the page shows that it failed."""
        for entry in _ENTRY.findall(system.page()):
            if f"<span>{html.escape(self.name)}</span>" in entry:
                link = _LINK.search(entry)
                return link[1] if link else ""
        return None

    def words(self, _system: System) -> str:
        """Return its name."""
        return f"status page: {self.name}"


@dataclass(frozen=True)
class Person:
    """Somebody who noticed what nothing here can, and has looked for the runbook."""

    who: str
    runbook: str

    def seen(self, _system: System) -> str | None:
        """Return the runbook at once."""
        return self.runbook

    def words(self, _system: System) -> str:
        """Return who that is."""
        return f"reported by {self.who}"


class Scenario:
    """One way to break a running system.

    A subclass names the runbook and what is broken, and has what is broken, and how the
    runbook is called. The rest is the same for most: replace what is not.
    """

    runbook: ClassVar[str]
    broken: ClassVar[str]
    sign: ClassVar[Sign]

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Configure the system before anybody watches it.

        What is entered into the stack, a server of a store for instance, is there as
        long as the system is.
        """

    def break_(self, system: System) -> None:
        """Break it."""
        raise NotImplementedError

    def faults(self, system: System) -> list[str]:
        """Return what is not as it is in the steady state."""
        return system.faults()

    def by_hand(self, system: System) -> None:
        """Do what the runbook leaves to people."""

    def inputs(self, _system: System) -> Mapping[str, str]:
        """Return the inputs of the runbook."""
        return {}

    destroys: ClassVar[Sequence[str]] = ()
    skip: ClassVar[Sequence[int]] = ()

    def follow(self, system: System) -> None:
        """Follow the runbook: what is done by hand, then the player, unattended."""
        self.by_hand(system)
        arguments = ["runbook", self.runbook, "--yes"]
        for name, given in self.inputs(system).items():
            arguments += ["--input", f"{name}={given}"]
        for name in self.destroys:
            arguments += ["--destroys", name]
        for number in self.skip:
            arguments += ["--skip", str(number)]
        system.document(*arguments)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of a scenario; nobody measured when a person would notice."""

    scenario: Scenario
    sign: str
    detect_seconds: float | None
    recover_seconds: float
    day: date

    def row(self) -> str:
        """Return its row of the table."""
        runbook = self.scenario.runbook
        told = (
            "" if self.detect_seconds is None else f"{math.ceil(self.detect_seconds)}"
        )
        return (
            f"| [{runbook}]({runbook}.md) | {self.scenario.broken} | {self.sign} | "
            f"{told} | {math.ceil(self.recover_seconds)} | {self.day} |"
        )


def act(ground: Ground, scenario: Scenario, *, hurried: bool = False) -> Seen:
    """Break a system of its own, wait for the sign, follow the runbook.

    A scheduler looks at everything twice a minute. It is told to look at once if the
    game day is `hurried`: its seconds are then no figures to show.

    Raises:
        AssertionError: the system was not steady before, nothing told that it is
            broken, another runbook was linked, the runbook failed, or the system is
            not steady afterwards.
    """
    with hosted(ground) as system, ExitStack() as stack:
        scenario.prepare(system, stack)
        system.start(stack)
        await_steady(scenario, system)
        is_person = isinstance(scenario.sign, Person)
        if not is_person:
            _await_no_sign(scenario.sign, system)
        words = scenario.sign.words(system)
        scenario.break_(system)
        broken_at = time.monotonic()
        if hurried:
            system.scheduler.reload()
        first = _await_sign(scenario.sign, system)
        told_at = time.monotonic()
        assert first == scenario.runbook or _sends_on(first, scenario.runbook), (
            f"{scenario.sign} leads to {first or 'no runbook'}"
        )
        assert scenario.faults(system), "what was broken is no fault"
        scenario.follow(system)
        if hurried:
            system.scheduler.reload()
        await_steady(scenario, system)
        return Seen(
            scenario=scenario,
            sign=words
            if first == scenario.runbook
            else f"{words}, by [{first}]({first}.md)",
            detect_seconds=None if is_person else told_at - broken_at,
            recover_seconds=time.monotonic() - told_at,
            day=datetime.now(UTC).date(),
        )


def await_steady(scenario: Scenario, system: System) -> None:
    """Wait until the system is in its steady state."""
    end = time.monotonic() + _STEADY_SECONDS_MAX
    while faults := scenario.faults(system):
        assert time.monotonic() < end, f"not steady: {faults}"
        time.sleep(_PAUSE_SECONDS)


def _await_no_sign(sign: Sign, system: System) -> None:
    """Wait for its end: a scrape that is late raises an alert for a moment."""
    end = time.monotonic() + _STEADY_SECONDS_MAX
    while sign.seen(system) is not None:
        assert time.monotonic() < end, "the sign is there"
        time.sleep(_PAUSE_SECONDS)


def _await_sign(sign: Sign, system: System) -> str:
    end = time.monotonic() + _TOLD_SECONDS_MAX
    while (link := sign.seen(system)) is None:
        assert time.monotonic() < end, f"nothing told: {sign}"
        time.sleep(_PAUSE_SECONDS)
    return link


def _sends_on(first: str, runbook: str) -> bool:
    """Return whether a runbook links another one before its steps."""
    path = RUNBOOKS / f"{first}.md"
    if not path.is_file():
        return False
    before = path.read_text(encoding="utf-8").partition(_STEPS)[0]
    return f"({runbook}.md" in before
