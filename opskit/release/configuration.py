"""Configuration: what a version ran with, as hashes that a rollback compares."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from opskit.config.release import ReleaseSettings
from opskit.errors import DeployFailed
from opskit.log import logger
from opskit.release.deployers import Deployer

_SALT_BYTES = 16
_MISSING = b"\0missing"


def configuration(
    settings: ReleaseSettings, deployer: Deployer, base: Path
) -> dict[str, bytes]:
    """Return the configured files, and what the deployer has, by their names.

    What a deployer cannot say just now is left out: a rollback must not fail for it.
    """
    found = {str(each): _content(base / each) for each in settings.configuration}
    try:
        return found | dict(deployer.configuration())
    except DeployFailed as error:
        logger().warning("a configuration cannot be read", reason=error.message)
        return found


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return _MISSING


def hashes(contents: Mapping[str, bytes]) -> dict[str, str]:
    """Return hashes for a record that others may read.

    Each has a salt and takes a while: contents may be short secrets.
    """
    return {
        name: _hash(content, secrets.token_hex(_SALT_BYTES))
        for name, content in contents.items()
    }


def differing(then: Mapping[str, str], contents: Mapping[str, bytes]) -> list[str]:
    """Return the names of what is not as its hash says; others are not compared."""
    return [
        name
        for name in _both(then, contents)
        if _hash(contents[name], then[name].partition(":")[0]) != then[name]
    ]


def _both(then: Iterable[str], now: Iterable[str]) -> list[str]:
    return sorted({*then} & {*now})


def _hash(content: bytes, salt: str) -> str:
    key = hashlib.scrypt(content, salt=salt.encode(), n=2**14, r=8, p=1)
    return f"{salt}:{key.hex()}"
