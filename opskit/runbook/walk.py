"""Walk: the steps of a runbook, one after the other, each on record."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from opskit.errors import OpskitError, RunbookFailed, RunbookRefused
from opskit.operations.outcome import Record
from opskit.operations.run import Run
from opskit.runbook.attempts import BEGUN, DONE, FAILED, INTERRUPTED, SKIPPED, STEP
from opskit.runbook.shell import Shell
from opskit.runbook.text import Runbook, Step

Show = Callable[[str], None]
# Returns the line that a person types; None if there will be none.
Ask = Callable[[str], str | None]
_YES, _SKIP, _LEAVE = "yes", "skip", "leave"
_PLANNED, _OK, _BY_HAND, _DONE_BEFORE = "planned", "ok", "by hand", "done before"
_START, _PROOF = "start", "Proof that it worked"


class Left(Exception):
    """The person wants to go on another time."""


@dataclass(kw_only=True)
class Progress:
    """A step: how it ended, and how long it took."""

    number: int
    name: str
    status: str = _PLANNED
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {"name": self.name, "status": self.status, "seconds": self.seconds}


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
    steps: list[Progress] = field(default_factory=list)

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


def plan(book: Runbook) -> list[Progress]:
    """Return the steps of a runbook before the first of them is done."""
    return [
        *(Progress(number=each.number, name=each.name) for each in book.steps),
        Progress(number=len(book.steps) + 1, name=_PROOF),
    ]


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
    shell: Shell
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
        if not self._record(Progress(number=0, name=_START), BEGUN):
            raise RunbookRefused(
                "the steps cannot be put on record",
                hint=f"Let this user write to the ledger in {self.run.state_dir}.",
            )
        *steps, last = self.played.steps
        for step, progress in zip(self.book.steps, steps, strict=True):
            if not self._is_over(step, progress):
                self.show("\n" + filled(step.about, self.played.inputs) + "\n")
                self._settle(step, progress)
            self.show(f"{progress.status}: {progress.name}")
        proof = Step(number=last.number, title=_PROOF, about="", proof=self.book.proof)
        if why := self._do(proof, last):
            raise self._failure(why)

    def _is_over(self, step: Step, progress: Progress) -> bool:
        """Return whether an earlier run has done a step, and its proof still holds."""
        before = self.known.get(step.number)
        if before is None or before == SKIPPED:
            progress.status = before or progress.status
            return before is not None
        over = not self.shell.run(step.proof) if step.proof else before == DONE
        if over:
            progress.status = _DONE_BEFORE
        elif before == DONE:
            self.show(f"Step {step.number} was done, but its proof does not hold now.")
        elif before == FAILED:
            self.show(f"Step {step.number} failed the last time.")
        else:
            self.show(
                f"Step {step.number} was begun and has not ended. "
                "See first whether what it started still runs."
            )
        return over

    def _settle(self, step: Step, progress: Progress) -> None:
        """Do or skip a step, as often as the person wants."""
        while True:
            answer = self._answer(step, progress)
            if answer == _SKIP:
                progress.status = SKIPPED
                self._record(progress, SKIPPED)
                return
            if answer == _LEAVE:
                if progress.status == FAILED:
                    raise self._failure(f"step {step.number} failed")
                raise Left
            if not (why := self._do(step, progress)):
                return
            if self.ask is None:
                raise self._failure(f"step {step.number} failed: {why}")

    def _answer(self, step: Step, progress: Progress) -> str:
        if step.number in self.skip:
            return _SKIP
        if self.ask is None:
            return _YES
        question = "Run it?" if step.command else "Is it done?"
        if progress.status == FAILED:
            question = "Try it again?"
        elif step.only_if:
            question = f"Only if: {filled(step.only_if, self.played.inputs)} {question}"
        while True:
            answer = self._typed(f"{question} [yes, skip, leave]").lower()
            for known in (_YES, _SKIP, _LEAVE):
                if answer and known.startswith(answer):
                    if known != _YES or not step.destroys or self._agreed(step):
                        return known
                    break

    def _agreed(self, step: Step) -> bool:
        """Have the person type what a step destroys, and a second person's name."""
        name = self.played.inputs[step.destroys]
        if self._typed(f"This destroys {name}. To agree, type this name:") != name:
            self.show("That is another name. Nothing was run.")
            return False
        if self.run.settings.runbooks.second_person and not self.played.has_second:
            self.played.second = self._typed("The second person who agrees:")
            if not self.played.has_second:
                self.show("A second person has to agree. Nothing was run.")
                return False
        return True

    def _typed(self, question: str) -> str:
        line = self.ask(question) if self.ask else None
        if line is None:
            raise Left
        return line.strip()

    def _do(self, step: Step, progress: Progress) -> str:
        """Do a step and check its proof, on record; return why it failed, if it did."""
        self._record(progress, BEGUN)
        progress.status, began = INTERRUPTED, time.monotonic()
        state, why = INTERRUPTED, ""
        try:
            if step.command:
                why = self.shell.run(step.command)
            if step.proof and not why and (failed := self.shell.run(step.proof)):
                why = f"the proof failed: {failed}"
            state = FAILED if why else DONE
        finally:
            progress.seconds = round(time.monotonic() - began, 3)
            self._record(progress, state, **({"error": why} if why else {}))
        is_by_hand = self.ask is None and not step.command and not step.proof
        progress.status = FAILED if why else _BY_HAND if is_by_hand else _OK
        if why:
            advice = self.book.sections["If it did not"]
            self.show(f"\nfailed: {progress.name}: {why}.\n\n{advice}\n")
        return why

    def _failure(self, why: str) -> OpskitError:
        return RunbookFailed(
            f"the runbook {self.book.name} did not work: {why}",
            hint=f"Correct what is wrong; `inv runbook {self.book.name} --resume` "
            "goes on then.",
        )

    def _record(self, progress: Progress, state: str, **more: Any) -> bool:
        record = Record(
            operation=STEP,
            run_id=self.run.run_id,
            started_at=self.run.now(),
            ended="failed" if state == FAILED else "ok",
            details={
                **self.played.about,
                "step": progress.number,
                "name": progress.name,
                "state": state,
                **more,
            },
        )
        record.end()
        return self.run.ledger.append(record)
