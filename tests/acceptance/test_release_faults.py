"""Releases of the example service beside a client that writes: some of the campaign."""

from __future__ import annotations

import pytest

from tests.conftest import MajorServer
from tests.releases.campaign import act
from tests.releases.cases import CASES
from tests.releases.site import Ground, make_ground


@pytest.fixture(scope="module")
def ground(server_of: MajorServer, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """What the sites are copies of."""
    return make_ground(tmp_path_factory.mktemp("releases"), server_of(16))


@pytest.mark.parametrize(
    "name",
    [
        "migration fails half-way in production only",
        "SIGKILL in the step migrate, then rollback",
        "SIGKILL in the step deploy, then --resume",
    ],
)
def test_a_fault_ends_as_it_must(ground: Ground, name: str) -> None:
    """In the exit codes, the version and the schema; no committed row is lost."""
    case = CASES[name]

    assert act(ground, case).faults(case) == []
