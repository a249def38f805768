"""Deployers: how a version of a service becomes the one that runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from opskit import files
from opskit.config.release import CommandSettings, LocalSettings, ReleaseSettings
from opskit.errors import ConfigurationError, DeployFailed, ReleaseRefused
from opskit.log import mask

_WORDS_SHOWN = 600
_COMMAND_SECONDS_MAX = 900
_CURRENT = "current"
_RELEASES = "releases"
_POLL_SECONDS = 1.0


class Deployer(Protocol):
    """Deploys versions, and knows which one runs."""

    def require(self, version: str) -> None:
        """Check the name of a version, before anything is done.

        Raises:
            ReleaseRefused: no version can be called so.
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


def deployer_of(settings: ReleaseSettings, base: Path) -> Deployer:
    """Return the deployer that the settings name; paths are relative to a folder.

    Raises:
        ConfigurationError: none is configured.
    """
    if settings.deployer == "local" and settings.local.restart:
        return Local(settings.local, base)
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
        hint="Set deployer in [release] and its section; docs/releases.md shows both.",
    )


@dataclass(frozen=True)
class Local:
    """Release folders on this machine, of which a symbolic link names the current."""

    settings: LocalSettings
    base: Path

    @property
    def _folder(self) -> Path:
        return self.base / self.settings.folder

    def require(self, version: str) -> None:
        """See `Deployer`: it is the name of a folder."""
        _require_name(version)
        if version in (".", "..") or "/" in version:
            raise ReleaseRefused(
                f"{version!r} is not the name of a release folder",
                hint="Name a version without slashes, for instance 1.4.2.",
            )

    def current(self) -> str:
        """See `Deployer`."""
        try:
            return Path(os.readlink(self._folder / _CURRENT)).name
        except OSError:
            return ""

    def deploy(self, version: str) -> str:
        """See `Deployer`: prepare the folder, switch the link, restart the service."""
        target = self._folder / _RELEASES / version
        if not target.is_dir():
            self._prepare(version, target)
        self._switch(target)
        _call(self.settings.restart, self._variables(version, target), self._folder)
        return f"{version}@{target.stat().st_mtime_ns}"

    def _variables(self, version: str, folder: Path) -> dict[str, str]:
        return {"OPSKIT_VERSION": version, "OPSKIT_RELEASE_FOLDER": str(folder)}

    def _prepare(self, version: str, target: Path) -> None:
        """Make the folder of a version under another name, and rename it when whole."""
        if not self.settings.prepare:
            raise DeployFailed(
                f"there is no release {version} in {target.parent}",
                hint="Put its folder there, or set prepare in [release.local].",
            )
        files.make_directories(target.parent)
        partial = target.with_name(f".{version}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            _call(self.settings.prepare, self._variables(version, partial), partial)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _switch(self, target: Path) -> None:
        link = self._folder / _CURRENT
        beside = link.with_name(f".{_CURRENT}.new")
        beside.unlink(missing_ok=True)
        beside.symlink_to(target.relative_to(self._folder))
        beside.rename(link)


@dataclass(frozen=True)
class Command:
    """Any deployment tool: one command deploys, another says how far that is."""

    settings: CommandSettings
    base: Path
    sleep: Callable[[float], None] = time.sleep

    def require(self, version: str) -> None:
        """See `Deployer`: it is the value of an environment variable."""
        _require_name(version)

    def current(self) -> str:
        """See `Deployer`: what the command prints on its last line."""
        return _last_line(_call(self.settings.current, {}, self.base))

    def deploy(self, version: str) -> str:
        """See `Deployer`: success is a status that is known to be good."""
        variables = {"OPSKIT_VERSION": version}
        said = _last_line(_call(self.settings.deploy, variables, self.base))
        deadline = time.monotonic() + self.settings.deadline.total_seconds()
        status = ""
        while time.monotonic() < deadline:
            status = _last_line(
                _call(
                    self.settings.status,
                    variables | {"OPSKIT_DEPLOYMENT": said},
                    self.base,
                )
            )
            if status in self.settings.good:
                return said
            if status in self.settings.bad:
                break
            self.sleep(_POLL_SECONDS)
        raise DeployFailed(
            f"the deployment {said} of {version} has the status {status or 'none'}",
            hint="See what the deployment tool says of it.",
        )


def _require_name(version: str) -> None:
    if not version.strip() or "\0" in version:
        raise ReleaseRefused(
            f"{version!r} is not a version",
            hint="Name one, for instance 1.4.2.",
        )


def _call(command: Sequence[str], variables: Mapping[str, str], folder: Path) -> str:
    """Run a command of the user's; return what it printed.

    Raises:
        DeployFailed: it cannot be run, failed, or did not end in time.
    """
    name = command[0] if command else "no command"
    # Files, not pipes: what the command starts and leaves behind may hold them open.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            ended = subprocess.run(
                list(command),
                cwd=folder,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                timeout=_COMMAND_SECONDS_MAX,
                check=False,
            )
        except (OSError, IndexError, subprocess.TimeoutExpired) as error:
            raise DeployFailed(f"{name} did not work", said=str(error)) from error
        output.seek(0)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
        if ended.returncode:
            raise DeployFailed(
                f"{name} ended with {ended.returncode}",
                said=mask(said[-_WORDS_SHOWN:]),
            )
        return output.read().decode(errors="replace")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()
