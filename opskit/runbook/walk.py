"""Walk: the steps of a runbook, one after the other, each on record."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from opskit.errors import RunbookFailed, RunbookRefused
from opskit.operations import steps
from opskit.operations.run import Run
from opskit.runbook.attempts import (
    BEGUN,
    BY_HAND,
    DONE,
    FAILED,
    INTERRUPTED,
    SKIPPED,
    STEP,
    UNPROVED,
)
from opskit.runbook.text import Runbook, Step

Show = Callable[[str], None]
# Returns the line that a person types; None if there will be none.
Ask = Callable[[str], str | None]
_YES, _SKIP, _LEAVE = "yes", "skip", "leave"
PROOF = "Proof that it worked"
_BEFORE = {
    DONE: "was done, but its proof does not hold now",
    FAILED: "failed the last time",
    UNPROVED: "was not proved the last time, and is not now",
    BEGUN: "was begun and has not ended: see first whether its command still runs",
    INTERRUPTED: "was interrupted",
    BY_HAND: "is done by hand, and nobody has said that it is done",
}


class Left(Exception):
    """The person wants to go on another time."""


@dataclass(kw_only=True)
class Played:
    """What became of a runbook, step by step; the proof comes last.

    An `attempt` has one id in all its runs; a rehearsal is unattended.
    """

    attempt: str
    runbook: str
    digest: str
    operator: str
    second: str
    rehearsal: bool
    inputs: dict[str, str]
    steps: list[steps.Step] = field(default_factory=list)

    @property
    def has_second(self) -> bool:
        """Whether a second person has agreed, who is not the operator."""
        return self.second not in ("", self.operator)

    @property
    def about(self) -> dict[str, Any]:
        """What each record holds."""
        return {key: each for key, each in vars(self).items() if key != "steps"}

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return self.about | {"steps": [each.as_json() for each in self.steps]}


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text to be read, with the values of the inputs in it."""
    return re.sub(
        r"\$(?:\{(\w+)\}|(\w+))",
        lambda match: values.get(match[1] or match[2], match[0]),
        text,
    )


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Walks through a runbook with a person, or unattended if there is no `ask`.

    `known` are the steps that earlier runs have begun, each with its last state.
    """

    run: Run
    book: Runbook
    played: Played
    shell: Callable[[str], str]
    show: Show
    ask: Ask | None
    skip: Collection[int]
    known: Mapping[int, str]

    def go(self) -> None:
        """Do every step that is not done yet, then prove that it worked.

        Raises:
            RunbookRefused: it cannot be put on record; no step has begun.
            RunbookFailed: a step failed, or the proof.
            Left: the person has left.
        """
        if not self._record(0, "start", BEGUN):
            raise RunbookRefused(
                "the steps cannot be put on record",
                hint=f"Let this user write to the ledger in {self.run.state_dir}.",
            )
        *ordinary, last = self.played.steps
        for step, done in zip(self.book.steps, ordinary, strict=True):
            if not self._is_over(step, done):
                self.show(f"\n{filled(step.about, self.played.inputs)}\n")
                self._settle(step, done)
            self.show(f"{done.status}: {done.name}")
        number = len(self.played.steps)
        proof = Step(number=number, title=PROOF, about="", proof=self.book.proof)
        if not self._do(proof, last):
            raise self._failure(last)

    def _is_over(self, step: Step, done: steps.Step) -> bool:
        """Return whether an earlier run has done a step, and its proof still holds."""
        before = self.known.get(step.number)
        if before is None:
            return False
        if before == SKIPPED:
            done.status = SKIPPED
            return True
        holds = not self.shell(step.proof) if step.proof else None
        # A proof alone may hold without the step, as a query before a restore.
        if before in (DONE, UNPROVED) and holds is not False:
            done.status = steps.DONE_BEFORE
            return True
        also = "; its proof holds now" if holds else ""
        self.show(f"Step {step.number} {_BEFORE[before]}{also}.")
        return False

    def _settle(self, step: Step, done: steps.Step) -> None:
        """Do or skip a step, as often as the person wants."""
        while True:
            answer = self._answer(step, done)
            if answer == _SKIP:
                done.status = SKIPPED
                self._record(step.number, done.name, SKIPPED)
                return
            if answer == _LEAVE and done.status != FAILED:
                raise Left
            if answer == _YES and self._do(step, done):
                return
            if answer == _LEAVE or self.ask is None:
                raise self._failure(done)

    def _answer(self, step: Step, done: steps.Step) -> str:
        if step.number in self.skip:
            return _SKIP
        if self.ask is None:
            return _YES
        question = "Run it?" if step.command else "Is it done?"
        if done.status == FAILED:
            question = "Try it again?"
        elif step.only_if:
            question = f"Only if: {filled(step.only_if, self.played.inputs)} {question}"
        no = "no" if step.only_if else _SKIP
        while True:
            typed = self._typed(f"{question} [yes, {no}, leave]").lower() or "?"
            for known in (_YES, no, _SKIP, _LEAVE):
                if known.startswith(typed) and (known != _YES or self._agreed(step)):
                    return _SKIP if known == no else known

    def _agreed(self, step: Step) -> bool:
        """Have the person type what a step destroys, and a second person's name."""
        if not step.destroys:
            return True
        name, played = self.played.inputs[step.destroys], self.played
        if self._typed(f"This destroys {name}. To agree, type this name:") != name:
            self.show("That is another name. Nothing was run.")
            return False
        if not self.run.settings.runbooks.second_person or played.has_second:
            return True
        played.second = self._typed("The second person who agrees:")
        if not played.has_second:
            self.show("A second person has to agree. Nothing was run.")
        return played.has_second

    def _typed(self, question: str) -> str:
        line = self.ask(question) if self.ask else None
        if line is None:
            raise Left
        return line.strip()

    def _do(self, step: Step, done: steps.Step) -> bool:
        """Do a step and check its proof, on record; return whether it is done."""
        self._record(step.number, done.name, BEGUN)
        done.status, began, why, failure = INTERRUPTED, time.monotonic(), "", FAILED
        try:
            if step.command:
                why = self.shell(step.command)
            failure = UNPROVED if step.command and not why else FAILED
            if step.proof and not why and (failed := self.shell(step.proof)):
                why = f"the proof failed: {failed}"
            is_by_hand = self.ask is None and not step.command and not step.proof
            done.status = FAILED if why else BY_HAND if is_by_hand else "ok"
        finally:
            done.seconds = round(time.monotonic() - began, 3)
            state = {"ok": DONE, FAILED: failure}.get(done.status, done.status)
            self._record(
                step.number, done.name, state, **({"error": why} if why else {})
            )
        if why:
            done.details["why"] = why
            advice = self.book.sections["If it did not"]
            self.show(f"\nfailed: {done.name}: {why}.\n\n{advice}\n")
        return not why

    def _failure(self, done: steps.Step) -> RunbookFailed:
        name = self.book.name
        return RunbookFailed(
            f"the runbook {name} did not work: {done.name}: {done.details['why']}",
            hint="Correct what is wrong; then "
            f"`inv runbook --name {name} --resume` goes on with the same inputs. "
            "To change an input, begin anew without --resume.",
        )

    def _record(self, number: int, name: str, state: str, **more: Any) -> bool:
        details = {"step": number, "name": name, "state": state}
        details |= self.played.about | more
        failed = state in (FAILED, UNPROVED)
        return self.run.ledger.note(self.run.run_id, STEP, details, failed=failed)
