"""How a worker's engine concludes a job that has ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from opskit.config import Settings
from opskit.errors import OpskitError
from opskit.fleet.engine import Engine
from opskit.fleet.queue import Again
from opskit.fleet.slots import NoSlot
from opskit.operations.schedule import Job, jobs
from opskit.scheduler.jobs import Ended

LOCKED = Ended(code=11, document={"error": "it is locked"})
SETTINGS = Settings.model_validate(
    {
        "databases": {"a": {"url": "postgresql://db/a", "schedule": "@daily"}},
        "fleet": {"url": "postgresql://db/queue", "retries": 0},
        "scheduler": {"prune": "@daily"},
    }
)


def _conclude(monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    (job,) = (each for each in jobs(SETTINGS) if each.operation == operation)
    engine = Engine(cast(Any, SimpleNamespace(settings=SETTINGS)))

    def note(noted: Job, *_: object) -> int:
        assert noted == job
        return 1

    monkeypatch.setattr(engine, "_note", note)
    engine._conclude(job, {}, LOCKED, 1.0)


def test_a_source_that_is_locked_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody backs it up by hand: that is no failure."""
    with pytest.raises(Again):
        _conclude(monkeypatch, "backup")


def test_a_prune_that_meets_a_lock_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of all sources, and would go over them again and again."""
    with pytest.raises(OpskitError, match="it is locked") as failed:
        _conclude(monkeypatch, "prune")

    assert not isinstance(failed.value, Again)


def test_a_job_waits_for_as_long_as_those_before_it() -> None:
    """So that it asks seldom, and none of them finds its slot taken."""
    engine = Engine(cast(Any, SimpleNamespace(settings=SETTINGS)))

    pauses = [engine._pause(NoSlot(before)) for before in range(4)]

    assert pauses == sorted({*pauses})
    assert engine._pause(NoSlot(10_000)) <= 300
