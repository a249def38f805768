"""Releases: a version passes all probes, and does not work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import ClassVar

from tests.defects.defect import Edit
from tests.gamedays.scenario import Alert, Scenario
from tests.gamedays.system import DATABASE, System
from tests.releases import versions
from tests.releases.versions import Migration, Version
from tests.releases.writer import Writer
from tests.support import value
from tests.watching import until

# Nothing is created by the probes that are configured, so that the gate lets it pass.
_TAKES_NOTHING = Edit(
    file="service/tasks.py",
    old='    """Make a task of the account."""\n',
    new='    raise RuntimeError("a setting is missing")\n',
)
_SECONDS_MAX = 300
_COLUMN = """
SELECT count(*) FROM pg_attribute
WHERE attrelid = 'public.tasks'::regclass AND attname = 'legacy' AND NOT attisdropped
"""


class BadRelease(Scenario):
    """A version with a migration is released that takes no tasks any more."""

    runbook = "bad-release"
    broken = "a version was released that passes the probes and takes no new tasks"
    sign = Alert("ServiceErrorRateFastBurn")
    skip: ClassVar[Sequence[int]] = (4,)  # the version before runs on the new schema
    migrations: ClassVar[tuple[Migration, ...]] = (versions.ADDS,)

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Have a client write all the time."""
        url = f"http://127.0.0.1:{system.site.port}"
        stack.enter_context(Writer(url=url, key=system.key))
        self._stack = stack

    def break_(self, system: System) -> None:
        """Release it; it is broken as soon as the new version answers."""
        system.site.check_out(
            Version(edits=(_TAKES_NOTHING,), migrations=self.migrations)
        )
        self._release = system.site.start("release", "--version", "2")
        self._stack.callback(self._release.kill)
        until(lambda: system.site.version == "2", _SECONDS_MAX)

    def by_hand(self, system: System) -> None:
        """Wait for the end of the release, which nothing stops."""
        document = system.site.end(self._release)
        assert document["status"] == "released", document

    def inputs(self, system: System) -> Mapping[str, str]:
        """Return where to look."""
        return {
            "database": DATABASE,
            "live": DATABASE,
            "backup": system.newest_set,
            "prometheus": system.prometheus.url,
        }


class BadMigration(BadRelease):
    """Its migration drops a column: nothing but a restore brings that back."""

    broken = "the same, and its migration dropped a column"
    destroys = (DATABASE,)
    skip = ()
    migrations = versions.DESTRUCTIVE.migrations

    def by_hand(self, system: System) -> None:
        """Stop the service as well, before the restore."""
        super().by_hand(system)
        system.site.stop()

    def faults(self, system: System) -> list[str]:
        """Return also whether the column is gone."""
        is_there = value(system.site.url, _COLUMN)
        return [*system.faults(), *([] if is_there else ["the column is gone"])]
