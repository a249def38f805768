"""Programs: found, whatever else stands in the PATH."""

from __future__ import annotations

import os

import pytest

from opskit.postgres.servers import programs


def test_a_folder_that_cannot_be_looked_into_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For root no folder is closed; a name that is too long is refused to anybody."""
    found = programs.installations()
    monkeypatch.setenv("PATH", f"/{'x' * 300}:{os.environ['PATH']}")

    assert programs.installations() == found
