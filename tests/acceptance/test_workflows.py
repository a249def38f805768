"""The workflows for users, run with act in a repository that `init` made.

`python -m tests.act` runs more of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.act import cases
from tests.act.project import Project, ground, project
from tests.s3_servers import S3Server


@pytest.fixture(scope="module")
def shop(seaweedfs: S3Server) -> Iterator[Project]:
    """A repository whose workflows have backed its database up and drilled the set."""
    with ground() as made, project(made, seaweedfs) as opened:
        cases.back_up(opened)
        cases.drill(opened)
        yield opened


def test_a_drill_finds_what_the_backup_stored(shop: Project) -> None:
    """Each on a machine of its own: the store is all that they share."""
    assert [name for name in shop.stored("service/") if "/evidence/" in name]


def test_a_cancelled_release_is_resumed_and_taken_back(shop: Project) -> None:
    """By a machine that knows of it only by the ledger in the store; the job fails."""
    cases.resume_bad(shop)


def test_the_service_is_probed(shop: Project) -> None:
    """As its key in a secret allows."""
    cases.smoke(shop)
