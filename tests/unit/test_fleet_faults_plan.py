"""The plan of a fleet's campaign: at random, the same again, and bearable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.faults import KINDS, Planned, World, plan
from tests.fleet.network import Place
from tests.fleet.workers import Worker

PLACE = Place(name="one", link="one", bridge="bridge", queue="127.0.0.1")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Five workers, three of them in places of their own, and nothing else."""
    nothing: Any = None
    with ExitStack() as stack:
        workers = [
            Worker(
                name=f"worker-{number}",
                folder=tmp_path,
                stack=stack,
                place=PLACE if number < 3 else None,
            )
            for number in range(5)
        ]
        yield World(workers=workers, queue=nothing, proxy=nothing)


def made(world: World, seed: int) -> list[Planned]:
    """Return the faults of twenty minutes."""
    return plan(world, seed=seed, seconds=1200)


def test_a_plan_is_that_of_its_seed(world: World) -> None:
    """What a campaign found can be looked for again."""
    assert made(world, 1) == made(world, 1)
    assert made(world, 1) != made(world, 2)


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_has_every_kind_and_leaves_workers_alone(
    world: World, seed: int
) -> None:
    """Nothing happens twice at once, and two workers of five are in no trouble."""
    planned = made(world, seed)

    assert {each.kind for each in planned} == {*KINDS}
    for each in planned:
        at_once = [e.target for e in planned if e.at <= each.at < e.until]
        assert len(at_once) == len({*at_once})
        assert len([e for e in at_once if e.startswith("worker")]) <= 3
        assert each.until <= 1200
        if each.kind in ("cut-off", "split"):
            assert each.target in ("worker-0", "worker-1", "worker-2")
