"""Programs: migration tools of others, which are given one database and one time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired

from opskit import process_group
from opskit.errors import MigrationFailed, ReleaseRefused
from opskit.log import last_words
from opskit.postgres import migrations as database
from opskit.postgres import parameters
from opskit.release.revisions import APPLICATION, Bounds, Revision

# Beyond the time that the server gives statements: imports, several statements.
_SECONDS_MORE = 60
_TRACEBACK = "Traceback (most recent call last):"
# Whatever driver it was: the server's words come through, or the name of their class.
_WAITED = ("lock timeout", "LockNotAvailable")


class _WaitedError(ReleaseRefused):
    """The tool failed because it waited too long for a lock."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A migration tool: what it is called, where it runs, how it gets its address.

    The address is in the environment variable `url_variable`, and in those of libpq.
    """

    name: str
    folder: Path
    url_variable: str
    hint: str

    def move(
        self, command: Sequence[str], url: str, revision: Revision, bounds: Bounds
    ) -> None:
        """Have it apply a revision to the database at an address, or take it back.

        Raises:
            MigrationFailed: it did not end well.
        """
        environment = {
            **parameters.client_environment(url),
            self.url_variable: parameters.for_tools(url),
            "PGOPTIONS": f"{parameters.session_options(url)} {bounds.options}".strip(),
            "PGAPPNAME": APPLICATION,
        }
        seconds = bounds.statement.total_seconds() + _SECONDS_MORE
        try:
            self.call(command, environment=environment, seconds=seconds)
        except ReleaseRefused as error:
            raise MigrationFailed(
                f"migration {revision.id} failed",
                said=": ".join(filter(None, (error.summary, error.said))),
                hint="What ran in a transaction was rolled back.",
                sqlstate=database.WAITED if isinstance(error, _WaitedError) else "",
            ) from error

    def call(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        seconds: float,
    ) -> str:
        """Run it and what it starts, no longer than that; return what it printed.

        Raises:
            ReleaseRefused: it cannot be run, failed, or did not end in time.
        """
        try:
            code, output, errors = process_group.captured(
                command, seconds=seconds, folder=self.folder, environment=environment
            )
        except OSError as error:
            raise ReleaseRefused(
                f"{command[0]} cannot be run: {error.strerror}", hint=self.hint
            ) from error
        except TimeoutExpired as error:
            raise ReleaseRefused(
                f"{self.name} did not end",
                said=f"after {seconds:g} seconds",
                hint=self.hint,
            ) from error
        if code:
            said = errors.rpartition(_TRACEBACK)[2]
            # SQLAlchemy names the error first; the last words are of the statement.
            waited = any(each in said.partition("[SQL:")[0] for each in _WAITED)
            raise (_WaitedError if waited else ReleaseRefused)(
                f"{self.name} ended with {code}",
                said=last_words(said),
                hint=self.hint,
            )
        return output
