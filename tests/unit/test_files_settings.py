"""The configuration of directories: what is taken, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from opskit.config.sources import FolderSettings


def test_a_path_alone_is_enough() -> None:
    """Everything else has a default."""
    found = FolderSettings.model_validate({"path": "/var/lib/app/state"})

    assert found.path == Path("/var/lib/app/state")
    assert found.lock_path is None
    assert found.lock_kind == "flock"
    assert found.lock_wait == timedelta(seconds=30)
    assert found.max_age == timedelta(hours=26)
    assert found.exclude == []


def test_a_lock_is_a_path() -> None:
    """The lock that is named is the one to take."""
    found = FolderSettings.model_validate({"path": "/a", "lock": "/a/.lock"})

    assert found.lock_path == Path("/a/.lock")


@pytest.mark.parametrize(
    "fault",
    [
        {"path": "state"},
        {"path": "/"},
        {"lock": "state.lock"},
        {"lock_kind": "lockf"},
        {"lock_wait": "soon"},
        {"exclude": ["/tmp/*"]},
        {"exclude": ["../x"]},
        {"exclude": ["cache/"]},
        {"exclude": [""]},
        {"unknown": 1},
    ],
)
def test_an_impossible_value_is_refused(fault: dict[str, Any]) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValidationError):
        FolderSettings.model_validate({"path": "/a"} | fault)
