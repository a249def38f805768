"""Stock programs that must understand what opskit encrypts and signs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

# What a package of Debian brings beside the program of its name.
_PACKAGES = {
    "age-keygen": "age",
    "ip": "iproute2",
    "promtool": "prometheus",
    "psql": "postgresql-15-cron",
    "systemd-analyze": "systemd",
}


def program(name: str) -> str:
    """Return a program's path; a skip without one, or a failure where it is demanded."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        missing(_PACKAGES.get(name, name))
    return found


def missing(name: str) -> NoReturn:
    """Skip the test for want of something, or fail where TEST_OPSKIT_REQUIRE names it."""
    words = f"there is no {name} on this machine"
    if name in os.environ.get("TEST_OPSKIT_REQUIRE", "").split(","):
        pytest.fail(words)
    pytest.skip(words)


def run(
    name: str, *arguments: str | Path, stdin: bytes = b"", fails: bool = False
) -> bytes:
    """Run a program and return what it printed."""
    done = subprocess.run(
        [program(name), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stdout


def ssh_key(
    path: Path, *options: str, kind: str = "ed25519", passphrase: str = ""
) -> str:
    """Make an OpenSSH key and return the line of its public key, without a comment."""
    options = ("-t", kind, "-N", passphrase, "-C", "ops@example", *options)
    run("ssh-keygen", "-q", *options, "-f", path)
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def age_key(path: Path) -> str:
    """Make an identity file with age-keygen and return its recipient."""
    run("age-keygen", "-o", path)
    path.chmod(0o600)
    return run("age-keygen", "-y", path).decode().strip()
