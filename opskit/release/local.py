"""Local: release folders on this machine, and the process of the one that runs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from opskit import files
from opskit.config.release import LocalSettings
from opskit.config.smoke import SmokeSettings
from opskit.errors import DeployFailed, ReleaseRefused
from opskit.log import WORDS_READ, last_words
from opskit.probes.runner import names
from opskit.release import processes
from opskit.release.commands import call, require_name
from opskit.release.processes import Process

_CURRENT = "current"
_RELEASES = "releases"
_RECORDS = "processes"
_LOG = "service.log"
_POLL_SECONDS = 0.2
# How often a service is asked before it is restarted for its silence.
_ASKED_MAX = 3


@dataclass(frozen=True)
class Local:
    """Release folders on this machine, of which a symbolic link names the current.

    The service is started here, as a process that outlives this one, or by a command
    that has another supervisor restart it.
    """

    settings: LocalSettings
    smoke: SmokeSettings
    base: Path
    sleep: Callable[[float], None] = time.sleep

    @property
    def _folder(self) -> Path:
        return (self.base / self.settings.folder).resolve()

    def require(self, version: str) -> None:
        """See `Deployer`: it names a folder that there is, or that can be made."""
        require_name(version)
        if version in (".", "..") or "/" in version:
            raise ReleaseRefused(
                f"{version!r} is not the name of a release folder",
                hint="Name a version without slashes, for instance 1.4.2.",
            )
        releases = self._folder / _RELEASES
        if not (self.settings.prepare or (releases / version).is_dir()):
            raise ReleaseRefused(
                f"there is no release {version} in {releases}",
                hint="Put its folder there, or set prepare in [release.local].",
            )

    def current(self) -> str:
        """See `Deployer`."""
        try:
            return Path(os.readlink(self._folder / _CURRENT)).name
        except OSError:
            return ""

    def deploy(self, version: str) -> str:
        """See `Deployer`: prepare the folder, switch the link, have the service run."""
        target = self._prepared(version)
        if self.settings.start:
            number = self._replace(version, target)
            self._switch(target)
            return f"{version}@{number}"
        self._switch(target)
        call(self.settings.restart, self._variables(version, target), self._folder)
        return f"{version}@{target.stat().st_mtime_ns}"

    def return_to(self, version: str) -> str:
        """See `Deployer`: what runs and answers as this version already runs on."""
        process = self._process(version)
        if process and self.current() == version and self._answers_as(version):
            return f"{version}@{process.number}"
        return self.deploy(version)

    def configuration(self) -> Mapping[str, bytes]:
        """See `Deployer`: it is all in files."""
        return {}

    def runs(self) -> bool:
        """Return whether the process of the current version runs.

        Raises:
            DeployFailed: it was started on another host.
        """
        return bool(self._process(self.current()))

    def start(self) -> int:
        """Start the process of the current version; return its number.

        Raises:
            DeployFailed: it ended, or did not name its version in time.
            ReleaseRefused: its folder is gone, and cannot be made.
        """
        version = self.current()
        return self._replace(version, self._prepared(version))

    def stop(self) -> None:
        """Stop the processes that were started here.

        Raises:
            DeployFailed: one cannot be ended, or was started on another host; then
                nothing is stopped.
        """
        records = self._folder / _RECORDS
        files.make_directories(records)
        before = [(each, processes.read(each)) for each in records.iterdir()]
        for record, process in before:
            if process:
                # It is to end, and is no version's any more, should this be cut short.
                record = record.rename(records / f".ending-{process.number}")
                process.stop(self.settings.stop_timeout.total_seconds())
            record.unlink()

    def _process(self, version: str) -> Process | None:
        """Return the process of a version if it runs.

        Raises:
            DeployFailed: it was started on another host.
        """
        found = processes.read(self._folder / _RECORDS / (version or "none"))
        return found if found and found.is_alive else None

    def _variables(self, version: str, folder: Path) -> dict[str, str]:
        return {"OPSKIT_VERSION": version, "OPSKIT_RELEASE_FOLDER": str(folder)}

    def _prepared(self, version: str) -> Path:
        """Return the folder of a version.

        One that is missing is made under another name, and renamed when it is whole.
        """
        target = self._folder / _RELEASES / version
        if target.is_dir():
            return target
        self.require(version)
        files.make_directories(target.parent)
        partial = target.with_name(f".{version}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            call(self.settings.prepare, self._variables(version, partial), partial)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def _switch(self, target: Path) -> None:
        link = self._folder / _CURRENT
        beside = link.with_name(f".{_CURRENT}.new")
        beside.unlink(missing_ok=True)
        beside.symlink_to(target.relative_to(self._folder))
        beside.rename(link)

    def _replace(self, version: str, target: Path) -> int:
        """Stop what runs, start a version; return the number of its process.

        Raises:
            DeployFailed: it ended, or did not name its version in time.
        """
        records, log = self._folder / _RECORDS, self._folder / _LOG
        self.stop()
        begin = log.stat().st_size if log.exists() else 0
        process = processes.start(
            self.settings.start,
            folder=target,
            record=records / version,
            log=log,
            variables=self._variables(version, target),
        )
        try:
            self._confirm(process, version)
        except BaseException as error:
            process.stop(self.settings.stop_timeout.total_seconds())
            if isinstance(error, DeployFailed):
                raise error.replace(said=_tail(log, begin)) from error
            raise
        return process.number

    def _confirm(self, process: Process, version: str) -> None:
        hint = f"See the end of {self._folder / _LOG}."
        deadline = time.monotonic() + self.settings.deadline.total_seconds()
        while process.is_alive:
            if self._names(version) and process.is_alive:
                return
            if time.monotonic() > deadline:
                raise DeployFailed(
                    f"the process of {version} did not name its version within "
                    f"{self.settings.deadline.total_seconds():.0f} s",
                    hint=hint,
                )
            self.sleep(_POLL_SECONDS)
        raise DeployFailed(f"the process of {version} has ended", hint=hint)

    def _answers_as(self, version: str) -> bool:
        """Return whether the service names a version; one answer may come late."""
        for left in reversed(range(_ASKED_MAX)):
            if self._names(version):
                return True
            if left:
                self.sleep(_POLL_SECONDS)
        return False

    def _names(self, version: str) -> bool:
        """Return whether the service names a version now, if it names any at all."""
        if not self.smoke.version.field:
            return bool(names(self.smoke))
        return names(self.smoke, version) == version


def _tail(log: Path, begin: int) -> str:
    """Return the last words that a process wrote."""
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - WORDS_READ))
        return last_words(file.read().decode(errors="replace"))
