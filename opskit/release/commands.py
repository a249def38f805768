"""Commands of the user's that deploy; any tool is a deployer by three of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import TimeoutExpired

from opskit import process_group
from opskit.config.release import CommandSettings
from opskit.errors import DeployFailed, ReleaseRefused
from opskit.log import last_words
from opskit.probes.runner import Clock

_SECONDS_MAX = 900.0
# How long one question for a status may take: it is asked again.
_ASK_SECONDS = 60.0
_POLL_SECONDS = 1.0
# A tool that is told to end may still have to release a lock.
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Command:
    """Any deployment tool: one command deploys, another says how far that is."""

    settings: CommandSettings
    base: Path
    clock: Clock = field(default_factory=Clock)

    def require(self, version: str) -> None:
        """See `Deployer`: it is the value of an environment variable."""
        require_name(version)

    def current(self) -> str:
        """See `Deployer`: what the command prints on its last line."""
        return _last_line(call(self.settings.current, {}, self.base))

    def deploy(self, version: str) -> str:
        """See `Deployer`: success is a status that is known to be good."""
        seconds = self.settings.deadline.total_seconds()
        deadline = self.clock.now() + seconds
        variables = {"OPSKIT_VERSION": version}
        said = _last_line(
            call(self.settings.deploy, variables, self.base, seconds=seconds)
        )
        if not said:
            raise DeployFailed(
                f"{self.settings.deploy[0]} printed no id of a deployment",
                hint="It must print the id on its last line.",
            )
        variables["OPSKIT_DEPLOYMENT"] = said
        status, reason = "", ""
        while (left := deadline - self.clock.now()) > 0:
            seconds = min(left, _ASK_SECONDS)
            try:
                told = call(self.settings.status, variables, self.base, seconds=seconds)
                status, reason = _last_line(told), ""
            except DeployFailed as error:
                reason = error.message  # it may be answered the next time
            if status in self.settings.good:
                return said
            if status in self.settings.bad:
                break
            self.clock.wait(_POLL_SECONDS)
        raise DeployFailed(
            f"the deployment {said} of {version} has the status {status or 'none'}",
            said=reason,
            hint="See what the deployment tool says of it.",
        )

    def return_to(self, version: str) -> str:
        """See `Deployer`."""
        return self.deploy(version)

    def configuration(self) -> Mapping[str, bytes]:
        """See `Deployer`: it is all in files."""
        return {}


def require_name(version: str) -> None:
    """Check that an environment variable can hold the name of a version.

    Raises:
        ReleaseRefused: it cannot, or it is empty.
    """
    if not version.strip() or "\0" in version:
        raise ReleaseRefused(
            f"{version!r} is not a version",
            hint="Name one, for instance 1.4.2.",
        )


def call(
    command: Sequence[str],
    variables: Mapping[str, str],
    folder: Path,
    *,
    seconds: float = _SECONDS_MAX,
) -> str:
    """Run a command of the user's; return what it printed.

    Raises:
        DeployFailed: it cannot be run, failed, or did not end in time.
    """
    name = command[0] if command else "no command"
    try:
        code, output, errors = process_group.captured(
            command,
            seconds=seconds,
            patience=_END_SECONDS,
            folder=folder,
            environment={**os.environ, **variables},
        )
    except (OSError, IndexError) as error:
        raise DeployFailed(f"{name} did not work", said=str(error)) from error
    except TimeoutExpired:
        raise DeployFailed(f"{name} did not end within {seconds:.0f} s") from None
    if code:
        raise DeployFailed(f"{name} ended with {code}", said=last_words(errors))
    return output


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()
