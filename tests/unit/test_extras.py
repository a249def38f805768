"""Extras: what is not installed is named with the extra that brings it."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from opskit.config import DrillSettings
from opskit.drill.servers import open_server
from opskit.errors import ClientToolError
from opskit.operations import quickstart
from opskit.postgres.inventory import Inventory
from opskit.postgres.servers import programs
from opskit.release import classes, rehearsal
from opskit.tasks import fleet

ROOT = Path(__file__).resolve().parents[2]


def _rehearse() -> None:
    # Before anything of what is asked is looked at.
    rehearsal.rehearse(cast(Any, None), clock=lambda: datetime.now(UTC))


def _drill_in_a_container() -> None:
    settings = DrillSettings(server="container")
    open_server(settings, [], Inventory(server_version="16.4")).__enter__()


@pytest.mark.parametrize(
    ("work", "extra"),
    [
        (_rehearse, "release"),
        (lambda: classes._squawk("SELECT 1"), "release"),
        (_drill_in_a_container, "container"),
        (lambda: quickstart.choose([]), "embedded"),
        (lambda: programs.find_client([], server_major=16), "embedded"),
        (lambda: programs.find_server([], major=16), "embedded"),
        (fleet.require_extra, "fleet"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    work: Callable[[], object], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the name of the distribution: another project has that of the package."""
    for name in ("pglast", "procrastinate", "testcontainers.core.container"):
        monkeypatch.setitem(sys.modules, name, None)
    module = "opskit.postgres.servers.container"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    with pytest.raises(ClientToolError) as raised:
        work()

    named = re.findall(r"`pip install '([\w-]+)\[(\w+)\]'`", raised.value.hint)
    assert named == [(project["name"], extra)]
    assert extra in project["optional-dependencies"]
