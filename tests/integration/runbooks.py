"""A folder with runbooks, and a person to walk through them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opskit import config
from opskit.operations.outcome import Outcome
from opskit.operations.run import begin
from opskit.runbook.play import PlayRequest, play
from opskit.watch.runs import observed

FORM = """\
# {title}

Rehearse every 30 days.

## Symptom

## Impact

## Decide

{inputs}

## Steps

{steps}

## Proof that it worked

```sh
{proof}
```

## If it did not

Ask the neighbour.

## Afterwards

Have a tea.
"""
HEAD = "| input | type | what it is | default |\n|---|---|---|---|\n"


def block(commands: str, proof: str = "") -> str:
    """Return a step's block of commands, and that of its proof."""
    text = f"```sh\n{commands}\n```\n"
    return text + (f"\nProof:\n\n```sh\n{proof}\n```\n" if proof else "")


@dataclass
class Room:
    """A folder with a configuration and runbooks, and a person to play."""

    folder: Path
    shown: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def write(
        self, *steps: str, inputs: str = "", proof: str = "true", name: str = "fix"
    ) -> None:
        """Write a runbook with these steps, each without its head."""
        text = FORM.format(
            title=f"To {name}",
            inputs=HEAD + inputs if inputs else "",
            steps="\n".join(
                f"### {number}. Do {number}\n\n{each}"
                for number, each in enumerate(steps, start=1)
            ),
            proof=proof,
        )
        (self.folder / "runbooks" / f"{name}.md").write_text(text)

    def play(
        self, *answers: str, name: str = "fix", settings: str = "", **request: Any
    ) -> Outcome[Any]:
        """Walk through a runbook; the person gives these answers, then goes away."""
        (self.folder / "opskit.toml").write_text(settings)
        left = list(answers)

        def ask(question: str) -> str | None:
            self.asked.append(question)
            return left.pop(0) + "\n" if left else None

        run = observed(begin(config.load(self.folder / "opskit.toml")))
        outcome = play(
            run,
            PlayRequest(name=name, **request),
            show=self.shown.append,
            ask=None if request.get("unattended") else ask,
        )
        assert left == [], f"nobody asked for these: {left}"
        return outcome

    def rehearse(self, **request: Any) -> Outcome[Any]:
        """Walk through it unattended."""
        return self.play(unattended=True, **request)

    def records(self, operation: str = "runbook-step") -> list[dict[str, Any]]:
        """Return the details of the records of an operation."""
        path = self.folder / ".opskit" / "ledger.jsonl"
        if not path.exists():
            return []
        lines = [json.loads(each) for each in path.read_text().splitlines()]
        return [each["details"] for each in lines if each["operation"] == operation]

    def done(self) -> list[str]:
        """Return what commands have written into the file `done`."""
        path = self.folder / "done"
        return path.read_text().splitlines() if path.exists() else []


def ends(outcome: Outcome[Any]) -> list[str]:
    """Return how each step ended, the proof last."""
    assert outcome.result is not None
    return [each.status for each in outcome.result.steps]
