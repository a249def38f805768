"""The user that a server started by root runs as, and programs within its reach."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from opskit.errors import DatabaseError
from opskit.postgres import embedded
from opskit.postgres.programs import Installation

_UNPRIVILEGED_USERS = ("postgres", "nobody")
_RUN_SECONDS_MAX = 60


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user whom a server runs as; None where that is ourselves."""

    name: str
    uid: int
    gid: int


def unprivileged() -> Account | None:
    """Return the user to run a server as, or None where we are not root.

    Raises:
        DatabaseError: there is no such user.
    """
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED_USERS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise DatabaseError(
        "PostgreSQL does not run as root, and there is no user to run it as",
        hint=f"Create one of these users: {', '.join(_UNPRIVILEGED_USERS)}.",
    )


def own(folder: Path, account: Account | None) -> None:
    """Make a folder private to the account."""
    folder.chmod(0o700)
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def within_reach(
    installation: Installation, folder: Path, account: Account | None
) -> Installation:
    """Return programs that the account can run, copied into the folder if need be."""
    if account is None or _runs(installation, account):
        return installation
    if not installation.embedded:
        raise DatabaseError(
            f"the user {account.name} cannot run the programs in "
            f"{installation.bin_dir}",
            hint="Make the folder readable for that user.",
        )
    bin_dir = embedded.copy_programs(installation.bin_dir, folder)
    return Installation(
        bin_dir=bin_dir,
        version=installation.version,
        major=installation.major,
        embedded=True,
    )


def _runs(installation: Installation, account: Account) -> bool:
    try:
        finished = subprocess.run(
            [installation.program("postgres"), "--version"],
            cwd="/",
            capture_output=True,
            timeout=_RUN_SECONDS_MAX,
            check=False,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
        )
    except PermissionError:
        return False
    return finished.returncode == 0


def process_options(account: Account | None) -> dict[str, object]:
    """Return how to start a process as the account, in a bare environment."""
    options: dict[str, object] = {
        "cwd": "/",
        "env": {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        "process_group": 0,
    }
    if account is not None:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options
