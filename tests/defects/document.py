"""docs/probes.md, written from the probes and the record: `python -m` prints it."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from opskit.config import load
from opskit.operations.smoke import families
from opskit.probes.probe import Probe
from tests.defects import record
from tests.defects.defect import SERVICE, Defect
from tests.defects.registry import DEFECTS, OTHERS

_HEAD = """\
# Probes

What `./inv smoke` asks, family by family, as the example service in `examples/service`
configures it; [smoke.md](smoke.md) says how it asks, and
[configuration.md](configuration.md) lists the keys. `./inv smoke --explain NAME` prints
the same of one probe for your configuration.

Each probe passes on the example service, and fails on a version of it that is broken
in just the way that the probe is there for: [the matrix](#the-matrix) shows which
probes notice which defect.
"""
_MATRIX = """
## The matrix

Each row is a defect: a change of the example service's source, of the kind that teams
make, planted in a copy of it that runs with a real PostgreSQL and a real Redis. The
probes of its family are asked, and for more than half of the rows all others; ● is one
that failed. The probe in bold is there for this defect. The last column names the probes
of other families that failed too, because the defect breaks what they rely on. Probes
that must be asked alone, such as bursts, are asked for the defects of their own family
only. The defects of TLS, resilience and load have tests of their own, in which only the
probe in bold is asked.

```sh
.venv/bin/python -m tests.matrix --record          # all of it, in some minutes
.venv/bin/python -m tests.matrix cors no-next      # a family, a defect
.venv/bin/python -m tests.defects no-next          # shows a defect
.venv/bin/python -m tests.defects no-next serve    # the broken service itself
```
"""
_SOURCE = (
    "\nWritten by `python -m tests.defects.document >docs/probes.md`: change the probes, "
    "or the defects\nin `tests/defects/`, then write it again.\n"
)


def render() -> str:
    """Return the text of docs/probes.md."""
    found = explained()
    parts = [_HEAD, _SOURCE]
    for family, probes in found.items():
        parts += _explained(family, probes)
    parts.append(_MATRIX)
    failed = record.read() | {name: [each.probe] for name, each in OTHERS.items()}
    several = [*DEFECTS.values(), *OTHERS.values()]
    for family, probes in found.items():
        defects = [each for each in several if each.family == family]
        if defects:
            parts += _grid(family, probes, defects, failed)
    return "".join(parts)


def explained() -> dict[str, tuple[Probe, ...]]:
    """Return the probes of the example, as if it were under https and no production."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("hook-secret", "webhook-secret"):
            path = Path(folder, name)
            path.write_text("nothing is signed with it")
            path.chmod(0o600)
        text = (SERVICE / "opskit.toml").read_text(encoding="utf-8")
        always, _, strained = text.partition("nobody's production")
        text = always + "\n" + re.sub(r"(?m)^# ?", "", strained.partition("\n\n")[2])
        path = Path(folder, "opskit.toml")
        path.write_text(text.replace("/etc/service/keys", folder), encoding="utf-8")
        settings = load(path)
        smoke = settings.smoke.model_copy(update={"url": "https://app.example"})
        return families(smoke, settings.slo)


def _explained(family: str, probes: Sequence[Probe]) -> Iterator[str]:
    yield f"\n## {family}\n"
    if not probes:
        yield "\nThe example configures none.\n"
    for each in probes:
        kind = [each.profile.value, *["advisory"] * each.advisory]
        yield f"\n### {each.name}\n\n{each.what} ({', '.join(kind)})\n\n"
        yield f"- **Why:** {each.why}\n- **When it fails:** {each.remedy}\n"


def _grid(
    family: str,
    probes: Sequence[Probe],
    defects: Sequence[Defect],
    failed: record.Record,
) -> Iterator[str]:
    names = [each.name for each in probes]
    shown = [name for name in names if any(name in failed[e.name] for e in defects)]
    heads = [name.partition(".")[2] for name in shown]
    yield f"\n### Defects of {family}\n\n"
    yield f"| defect | {' | '.join(heads)} | also |\n"
    yield f"|---|{':-:|' * len(heads)}---|\n"
    for each in defects:
        found = failed[each.name]
        marks = [
            ("**●**" if name == each.probe else "●") if name in found else ""
            for name in shown
        ]
        others = _others(family, found)
        yield f"| `{each.name}`: {each.what} | {' | '.join(marks)} | {others} |\n"


def _others(family: str, found: Sequence[str]) -> str:
    """Return the probes of other families; of many in one, only how many."""
    others = [name for name in found if name.partition(".")[0] != family]
    counts = Counter(name.partition(".")[0] for name in others)
    several = [f"{name} ({n})" for name, n in counts.items() if n > 1]
    single = [name for name in others if counts[name.partition(".")[0]] == 1]
    return ", ".join([*single, *several])


if __name__ == "__main__":
    print(render(), end="")
