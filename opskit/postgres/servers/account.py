"""The user that a server started by root runs as: one that nobody else uses."""

from __future__ import annotations

import grp
import os
import pwd
import secrets
from dataclasses import dataclass
from pathlib import Path

from opskit.errors import DatabaseError

# No distribution, and no container engine, gives these numbers to anybody. The second
# range is for systems that have no higher ones.
_FREE_NUMBERS = (range(1_900_000_000, 2_100_000_000), range(60_578, 61_184))
_ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user and a group by their numbers."""

    uid: int
    gid: int


def ourselves() -> Account:
    """Return the user of this process."""
    return Account(uid=os.geteuid(), gid=os.getegid())


def nobody() -> Account:
    """Return the user nobody, who has a name as initdb demands it.

    Raises:
        DatabaseError: there is no such user.
    """
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise DatabaseError(
            "there is no user nobody to run initdb as",
            hint="Create that user, or run as an ordinary user.",
        ) from None
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def unused() -> Account:
    """Return a user that owns nothing: one whose number nobody has.

    Raises:
        DatabaseError: the system has no such numbers.
    """
    for numbers in _FREE_NUMBERS:
        for _ in range(_ATTEMPTS):
            number = secrets.choice(numbers)
            if _is_free(number) and all(
                _is_known(number, Path(f"/proc/self/{each}_map"))
                for each in ("uid", "gid")
            ):
                return Account(uid=number, gid=number)
    raise DatabaseError(
        "there is no unused user number to run PostgreSQL as",
        hint="Run as an ordinary user: PostgreSQL does not run as root.",
    )


def has_name(uid: int) -> bool:
    """Return whether the system knows a name for a user's number."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def own(folder: Path, account: Account) -> None:
    """Make a folder private to the account."""
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(folder, account.uid, account.gid)


def _is_free(number: int) -> bool:
    for look_up in (pwd.getpwuid, grp.getgrgid):
        try:
            look_up(number)
        except KeyError:
            continue
        return False
    return True


def _is_known(number: int, kernel_map: Path) -> bool:
    """Return whether this system has the number: containers may have few."""
    try:
        lines = kernel_map.read_text().splitlines()
    except OSError:
        return True
    for line in lines:
        first, _outside, count = map(int, line.split())
        if first <= number < first + count:
            return True
    return False
