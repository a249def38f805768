"""How migration tools are called, and what is believed of them, without a server."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from opskit.config.release import MigrationsSettings
from opskit.errors import DatabaseError, MigrationFailed, ReleaseRefused
from opskit.postgres import migrations as database
from opskit.postgres.parameters import for_tools, session_options
from opskit.release import alembic
from opskit.release.alembic import Alembic, _alembic_revision
from opskit.release.revisions import Bounds, with_patience
from opskit.release.sql_files import SqlFiles

URL = (
    "postgresql://ops:s%40cret@db.example:6432/shop?sslmode=verify-full&sslcert=c"
    "&sslkey=k&passfile=p&hostaddr=192.0.2.1&target_session_attrs=read-write"
    "&options=-c%20search_path%3Dapp"
)


def test_no_parameter_of_an_address_is_lost() -> None:
    """Drivers are given all of them; options go by a variable, before the bounds."""
    made = urlsplit(for_tools(URL))

    assert (made.username, made.password, made.path) == ("ops", "s%40cret", "/shop")
    assert {key: each[0] for key, each in parse_qs(made.query).items()} == {
        "host": "db.example",
        "port": "6432",
        "sslmode": "verify-full",
        "sslcert": "c",
        "sslkey": "k",
        "passfile": "p",
        "hostaddr": "192.0.2.1",
        "target_session_attrs": "read-write",
    }
    assert session_options(URL) == "-c search_path=app"


def test_a_service_is_refused() -> None:
    """Without its service the address would lead to the default database."""
    with pytest.raises(ReleaseRefused, match="names a service"):
        for_tools("postgresql:///?service=prod")


@pytest.fixture
def bounds() -> Bounds:
    """The bounds of a configuration that names none."""
    settings = MigrationsSettings()
    return Bounds(lock_wait=settings.lock_timeout, statement=settings.statement_timeout)


@pytest.fixture(autouse=True)
def no_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database without invalid indexes."""
    monkeypatch.setattr(database, "invalid_indexes", lambda _url: set())


@pytest.mark.parametrize(("directive", "attempts"), [("", 2), ("no-transaction", 1)])
def test_what_has_no_transaction_is_not_tried_again(
    tmp_path: Path,
    bounds: Bounds,
    monkeypatch: pytest.MonkeyPatch,
    directive: str,
    attempts: int,
) -> None:
    """Its first statements would run twice; the hint says that they stay."""
    (tmp_path / "0001_a.sql").write_text(f"-- opskit: {directive}\n" * bool(directive))
    calls = []

    def waits(*_arguments: object, **given: object) -> None:
        calls.append(given)
        raise DatabaseError("it waited", sqlstate=database.WAITED)

    monkeypatch.setattr(database, "run", waits)
    tool = SqlFiles(tmp_path)
    (revision,) = tool.revisions()
    assert revision.is_atomic == (not directive)

    with pytest.raises(MigrationFailed) as caught:
        list(with_patience(tool.apply, URL, revision, bounds, attempts=2))

    assert len(calls) == attempts
    assert ("stay applied" in str(caught.value.hint)) == bool(directive)


@pytest.mark.parametrize("text", ["", "with context.autocommit_block():"])
def test_a_revision_that_commits_in_between_is_not_atomic(
    tmp_path: Path, text: str
) -> None:
    """What it did before it failed stays."""
    path = tmp_path / "a.py"
    path.write_text(text)
    named: dict[str, Any] = {"id": "a", "title": "", "phase": "expand"}
    described = named | {"path": str(path), "down": True, "fills": {}}

    assert _alembic_revision(described, tmp_path).is_atomic == (not text)


def test_an_index_that_is_left_invalid_is_named(
    bounds: Bounds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even where the tool says that all went well."""
    (tmp_path / "0001_a.sql").write_text("")
    left = iter([set(), {"public.i"}])
    monkeypatch.setattr(database, "invalid_indexes", lambda _url: next(left))
    (revision,) = SqlFiles(tmp_path).revisions()

    with pytest.raises(MigrationFailed, match=r"public\.i"):
        list(with_patience(lambda *_: None, URL, revision, bounds, attempts=1))


def test_variables_do_not_lead_a_rehearsal_elsewhere(
    tmp_path: Path, bounds: Bounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A throw-away server has its own address; those of libpq are for others."""
    seen = tmp_path / "seen.json"
    python = tmp_path / "python"
    python.write_text(
        "#!/usr/bin/env python3\nimport json, os\n"
        f"json.dump(dict(os.environ), open({str(seen)!r}, 'w'))\n"
    )
    python.chmod(0o700)
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    settings = MigrationsSettings(
        tool="alembic", config=Path("a.ini"), database="shop", python=python
    )
    tool = Alembic(settings, tmp_path)
    monkeypatch.setattr(tool, "_require_own_address", lambda: None)
    monkeypatch.setattr(database, "record", lambda *_a, **_k: None)
    monkeypatch.setattr(tool, "_require_there", lambda *_a, **_k: None)
    (tmp_path / "0001_a.sql").write_text("")
    (revision,) = SqlFiles(tmp_path).revisions()

    tool.apply(
        "postgresql://postgres@/shop?host=%2Fsocket&options=-c%20search_path%3Dapp"
        "&fallback_application_name=opskit-throwaway",
        revision,
        bounds,
    )

    environment = json.loads(seen.read_text())
    assert "PGHOSTADDR" not in environment
    assert environment["PGOPTIONS"].startswith("-c search_path=app -c lock_timeout=")


@pytest.mark.parametrize("move", ["apply", "undo"])
def test_the_database_is_believed_and_not_alembic(
    tmp_path: Path, bounds: Bounds, monkeypatch: pytest.MonkeyPatch, move: str
) -> None:
    """Whatever else it has changed, it was not the database at the address."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o700)
    settings = MigrationsSettings(
        tool="alembic", config=Path("a.ini"), database="shop", python=python
    )
    tool = Alembic(settings, tmp_path)
    monkeypatch.setattr(tool, "_require_own_address", lambda: None)
    monkeypatch.setattr(alembic, "connect", lambda *_a, **_k: nullcontext())
    held = [] if move == "apply" else ["0001_a"]
    monkeypatch.setattr(database, "alembic_versions", lambda _connection: held)
    (tmp_path / "0001_a.sql").write_text("")
    (revision,) = SqlFiles(tmp_path).revisions()

    with pytest.raises(MigrationFailed, match="the database"):
        getattr(tool, move)(URL, revision, bounds)
