"""Deployers: how a version of a service becomes the one that runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from opskit.config.release import ReleaseSettings
from opskit.config.smoke import SmokeSettings
from opskit.errors import ConfigurationError
from opskit.release.commands import Command
from opskit.release.local import Local
from opskit.release.railway import Railway


class Deployer(Protocol):
    """Deploys versions, and knows which one runs."""

    def require(self, version: str) -> None:
        """Check a version, before anything is done.

        Raises:
            ReleaseRefused: it cannot be deployed.
        """
        ...

    def current(self) -> str:
        """Return the version that is deployed, or nothing if there is none."""
        ...

    def deploy(self, version: str) -> str:
        """Deploy a version, and return the id of the deployment.

        Raises:
            DeployFailed: it is not known to run when this ends.
        """
        ...

    def return_to(self, version: str) -> str:
        """Like `deploy`, for a version that ran before."""
        ...

    def configuration(self) -> Mapping[str, bytes]:
        """Return what the platform keeps of the service's configuration, by a name.

        Raises:
            DeployFailed: it cannot be read.
        """
        ...


def deployer_of(
    settings: ReleaseSettings, smoke: SmokeSettings, base: Path
) -> Deployer:
    """Return the deployer that the settings name; paths are relative to a folder.

    Raises:
        ConfigurationError: none is configured.
    """
    if settings.deployer == "local" and settings.local.start and not smoke.url:
        raise ConfigurationError(
            "smoke.url is not set",
            hint="Set url in [smoke]: the process that [release.local] starts must "
            "name its version there.",
        )
    if settings.deployer == "local" and (
        settings.local.start or settings.local.restart
    ):
        return Local(settings.local, smoke, base)
    if settings.deployer == "railway" and settings.railway.service:
        settings.railway.resolve_token()
        return Railway(settings.railway)
    if settings.deployer == "command":
        for name in ("deploy", "status", "current"):
            if not getattr(settings.command, name):
                raise ConfigurationError(
                    f"release.command.{name} is not set",
                    hint="Set deploy, status and current in [release.command].",
                )
        return Command(settings.command, base)
    raise ConfigurationError(
        f"no {settings.deployer or 'deployer'} is configured"
        + (" for releases" if not settings.deployer else ""),
        hint="Set deployer in [release] and its section; docs/releases.md shows all.",
    )
