"""What a drill is asked for, and what it has found so far."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from opskit.catalog.catalog import BackupSet
from opskit.catalog.manifest import Manifest
from opskit.checks import Check
from opskit.config import Query
from opskit.crypto.keys import Identities
from opskit.drill.mutants import MutantReport
from opskit.drill.servers import ServerRequest
from opskit.evidence import Unmade
from opskit.log import logger
from opskit.postgres.servers.programs import Installation
from opskit.progress import Bar, bar

_TITLES = {
    "fetch": "reading the set",
    "server": "starting a server",
    "surroundings": "making roles and tablespaces",
    "restore": "restoring",
    "compare": "comparing the copy",
}


@dataclass(frozen=True, kw_only=True)
class DrillRequest:
    """Which set to prove, and on what.

    `allowed` names what the drill may do without, see `[drill] allow`; `mutants` is how
    many are planted to show that the comparison can fail.
    """

    chosen: BackupSet
    installations: Sequence[Installation]
    server: ServerRequest
    jobs: int
    timeout_seconds: float
    queries: Sequence[Query] = ()
    allowed: Sequence[str] = ()
    mutants: int = 0
    sql_before: Sequence[str] = ()
    sql_after: Sequence[str] = ()
    identities: Identities | None = None


@dataclass(kw_only=True)
class Findings:
    """What a drill has found so far, and how long its phases took."""

    request: DrillRequest
    run_id: str
    checks: list[Check] = field(default_factory=list)
    unmade: list[Unmade] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    drill_server: str = ""
    mutants: MutantReport | None = None
    tables: int = 0
    rows: int = 0
    restored: bool = False

    def open(self, manifest: Manifest) -> None:
        """Go on with what an encrypted set's manifest seals."""
        chosen = replace(self.request.chosen, manifest=manifest)
        self.request = replace(self.request, chosen=chosen)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        logger().info("drill", phase=name)
        try:
            with self._shown(name):
                yield
        finally:
            before = self.phases.get(name, 0.0)
            self.phases[name] = round(before + time.monotonic() - began, 3)

    def _shown(self, phase: str) -> AbstractContextManager[Bar]:
        """Show how far a phase is, where that is known."""
        manifest = self.request.chosen.manifest
        if phase == "mutants":
            return bar("trying mutants", self.request.mutants, unit="mutants")
        totals = {"fetch": manifest.size_bytes, "compare": manifest.dump_bytes}
        return bar(_TITLES.get(phase, phase), totals.get(phase))
