"""Releases: a version passes all probes, and does not work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from tests.defects.defect import Edit
from tests.gamedays.scenario import Alert, Scenario
from tests.gamedays.system import DATABASE, System
from tests.releases import versions
from tests.releases.versions import Version
from tests.releases.writer import Writer

# Nothing is created by the probes that are configured, so that the gate lets it pass.
_TAKES_NOTHING = Edit(
    file="service/tasks.py",
    old='    """Make a task of the account."""\n',
    new='    raise RuntimeError("a setting is missing")\n',
)


class BadRelease(Scenario):
    """A version with a migration is released that takes no tasks any more."""

    runbook = "bad-release"
    broken = "a version was released that passes the probes and takes no new tasks"
    sign = Alert("ServiceErrorRateFastBurn")
    skip = (4,)  # what the migration did does not hinder the version before

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Have a client write all the time."""
        url = f"http://127.0.0.1:{system.site.port}"
        stack.enter_context(Writer(url=url, key=system.key))

    def break_(self, system: System) -> None:
        """Release it; nothing stops that."""
        bad = Version(edits=(_TAKES_NOTHING,), migrations=(versions.ADDS,))
        system.site.check_out(bad)
        system.document("release", "--version", "2")

    def inputs(self, system: System) -> Mapping[str, str]:
        """Return where to look."""
        return {
            "database": DATABASE,
            "live": DATABASE,
            "prometheus": system.prometheus.url,
        }
