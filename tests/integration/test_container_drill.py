"""Drills in containers: the whole path on a real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound

from opskit.errors import ClientToolError, DatabaseError
from opskit.postgres.parameters import parse
from opskit.postgres.servers import programs
from opskit.postgres.servers.container import container
from tests.conftest import MakeDatabase
from tests.sample import SAMPLE
from tests.support import back_up, execute, failed, run_drill, sets

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("collected"),
]


def container_at(engine: Any, url: str) -> str:
    """Return the name of the container whose server a URL leads to."""
    port = parse(url)["port"]
    (name,) = [
        each.name
        for each in engine.containers.list(ignore_removed=True)
        if any(
            place["HostPort"] == port
            for places in each.ports.values()
            for place in places or []
        )
    ]
    return str(name)


def test_a_drill_in_a_container_passes_and_can_fail(
    engine: Any, image: str, make_database: MakeDatabase, store_dir: Path
) -> None:
    """The copy is compared as anywhere, and the container is gone afterwards."""
    back_up(make_database(15), store_dir)
    (chosen,) = sets(store_dir)
    seen: list[str] = []

    evidence = run_drill(
        chosen,
        kind="container",
        image=image,
        memory="1g",
        cpus=1.0,
        mutants=12,
        tamper=lambda url: seen.append(container_at(engine, url)),
    )
    damaged = run_drill(
        chosen,
        kind="container",
        image=image,
        tamper=lambda url: execute(url, "DELETE FROM public.lines WHERE n = 1"),
    )

    assert failed(evidence) == []
    assert f"container of {image}" in evidence.figures.drill_server
    assert evidence.figures.mutants is not None
    assert evidence.figures.mutants["killed"] == 12
    assert "table public.lines" in [check.name for check in failed(damaged)]
    (name,) = seen
    with pytest.raises(NotFound):
        engine.containers.get(name)


def test_a_container_stands_in_where_no_programs_are(
    image: str, make_database: MakeDatabase, store_dir: Path
) -> None:
    """With `auto`, an image that was named is used when this machine has no server."""
    back_up(make_database(15), store_dir)
    (chosen,) = sets(store_dir)
    clients = [each for each in programs.installations() if each.major != 15]

    with pytest.raises(ClientToolError):
        run_drill(chosen, installations=clients)
    evidence = run_drill(chosen, installations=clients, image=image)

    assert failed(evidence) == []
    assert "container" in evidence.figures.drill_server


def test_an_image_of_another_major_is_refused(
    image: str, make_database: MakeDatabase, store_dir: Path
) -> None:
    """An image of 15 does not take a set from 16, whatever is accepted."""
    back_up(make_database(16), store_dir)

    with pytest.raises(ClientToolError, match="is PostgreSQL 15, the set is from 16"):
        run_drill(
            sets(store_dir)[0], kind="container", image=image, accept_newer_major=True
        )


def test_an_extension_that_only_the_image_has_is_drilled_there(
    image: str, store_dir: Path
) -> None:
    """pg_cron needs its library loaded and its database named: `settings` do that."""
    settings = {"shared_preload_libraries": "pg_cron", "cron.database_name": "shop"}
    with container(
        image=image, memory="1g", cpus=1, settings=settings, timeout_seconds=120
    ) as source:
        execute(source.url(), "CREATE DATABASE shop")
        url = source.url("shop")
        execute(url, SAMPLE)
        execute(url, "CREATE EXTENSION pg_cron SCHEMA pg_catalog")
        execute(url, "SELECT cron.schedule('yearly', '0 0 1 1 *', 'SELECT 1')")
        back_up(url, store_dir)
    (chosen,) = sets(store_dir)

    lacking: dict[str, Any] = {
        "kind": "embedded",
        "accept_newer_major": True,
    }
    with pytest.raises(DatabaseError, match="no extension pg_cron"):
        run_drill(chosen, **lacking)
    without = run_drill(chosen, allowed=["extension pg_cron"], **lacking)
    evidence = run_drill(chosen, kind="container", image=image, settings=settings)

    assert failed(without) == []
    assert "TABLE DATA cron.job" in {each.name for each in without.not_checked}
    assert failed(evidence) == []
    assert "table cron.job" in {check.name for check in evidence.checks}
