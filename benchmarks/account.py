"""The user that servers run as where root measures."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from opskit.postgres.servers import confinement as accounts
from opskit.postgres.servers import programs as servers_programs
from opskit.postgres.servers.confinement import Account
from opskit.postgres.servers.programs import Installation


def unprivileged() -> Account:
    """Return postgres or nobody where we are root, else ourselves."""
    if os.geteuid() != 0:
        return accounts.ourselves()
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam("postgres")
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    return accounts.nobody()


def within_reach(installation: Installation, folder: Path) -> Installation:
    """Return programs that the user can run: root's environment is out of its reach."""
    if os.geteuid() != 0 or not installation.embedded:
        return installation
    bin_dir = servers_programs.copy_programs(installation.bin_dir, folder)
    return replace(installation, bin_dir=bin_dir)


def process_options(account: Account) -> Mapping[str, object]:
    """Return how to start a process as the user, in a bare environment."""
    path = os.environ.get("PATH", os.defpath)
    options: dict[str, object] = {
        "cwd": "/",
        "env": {"PATH": path, "LC_ALL": "C", "TZ": "UTC"},
        "process_group": 0,
    }
    if os.geteuid() == 0:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options
