"""Hooks: the user's programs before and after each operation that goes on record."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from subprocess import TimeoutExpired
from typing import Any

from opskit import log, process_group
from opskit.config.watch import HooksSettings
from opskit.errors import ConfigurationError
from opskit.operations.outcome import Record
from opskit.operations.run import Run
from opskit.watch.alerts import Ending, facts

_OPEN_FILES = "/dev/fd/"


class Hooks:
    """Runs the programs of `[hooks]`, one after the other."""

    def __init__(self, settings: HooksSettings) -> None:
        self._settings = settings

    def started(self, run: Run, record: Record) -> None:
        """Run the programs that prepare an operation.

        Raises:
            ConfigurationError: one of them failed: it prepared nothing.
        """
        about = facts(record, "started")
        for arguments in self._settings.before:
            if reason := self._run(arguments, about):
                raise ConfigurationError(
                    f"the hook {arguments[0]} {reason}",
                    hint=f"Nothing was done: the {record.operation} needs every hook "
                    "of hooks.before to succeed. Correct the program, or remove it.",
                )

    def ended(self, run: Run, record: Record) -> None:
        """Run the programs for an operation that succeeded, or for one that did not."""
        latest = Ending.of(record)
        programs = self._settings.after if latest.good else self._settings.failed
        outcome: dict[str, Any] = log.masked(record.outcome.as_json())
        about = outcome | facts(record, latest.outcome)
        for arguments in programs:
            if reason := self._run(arguments, about):
                log.logger().warning(
                    "a hook failed", program=arguments[0], reason=reason
                )

    def _run(self, arguments: Sequence[str], about: Mapping[str, Any]) -> str:
        """Run a program; return how it failed, or an empty text."""
        timeout = self._settings.timeout.total_seconds()
        try:
            code = process_group.run(
                arguments,
                seconds=timeout,
                content=json.dumps(about).encode(),
                environment=_environment(),
            )
        except OSError as error:
            return f"cannot be run: {error.strerror}"
        except TimeoutExpired:
            return f"took longer than {timeout:.0f} s and was ended"
        return f"ended with {code}" if code else ""


def _environment() -> dict[str, str] | None:
    """Return the environment of a program, which may call opskit itself.

    The scheduler hands its configuration to a job as an open file. Other processes find
    that by the number of this one.
    """
    path = os.environ.get("OPSKIT_CONFIG", "")
    if not path.startswith(_OPEN_FILES):
        return None  # that of this process
    number = path.removeprefix(_OPEN_FILES)
    return os.environ | {"OPSKIT_CONFIG": f"/proc/{os.getpid()}/fd/{number}"}
