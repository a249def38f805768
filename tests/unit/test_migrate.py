"""Migrations of other tools: judged by rehearsals that passed, or not checked."""

from __future__ import annotations

import pytest

from opskit.errors import MigrationFailed
from opskit.operations import migrate
from opskit.operations.migrate import Migrated
from opskit.operations.run import Run
from opskit.release.revisions import Revision
from tests.unit.conftest import LoadConfig

OPAQUE = Revision(
    id="command-1", title="", phase="expand", sha256="", has_way_back=False,
    is_opaque=True,
)  # fmt: skip
GOOD, BAD = "+ table public.good", "+ table public.bad"


def _judged(
    load_config: LoadConfig, rehearsals: list[tuple[bool, str]], *made: str
) -> Migrated:
    """Rehearse on record, passed or not; judge what the migration made then."""
    run = Run(load_config(""))
    for passed, change in rehearsals:
        with run.recorded("rehearse") as record:
            record.begin(passed=passed, changes={OPAQUE.id: [change]})
    done = Migrated(database="shop", revisions=(OPAQUE,))
    done.changes[OPAQUE.id] = [*made]
    migrate._require_as_rehearsed(run, OPAQUE, done)
    return done


def test_only_a_rehearsal_that_passed_counts(load_config: LoadConfig) -> None:
    """A newer one that failed says nothing of how it must be."""
    rehearsals = [(True, GOOD), (False, BAD)]

    assert _judged(load_config, rehearsals, GOOD).not_checked == {}
    with pytest.raises(MigrationFailed, match="another schema than in its rehearsal"):
        _judged(load_config, rehearsals, BAD)


@pytest.mark.parametrize("rehearsals", [[], [(False, GOOD)]])
def test_without_a_rehearsal_it_is_not_checked(
    load_config: LoadConfig, rehearsals: list[tuple[bool, str]]
) -> None:
    """That is said; what changed nothing at all has failed."""
    document = _judged(load_config, rehearsals, GOOD).as_json()

    (found,) = document["not_checked"]
    assert found["name"] == "changes of command-1"
    assert "no rehearsal of it has passed" in found["reason"]
    with pytest.raises(MigrationFailed, match="changed nothing"):
        _judged(load_config, rehearsals)
