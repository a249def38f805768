"""What tasks list comes from the cache; what they delete by is read from the stores."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from opskit.catalog.manifest import Manifest
from opskit.operations.prune import PruneRequest, prune
from opskit.operations.run import Run
from opskit.store import LocalStore
from tests.unit.builders import STARTED_AT, store_set
from tests.unit.conftest import LoadConfig

DAY = timedelta(days=1)


@pytest.fixture
def run(load_config: LoadConfig, tmp_path: Path) -> Run:
    """A run with one store and a policy that keeps one set."""
    (tmp_path / "store").mkdir()
    settings = load_config(
        f"""
        [databases.shop]
        url = "postgresql://nobody@127.0.0.1:1/none"
        [stores.local]
        url = "{(tmp_path / "store").as_uri()}"
        [retention]
        keep_last = 1
        keep_within = "0s"
        keep_daily = 0
        keep_weekly = 0
        keep_monthly = 0
        min_keep = 1
        """
    )
    return Run(settings)


def _put_two(run: Run) -> tuple[Manifest, Manifest]:
    """Store a set and one that is a day older."""
    older = store_set(run.stores, started_at=STARTED_AT - DAY)
    return store_set(run.stores), older


def _again(run: Run) -> Run:
    return Run(run.settings)


def _ids(run: Run, *, listed: bool) -> list[str]:
    found = run.listing() if listed else run.catalog()
    return [each.backup_id for each in found.sets]


def test_a_later_run_lists_without_reading(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache lies in the state folder; reading the catalog does not ask it."""
    made = [each.backup_id for each in _put_two(run)]
    first = _ids(run, listed=True)
    opened = []
    read = LocalStore.open

    def noted(store: LocalStore, key: str, start: int = 0) -> Any:
        opened.append(key)
        return read(store, key, start)

    monkeypatch.setattr(LocalStore, "open", noted)

    assert (first, _ids(_again(run), listed=True), opened) == (made, made, [])
    assert (_ids(_again(run), listed=False), len(opened)) == (made, 2)


def test_nothing_is_deleted_because_a_cache_says_so(
    run: Run,
) -> None:
    """A dry run shows what the cache makes of it; a prune reads every manifest."""
    newer, older = _put_two(run)
    _ids(run, listed=True)
    (path,) = (run.state_dir / "catalog-cache").iterdir()
    document = json.loads(path.read_text())
    seal = document["sets"][newer.prefix]["seal"]
    document["sets"][newer.prefix] = {"seal": seal, "known": "forged"}
    path.write_text(json.dumps(document))

    def pruned(*, dry_run: bool = False) -> dict[str, Any]:
        return prune(_again(run), PruneRequest(dry_run=dry_run)).as_json()

    planned, done = pruned(dry_run=True), pruned()

    assert [each["backup_id"] for each in planned["keep"]] == [older.backup_id]
    assert done["delete"] == [{"backup_id": older.backup_id}]
    assert _ids(_again(run), listed=False) == [newer.backup_id]
