"""Deployers: what is refused before anything is deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.config.release import ReleaseSettings
from opskit.errors import ConfigurationError, ReleaseRefused
from opskit.release.deployers import deployer_of

COMMANDS = {"deploy": ["true"], "status": ["true"], "current": ["true"]}


def settings(name: str, **section: object) -> ReleaseSettings:
    return ReleaseSettings.model_validate({"deployer": name, name: section})


@pytest.mark.parametrize("version", ["feature/x", "..", ".", "", " ", "/1", "1\0"])
def test_what_is_no_folder_name_is_no_version(version: str, tmp_path: Path) -> None:
    """It would lead out of the folder of the releases."""
    deployer = deployer_of(settings("local", restart=["true"]), tmp_path)

    with pytest.raises(ReleaseRefused):
        deployer.require(version)
    deployer.require("1.4.2-rc.1")


def test_any_tool_may_release_a_branch(tmp_path: Path) -> None:
    """But nothing that no environment variable can hold."""
    deployer = deployer_of(settings("command", **COMMANDS), tmp_path)

    deployer.require("feature/x")
    for version in ("", "1\0"):
        with pytest.raises(ReleaseRefused):
            deployer.require(version)


@pytest.mark.parametrize("missing", COMMANDS)
def test_a_tool_needs_all_its_commands(missing: str, tmp_path: Path) -> None:
    """Without one of them nothing could be said of a deployment."""
    with pytest.raises(ConfigurationError, match=missing):
        deployer_of(settings("command", **COMMANDS | {missing: []}), tmp_path)
