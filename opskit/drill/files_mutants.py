"""Plants damage in a restored directory, one at a time, each taken back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from opskit.catalog.file_record import FileRecord, shown
from opskit.checks import Check
from opskit.drill.files_ground import Ground, Unsuited
from opskit.drill.mutants.report import Mutant, MutantReport
from opskit.folders.compare import compare
from opskit.mutants.folders import KINDS, Plant

# A kind is given up when as many entries in a row could not be damaged by it.
_ATTEMPTS_MAX = 30


@dataclass(kw_only=True)
class _Kind:
    name: str
    plant: Plant
    records: Iterator[FileRecord]
    refused: bool = False


def plant(
    copy: Path, records: Sequence[FileRecord], *, number: int, seed: str
) -> tuple[MutantReport, list[Check]]:
    """Plant mutants in a copy that was found equal, and see which are noticed.

    After each the comparison runs again, over everything but the contents of files that
    were not touched, and must name what was. The same seed gives the same mutants in
    the same copy. Returns the report, and the comparison after the last was taken back.

    Raises:
        StoreError: the copy cannot be read.
    """
    ground = Ground(copy, records, seed)
    kinds = [
        _Kind(name=name, plant=KINDS[name], records=iter(ground.shuffled()))
        for name in ground.rng.sample(list(KINDS), len(KINDS))
    ]
    rotation = list(kinds)
    planted: list[Mutant] = []
    while rotation and len(planted) < number:
        for kind in tuple(rotation):
            if len(planted) == number:
                break
            mutant = _next(ground, kind, copy, records)
            if mutant is None:
                rotation.remove(kind)
            else:
                planted.append(mutant)
    taken = {each.kind for each in planted}
    refused = {kind.name for kind in kinds if kind.refused} - taken
    report = MutantReport(
        seed=seed, planted=tuple(planted), refused=tuple(sorted(refused))
    )
    return report, compare(copy, records, known=ground.digests_but(ground.touched))


def _next(
    ground: Ground, kind: _Kind, copy: Path, records: Sequence[FileRecord]
) -> Mutant | None:
    """Plant the next mutant of a kind, if one of its next entries takes it."""
    attempts = 0
    for record in kind.records:
        try:
            with kind.plant(ground, record) as (path, touched):
                checks = compare(copy, records, known=ground.digests_but(touched))
        except Unsuited:
            continue
        except OSError:
            # The modes of the copy keep an ordinary user out, as they would anybody.
            kind.refused = True
            attempts += 1
            if attempts == _ATTEMPTS_MAX:
                return None
            continue
        name = f"file {shown(path)}"
        noticed = any(each.name == name and not each.passed for each in checks)
        return Mutant(
            kind=kind.name,
            target=shown(path),
            noticed=noticed,
            noticed_by=name if noticed else "",
        )
    return None
