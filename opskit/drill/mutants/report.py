"""MutantReport: which damage was planted, and which of it was noticed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from opskit.checks import Check

_NAME = "mutants"
_SHOWN_MAX = 10


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One damage that the server took; `noticed_by` is the check that named it."""

    kind: str
    target: str
    noticed: bool
    noticed_by: str = ""


@dataclass(frozen=True, kw_only=True)
class MutantReport:
    """What was planted with a seed. `refused` are the kinds that the server took none
    of, though there was something to damage.
    """

    seed: str
    planted: tuple[Mutant, ...]
    refused: tuple[str, ...] = ()

    @property
    def survivors(self) -> tuple[Mutant, ...]:
        """The mutants that the comparison did not notice."""
        return tuple(each for each in self.planted if not each.noticed)

    @property
    def killed(self) -> int:
        """How many mutants the comparison noticed."""
        return len(self.planted) - len(self.survivors)

    @property
    def kill_rate(self) -> float:
        """The part of the mutants that was noticed; 0 where there was none."""
        return self.killed / len(self.planted) if self.planted else 0.0

    def check(self) -> Check:
        """Return the check of the drill: passed if all were noticed, and not none."""
        number = len(self.planted)
        return Check(
            name=_NAME,
            passed=bool(self.planted) and not self.survivors,
            expected=f"{number} of {number} noticed"
            if number
            else "at least 1 noticed",
            observed=f"{self.killed} of {number} noticed",
            detail="; ".join(part for part in self._details() if part),
        )

    def _details(self) -> list[str]:
        survivors = [f"{each.kind}: {each.target}" for each in self.survivors]
        return [
            f"seed {self.seed}",
            "" if self.planted else "nothing could be planted",
            _listed("not noticed", survivors),
            _listed("refused by the server", self.refused),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON-ready document."""
        return {
            "seed": self.seed,
            "planted": len(self.planted),
            "killed": self.killed,
            "kill_rate": self.kill_rate,
            "survivors": [asdict(each) for each in self.survivors],
            "refused": list(self.refused),
            "mutants": [asdict(each) for each in self.planted],
        }


def _listed(label: str, names: list[str] | tuple[str, ...]) -> str:
    if not names:
        return ""
    more = len(names) - _SHOWN_MAX
    cut = f" and {more} more" if more > 0 else ""
    return f"{label}: {', '.join(names[:_SHOWN_MAX])}{cut}"
