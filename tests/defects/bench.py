"""Bench: where services, good and broken ones, are started and probed."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opskit.config import Settings, load
from opskit.operations import smoke
from opskit.operations.smoke import families
from opskit.postgres.servers import programs, throwaway
from opskit.probes.probe import Probe
from opskit.probes.report import Finding
from opskit.probes.runner import Clock, Runner
from tests import service as services_of_tests
from tests.defects.defect import Defect, copy
from tests.service import STRICT, Service, Services

# Rounds of what is inconclusive, for the machine may be busy.
_ROUNDS_MAX = 3


@dataclass
class Bench:
    """Where services are started; `folder` is for copies, keys and configurations."""

    services: Services
    folder: Path
    _starts: int = 0

    @contextlib.contextmanager
    def serving(self, defect: Defect | None = None) -> Iterator[Settings]:
        """Serve, and yield the settings by which the example is probed there."""
        self._starts += 1
        folder = self.folder / str(self._starts)
        folder.mkdir(parents=True)
        source = folder / "source"
        given = STRICT | dict(defect.settings if defect else {})
        copy(source)
        if defect is not None:
            defect.plant(source)
        with self.services.running(source=source, **given) as service:
            changes = defect.configuration if defect else {}
            settings = _settings(service, folder, changes)
            if defect is not None and defect.restarts:
                probes = [e for e in probes_of(settings) if e.name == defect.probe]
                findings(settings, probes)
                service.stop()
                service.start()
            yield settings


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """Yield a bench of its own, in a temporary folder."""
    found = programs.find_server(programs.installations(), major=16)
    with (
        tempfile.TemporaryDirectory(prefix="matrix-") as folder,
        services_of_tests.redis() as redis,
        throwaway.throwaway(found) as server,
    ):
        services = Services(folder=Path(folder), server=server, redis=redis)
        yield Bench(services, Path(folder) / "copies")


def _settings(service: Service, folder: Path, changes: Mapping[str, str]) -> Settings:
    path = service.configuration(folder)
    text = path.read_text()
    for there, here in changes.items():
        if there not in text:
            raise LookupError(f"opskit.toml of the example lacks {there}")
        text = text.replace(there, here)
    path.write_text(text)
    return load(path)


def probes_of(settings: Settings) -> list[Probe]:
    """Return all probes that the settings configure."""
    several = families(settings.smoke, settings.slo).values()
    return [probe for probes in several for probe in probes]


def findings(settings: Settings, probes: Sequence[Probe]) -> list[Finding]:
    """Ask the probes, a failed one twice, and return what became of each."""
    runner = Runner(
        smoke._target(settings.smoke),
        version=settings.smoke.version,
        connections=1,
        deadline=time.monotonic(),
        clock=Clock(wait=lambda _seconds: None),
    )
    for _ in range(_ROUNDS_MAX):  # one that comes too late leaves all in doubt
        if runner.confirm("").passed:
            break
    found: dict[str, Finding] = {}
    asked = list(probes)
    for _ in range(_ROUNDS_MAX):
        found |= {each.check.name: each for each in runner.ask(asked)}
        asked = [each for each in asked if found[each.name].check.passed is None]
        if not asked:
            break
    return [found[each.name] for each in probes]
