"""Contenders in turn, several times: drift of the machine hits all of them alike."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.contenders import Contender
from benchmarks.figures import Rounds
from benchmarks.measure import ContenderFailed, Measured, run


@dataclass(frozen=True, kw_only=True)
class Result:
    """All rounds of one contender; `missing` says why there are none."""

    name: str
    what: str
    rounds: list[Measured] = field(default_factory=list)
    result_bytes: int = 0
    missing: str = ""

    @property
    def seconds(self) -> float:
        """The median."""
        return median(each.seconds for each in self.rounds)

    @property
    def cpu_seconds(self) -> float:
        """The median."""
        return median(each.cpu_seconds for each in self.rounds)

    @property
    def server_cpu_seconds(self) -> float:
        """The median."""
        return median(each.server_cpu_seconds for each in self.rounds)

    @property
    def peak_bytes(self) -> int:
        """The highest."""
        return max(each.peak_bytes for each in self.rounds)

    @property
    def own_peak_bytes(self) -> int:
        """The highest."""
        return max(each.own_peak_bytes for each in self.rounds)

    @property
    def phases(self) -> dict[str, float]:
        """The medians of the seconds of each phase, where it tells them itself."""
        told = [phases_of(each.output) for each in self.rounds]
        return {
            name: median(each[name] for each in told if name in each)
            for name in (told[0] if told else {})
        }

    def as_data(self) -> dict[str, object]:
        """Return it for JSON, without what it printed."""
        data = asdict(self)
        for each in data["rounds"]:
            del each["output"]
        return data | {"phases": self.phases}


def phases_of(output: str) -> dict[str, float]:
    """Return the seconds of each phase that a command's JSON document tells."""
    try:
        document = json.loads(output)
    except ValueError:
        return {}
    return dict(document.get("phases", {})) if isinstance(document, dict) else {}


def in_turn(
    contenders: Sequence[Contender], *, rounds: int, timeout_seconds: float
) -> list[Result]:
    """Run every contender once a round; one that fails is left out from then on."""
    measured: dict[str, list[Measured]] = {each.name: [] for each in contenders}
    missing = {each.name: each.missing for each in contenders}
    sizes = dict.fromkeys(measured, 0)
    for number in range(1, rounds + 1):
        for each in contenders:
            if missing[each.name]:
                continue
            try:
                once = _once(each, timeout_seconds)
            except ContenderFailed as error:
                missing[each.name] = f"failed: {error}"
                say(f"round {number}: {each.name} {missing[each.name]}")
                continue
            measured[each.name].append(once[0])
            sizes[each.name] = once[1]
            say(f"round {number}: {each.name} {once[0].seconds:.2f} s")
    return [
        Result(
            name=each.name,
            what=each.what,
            rounds=[] if missing[each.name] else measured[each.name],
            result_bytes=sizes[each.name],
            missing=missing[each.name],
        )
        for each in contenders
    ]


def seconds_by_name(results: Sequence[Result]) -> Rounds:
    """Return the seconds of each round, by contender."""
    return {each.name: [one.seconds for one in each.rounds] for each in results}


def say(line: str) -> None:
    """Tell a person what goes on."""
    print(line, file=sys.stderr, flush=True)


def _once(contender: Contender, timeout_seconds: float) -> tuple[Measured, int]:
    try:
        contender.prepare()
        os.sync()  # what the one before left to be written is no matter of this one
        measured = run(
            contender.command,
            folder=contender.folder,
            environment=contender.environment,
            timeout_seconds=timeout_seconds,
            servers=contender.servers,
            own_servers=contender.own_servers,
        )
        size = _size_bytes(contender.result) if contender.result else 0
    finally:
        contender.clean()
    return measured, size


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(each.lstat().st_size for each in files if each.is_file())
