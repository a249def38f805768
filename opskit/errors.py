"""The whole error tree, each error with the exit code of the contract."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Self


class OpskitError(Exception):
    """Root of every error that opskit raises on purpose.

    The summary says what failed (lower case, no full stop), the hint what to do about
    it. `said` are the words of a server or a program, which may hold a user's rows:
    what is kept in the open gets the summary alone. `details` holds whatever else is
    known, as JSON-ready values; it is merged into the document that `--json` prints.
    """

    exit_code = 1

    def __init__(
        self,
        summary: str,
        *,
        said: str = "",
        hint: str = "",
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(summary)
        self.summary = summary
        self.said = said
        self.hint = hint
        self.details: Mapping[str, object] = MappingProxyType(dict(details or {}))

    @property
    def message(self) -> str:
        """What failed, with the words of the server or program, if there are any."""
        return f"{self.summary}: {self.said}" if self.said else self.summary

    def __str__(self) -> str:
        return self.message

    def __setattr__(self, name: str, value: object) -> None:
        if name in vars(self):
            raise AttributeError(f"{name} of an error cannot be changed: use replace()")
        super().__setattr__(name, value)

    def replace(self, **changes: object) -> Self:
        """Return the same error with other fields; raise it from this one."""
        error = type(self).__new__(type(self), *self.args)
        vars(error).update(vars(self) | changes)
        return error


class UsageError(OpskitError):
    """The call or the configuration is wrong; nothing was touched."""

    exit_code = 2


class ConfigurationError(UsageError):
    """The configuration is missing, unreadable, or holds an impossible value."""


class Degraded(OpskitError):
    """Something watched is not as it should be; the service goes on."""

    exit_code = 3


class Unhealthy(OpskitError):
    """Something watched has failed."""

    exit_code = 4


class StoreError(OpskitError):
    """A store is unreachable, refused, or lost an object."""

    exit_code = 10


class ObjectNotFound(StoreError):
    """No object has this key."""


class ObjectUnreadable(StoreError):
    """One object cannot be read, though its store answers: damage, not an outage."""


class ObjectExists(StoreError):
    """An object with this key exists and must not be overwritten."""


class StoreUnavailable(StoreError):
    """A store does not answer just now, or broke off; it may if asked again."""


class RetriesExhausted(StoreUnavailable):
    """A store did not answer however often it was asked; asking on is no use."""


class GitHubError(OpskitError):
    """GitHub is unreachable or refused."""

    exit_code = 10


class LockHeld(OpskitError):
    """Another run holds the lock; the message names its owner and start."""

    exit_code = 11


class IntegrityError(OpskitError):
    """A size, a digest or a manifest does not match what was recorded."""

    exit_code = 20


class DatabaseError(OpskitError):
    """A server is unreachable or refused.

    `sqlstate` is the server's code of the error, empty where none is known.
    """

    exit_code = 30

    def __init__(
        self,
        summary: str,
        *,
        said: str = "",
        hint: str = "",
        details: Mapping[str, object] | None = None,
        sqlstate: str = "",
    ) -> None:
        super().__init__(summary, said=said, hint=hint, details=details)
        self.sqlstate = sqlstate


class ServerFault(DatabaseError):
    """The server or a machine failed, which says nothing about what it was asked.

    For instance: a full disk, no memory, a lost connection, a time limit of ours.
    """


class ClientToolError(DatabaseError):
    """A PostgreSQL program is missing or of the wrong version."""


class ExtraMissing(ClientToolError):
    """Something is not installed that an extra of opskit brings."""

    def __init__(self, message: str, *, extra: str, said: str = "") -> None:
        hint = (
            f"Install opskit with its extra: `pip install 'opskit-postgres[{extra}]'`."
        )
        super().__init__(message, said=said, hint=hint)


class MigrationFailed(DatabaseError):
    """A migration failed; what of it ran in a transaction was rolled back."""


class BackupFailed(OpskitError):
    """The backup failed; no backup set was recorded."""

    exit_code = 40


class ArchiveError(BackupFailed):
    """The archive that pg_dump wrote is cut short or not understood."""


class RetentionRefused(OpskitError):
    """Retention refused to delete."""

    exit_code = 41


class DrillFailed(OpskitError):
    """A drill ran and did not pass."""

    exit_code = 50


class RunbookFailed(OpskitError):
    """A step of a runbook or its proof failed."""

    exit_code = 50


class RunbookRefused(OpskitError):
    """A runbook was refused before its first step."""

    exit_code = 62


class DeployFailed(OpskitError):
    """A version is not known to run; a release that meets this is rolled back."""

    exit_code = 60


class ReleaseFailed(OpskitError):
    """A release failed and was rolled back."""

    exit_code = 60


class RollbackFailed(OpskitError):
    """A release failed and the rollback failed too: page a person."""

    exit_code = 69


class ReleaseRefused(OpskitError):
    """A release was refused before anything changed."""

    exit_code = 62


class SmokeFailed(OpskitError):
    """A live service answered a probe wrong, or did not answer."""

    exit_code = 61


class Interrupted(OpskitError):
    """A person or the system asked the run to stop; nothing is left half-done."""

    exit_code = 130


class OutOfTime(KeyboardInterrupt):
    """The scheduler ends a job that takes longer than it may: that is a failure."""

    def failure(self, operation: str) -> OpskitError:
        """Return what is said of the operation that it ended."""
        return failure_of(operation)(
            "it was ended: it took longer than scheduler.job_timeout",
            hint="See in the log what it waited for, or allow it more time.",
        )


def failure_of(operation: str) -> type[OpskitError]:
    """Return what an operation failed with that was ended from outside."""
    kinds: dict[str, type[OpskitError]] = {
        "backup": BackupFailed,
        "restore-drill": DrillFailed,
        "smoke": SmokeFailed,
    }
    return kinds.get(operation, OpskitError)


# What the machine refuses counts as the failure of what was being done.
_FAULTS: dict[str, type[OpskitError]] = {
    "backup": BackupFailed,
    "restore": ServerFault,
    "restore-drill": ServerFault,
}
_MACHINE_HINTS = {
    errno.ENOSPC: "Free some space there.",
    errno.EDQUOT: "Free some space there, or raise this user's quota.",
    errno.EMFILE: "Raise the limit of open files: see `ulimit -n`.",
    errno.ENFILE: "The system has no open files left: see fs.file-max.",
    errno.ENOLCK: "The file system has no locks (left): see state_dir.",
    errno.EIO: "A disk or a file system reports an error: see the system log.",
    errno.EROFS: "The file system is mounted read-only: see the system log.",
    errno.EACCES: "Run this as a user who may do that, or change the permissions.",
    errno.EPERM: "Run this as a user who may do that, or change the permissions.",
    errno.EAGAIN: "Raise the limit of processes (`ulimit -u`), or stop some.",
    errno.ENOMEM: "Free some memory.",
}


@contextmanager
def machine_faults(operation: str) -> Iterator[None]:
    """Turn what the operating system refuses in the block into an OpskitError.

    An error that knows better what it means is translated where it occurs; here is
    what remains: no space, no open files, no threads, no memory, a failing disk, an
    installation that cannot be read.
    `operation` is the name of the task and decides on the class of the error.

    Raises:
        OpskitError: with the exit code of a failed `operation`.
    """
    try:
        yield
    except OSError as error:
        # Several names are those of a rename: the first one is what was acted on.
        place = f"{error.filename}: " if error.filename else ""
        words = error.strerror or type(error).__name__
        raise _refused(operation, f"{place}{words}", error.errno) from error
    except MemoryError as error:
        raise _refused(operation, "out of memory", errno.ENOMEM) from error
    except ImportError as error:
        # Tasks import as they go: a module that cannot be read is one that is missing.
        raise _refused(operation, f"cannot import {error.name}", errno.EIO) from error
    except RuntimeError as error:
        # Python has no class for this.
        if error.args != ("can't start new thread",):
            raise
        raise _refused(operation, "cannot start a thread", errno.EAGAIN) from error


def _refused(operation: str, words: str, number: int | None) -> OpskitError:
    hint = _MACHINE_HINTS.get(number or 0, "See the system log.")
    return _FAULTS.get(operation, StoreError)(
        f"the operating system refused: {words}", hint=hint
    )
