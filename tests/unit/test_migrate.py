"""Migrations of other tools: judged by rehearsals that passed, or not checked."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from opskit.config.release import MigrationsSettings
from opskit.errors import MigrationFailed
from opskit.operations import migrate
from opskit.operations.migrate import Migrated
from opskit.operations.outcome import Record
from opskit.operations.run import Run, now
from opskit.release.revisions import Revision
from opskit.workspace import Limits
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


@pytest.mark.parametrize(("revisions", "hours"), [(1, 4), (200, 40)])
def test_a_rehearsal_is_bounded_however_many_revisions_there_are(
    revisions: int, hours: int
) -> None:
    """Most of them were applied long ago."""
    limits = Limits(seconds=60.0, jobs=1)
    run: Any = SimpleNamespace(
        limits=lambda _manifest: limits,
        installations=(),
        run_id="a",
        settings=SimpleNamespace(drill=None),
        identities=None,
    )
    tool: Any = SimpleNamespace(revisions=lambda: [OPAQUE] * revisions)
    chosen: Any = SimpleNamespace(manifest=None)
    settings = MigrationsSettings(statement_timeout=timedelta(hours=1))

    made = migrate._drill_request(run, chosen, tool, settings)

    assert made.limits.seconds == 60.0 + hours * 3600


@pytest.mark.parametrize("is_dump", [True, False])
def test_who_is_refused_has_not_begun(
    load_config: LoadConfig, monkeypatch: pytest.MonkeyPatch, is_dump: bool
) -> None:
    """A release that is taken back then knows that no migration was applied."""
    blocker = SimpleNamespace(is_dump=is_dump, remedy="", as_json=dict)
    settings = MigrationsSettings(database="shop")
    begun: list[bool] = []
    for name, value in {
        "_tool": lambda _run: (settings, None),
        "locked": lambda *_: nullcontext(),
        "connect": lambda *_, **_k: nullcontext(),
        "pending": lambda *_, **_k: [OPAQUE],
        "_blockers": lambda *_: [blocker],
        "_require_whole_indexes": lambda _url: None,
        "schema_of": lambda _url: set(),
        "_apply": lambda _run, _tool, _url, revision, schema, done, _record: (
            done.seconds.update({revision.id: 0.1}) or schema
        ),
    }.items():
        monkeypatch.setattr(migrate, name, value)
    run = Run(load_config('[databases.shop]\nurl = "postgresql://127.0.0.1/shop"\n'))

    outcome = migrate.migrate(
        run, migrate.MigrateRequest(), on_begin=lambda: begun.append(True)
    )

    assert (outcome.exit_code, begun) == ((62, []) if is_dump else (0, [True]))


def test_the_schema_is_read_once_between_two_migrations(
    load_config: LoadConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there after one is what was there before the next."""
    schemas = iter([{"table a"}, {"table a", "table b"}])
    monkeypatch.setattr(migrate, "schema_of", lambda _url: next(schemas))
    monkeypatch.setattr(migrate, "_move", lambda *_: None)
    run, record = Run(load_config("")), Record(operation="migrate", run_id="a",
                                               started_at=now())  # fmt: skip
    record.details["filled"] = {}
    done = Migrated(database="shop", revisions=(OPAQUE,))
    tool: Any = SimpleNamespace(apply=None)
    schema = {"table a"}
    plain = replace(OPAQUE, is_opaque=False)
    for name in ("1", "2"):
        each = replace(plain, id=name)
        schema = migrate._apply(run, tool, "", each, schema, done, record)

    assert done.changes == {"1": [], "2": ["+ table b"]}
