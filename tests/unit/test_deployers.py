"""Deployers: what is refused before anything is deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.config.release import ReleaseSettings
from opskit.config.smoke import SmokeSettings
from opskit.errors import ConfigurationError, ReleaseRefused
from opskit.release.deployers import Deployer
from opskit.release.deployers import deployer_of as made

COMMANDS = {"deploy": ["true"], "status": ["true"], "current": ["true"]}


def deployer_of(name: str, folder: Path, **section: object) -> Deployer:
    settings = ReleaseSettings.model_validate({"deployer": name, name: section})
    return made(settings, SmokeSettings(), folder)


@pytest.mark.parametrize("version", ["feature/x", "..", ".", "", " ", "/1", "1\0"])
def test_what_is_no_folder_name_is_no_version(version: str, tmp_path: Path) -> None:
    """It would lead out of the folder of the releases."""
    deployer = deployer_of("local", tmp_path, restart=["true"])

    (tmp_path / "releases" / "1.4.2-rc.1").mkdir(parents=True)

    with pytest.raises(ReleaseRefused, match="is not"):
        deployer.require(version)
    deployer.require("1.4.2-rc.1")


def test_any_tool_may_release_a_branch(tmp_path: Path) -> None:
    """But nothing that no environment variable can hold."""
    deployer = deployer_of("command", tmp_path, **COMMANDS)

    deployer.require("feature/x")
    for version in ("", "1\0"):
        with pytest.raises(ReleaseRefused):
            deployer.require(version)


@pytest.mark.parametrize("missing", COMMANDS)
def test_a_tool_needs_all_its_commands(missing: str, tmp_path: Path) -> None:
    """Without one of them nothing could be said of a deployment."""
    with pytest.raises(ConfigurationError, match=missing):
        deployer_of("command", tmp_path, **COMMANDS | {missing: []})


def test_a_process_must_be_asked_for_its_version(tmp_path: Path) -> None:
    """Without an address nothing says that it works."""
    with pytest.raises(ConfigurationError, match=r"smoke\.url"):
        deployer_of("local", tmp_path, start=["./serve"])


def test_a_service_has_one_supervisor(tmp_path: Path) -> None:
    """Two of them would start it twice."""
    with pytest.raises(ValueError, match="only one"):
        deployer_of("local", tmp_path, start=["./serve"], restart=["true"])
