"""Bare: a new database loses what each has and the source has no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from opskit.postgres import database
from opskit.postgres.connect import Connection
from opskit.postgres.inventory import Inventory

URL = "postgresql://db.example/copy"
PLPGSQL = {"name": "plpgsql", "version": "1.0", "schema": "pg_catalog"}
OTHER = {"name": "hstore", "version": "1.8", "schema": "public"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The scripts that are run in the new database."""
    scripts: list[str] = []

    @contextmanager
    def connect(url: str, *, purpose: str) -> Iterator[Connection]:
        assert (url, purpose) == (URL, "restore")
        yield cast(Connection, object())

    monkeypatch.setattr(database, "connect", connect)
    monkeypatch.setattr(
        database, "run_script", lambda _connection, script: scripts.append(script)
    )
    return scripts


@pytest.mark.parametrize(
    ("inventory", "scripts"),
    [
        ({"has_public": True, "extensions": [OTHER, PLPGSQL]}, []),
        ({"extensions": [PLPGSQL]}, []),
        ({"has_public": False, "extensions": [PLPGSQL]}, ["DROP SCHEMA public"]),
        ({"has_public": True, "extensions": [OTHER]}, ["DROP EXTENSION plpgsql"]),
        (
            {"has_public": False, "extensions": []},
            ["DROP SCHEMA public;DROP EXTENSION plpgsql"],
        ),
    ],
)
def test_what_the_source_has_no_more_is_dropped(
    run: list[str], inventory: dict[str, Any], scripts: list[str]
) -> None:
    """Nothing else, and a set that does not say so had the schema."""
    database.make_bare(URL, Inventory(**inventory))

    assert run == scripts
