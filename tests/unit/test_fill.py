"""Fill: how a copy is reached, and what is loaded in which step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest

from opskit.errors import DatabaseError
from opskit.postgres import survey
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import Connection
from opskit.postgres.inventory import Inventory
from opskit.postgres.parameters import parse
from opskit.preflight.concessions import Concessions
from opskit.restore import fill, load, make
from opskit.restore import job as restore_job
from opskit.restore import make as loading
from opskit.restore.job import FillJob, Rights
from opskit.restore.surroundings import Place
from opskit.workspace import Limits
from tests.unit import builders
from tests.unit.entries import entry, inventory, shortage

CONNECTION = cast(Connection, mock.NonCallableMock())
HEAD = [
    entry(1, "ENCODING", "ENCODING", schema=""),
    entry(2, "STDSTRINGS", "STDSTRINGS", schema=""),
    entry(3, "SEARCHPATH", "SEARCHPATH", schema=""),
]
PLAIN = [
    *HEAD,
    entry(10, "SCHEMA", "sales", schema=""),
    entry(20, "TABLE", "t", 10),
    entry(21, "TABLE DATA", "t", 20),
    entry(22, "CONSTRAINT", "t pkey", 20),
]
EXTENSION = entry(11, "EXTENSION", "hstore", 10, schema="")
DOMAIN = [
    entry(12, "DOMAIN", "short"),
    entry(13, "CHECK CONSTRAINT", "short length", 12),
]


def _job(**changes: Any) -> FillJob:
    fields: dict[str, Any] = {
        "place": Place(
            server_url="postgresql://ops:hunter2@db.example/postgres",
            connection=CONNECTION,
            name="copy",
        ),
        "manifest": builders.manifest(inventory=inventory()),
        "archive": Path("/nowhere/dump.pgdump"),
        "entries": PLAIN,
        "installations": (),
        "limits": Limits(seconds=60.0, jobs=3),
    }
    return FillJob(**(fields | changes))


def _without(*missing: tuple[str, str], left_out: Sequence[int] = ()) -> Concessions:
    return Concessions(
        accepted=tuple(shortage(*each) for each in missing),
        left_out=frozenset(left_out),
    )


@pytest.mark.parametrize(
    ("superuser", "major", "knows_money", "settings"),
    [
        (
            True, 17, True,
            ["default_transaction_read_only=off", "role=none",
             "lc_monetary=fr_FR.UTF-8", "session_replication_role=replica",
             "session_preload_libraries=", "event_triggers=off"],
        ),
        (
            True, 16, False,
            ["default_transaction_read_only=off", "role=none",
             "session_replication_role=replica", "session_preload_libraries="],
        ),
        (False, 18, False, ["default_transaction_read_only=off", "role=none"]),
    ],
)  # fmt: skip
def test_nothing_in_the_copy_acts_by_itself(
    monkeypatch: pytest.MonkeyPatch,
    superuser: bool,
    major: int,
    knows_money: bool,
    settings: list[str],
) -> None:
    """Triggers, libraries and the service's settings are off, as far as one may."""
    monkeypatch.setattr(survey, "is_superuser", lambda _c: superuser)
    monkeypatch.setattr(
        survey,
        "has_locale",
        lambda _c, name: knows_money and name == "fr_FR.UTF-8",
    )
    monkeypatch.setattr(restore_job, "server_major", lambda _c: major)
    found = parse(_job().url)

    assert found == {
        "user": "ops",
        "password": "hunter2",
        "host": "db.example",
        "dbname": "copy",
        "options": " ".join(f"-c {each}" for each in settings),
    }


def test_money_is_as_it_comes_where_the_source_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A locale that is not known is not asked for."""
    monkeypatch.setattr(survey, "is_superuser", lambda _c: False)
    monkeypatch.setattr(survey, "has_locale", lambda _c, _name: True)
    manifest = builders.manifest(inventory=inventory(settings={}))
    found = parse(_job(manifest=manifest).url)

    assert "lc_monetary" not in found["options"]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is done in which order: lists of dump ids, None for all, statements."""
    done: list[Any] = []

    def load_job(job: load.LoadJob) -> tuple[str, frozenset[int]]:
        listed = job.use_list
        done.append(listed and [int(n[:-1]) for n in listed.read_text().split()])
        return f"words {len(done)}", frozenset()

    @contextmanager
    def connect(_url: str, *, purpose: str) -> Iterator[Connection]:
        yield CONNECTION

    monkeypatch.setattr(load, "load", load_job)
    monkeypatch.setattr(load, "choose_program", lambda *_args, **_words: None)
    monkeypatch.setattr(loading, "connect", connect)
    monkeypatch.setattr(loading, "server_major", lambda _c: 16)
    monkeypatch.setattr(
        "opskit.postgres.database.run_script",
        lambda _connection, script: done.append(script),
    )
    return done


def _loaded(steps: list[Any], tmp_path: Path, **changes: Any) -> str:
    job = _job(archive=tmp_path / "dump.pgdump", **changes)
    given = Rights(url="postgresql://db.example/copy", connection=CONNECTION)
    assert not make._make_definitions(given, job)
    loaded = fill._load(given, job)
    assert not loaded.failed
    assert not loaded.taken
    return loaded.words


def test_what_stands_before_the_rows_is_made_first(
    steps: list[Any], tmp_path: Path
) -> None:
    """What a server refuses of it says nothing of the rows."""
    words = _loaded(steps, tmp_path)

    assert (steps, words) == ([[1, 2, 3, 10, 20], [1, 2, 3, 21, 22]], "words 2")


def test_what_is_left_out_is_not_on_the_list(steps: list[Any], tmp_path: Path) -> None:
    """All the rest is, in the archive's order."""
    _loaded(steps, tmp_path, concessions=_without(left_out=[22]))

    assert steps == [[1, 2, 3, 10, 20], [1, 2, 3, 21]]


def test_extensions_come_between_schemas_and_the_rest(
    steps: list[Any], tmp_path: Path
) -> None:
    """They may lie in a schema of the archive; domains' constraints come at the end."""
    entries = [*PLAIN[:4], EXTENSION, *DOMAIN, *PLAIN[4:]]
    words = _loaded(steps, tmp_path, entries=entries)

    assert steps == [
        [1, 2, 3, 10],
        'CREATE EXTENSION IF NOT EXISTS "hstore" WITH SCHEMA "public" VERSION "1.8"',
        [1, 2, 3, 11, 12, 20],
        [1, 2, 3, 21, 22],
        [1, 2, 3, 13],
    ]
    assert words == "words 4\nwords 5"


def test_an_extension_that_is_refused_takes_along_what_needs_it(
    steps: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is returned by name, and pg_restore is not asked for the rest of it."""

    def refuse(_connection: object, statement: str) -> None:
        raise DatabaseError(f"refused {statement[:16]}", sqlstate="42704")

    monkeypatch.setattr("opskit.postgres.database.run_script", refuse)
    monkeypatch.setattr("opskit.postgres.survey.is_superuser", lambda _: False)
    uses = entry(30, "TABLE", "uses it", 11)
    job = _job(
        archive=tmp_path / "dump.pgdump",
        entries=[*PLAIN[:4], EXTENSION, uses, *PLAIN[4:]],
    )
    given = Rights(url="postgresql://db.example/copy", connection=CONNECTION)
    (failure,) = make._make_definitions(given, job)

    assert failure.name == "extension hstore"
    assert failure.is_shortage
    assert steps == [[1, 2, 3, 10], [1, 2, 3, 20]]


def test_a_stand_in_comes_before_what_uses_it(steps: list[Any], tmp_path: Path) -> None:
    """Its schema is there by then, and the collation itself is not loaded."""
    entries = [*PLAIN[:4], entry(12, "COLLATION", "Dansk", schema="sales"), *PLAIN[4:]]
    given_up = _without(("collation", "sales.Dansk"), left_out=[12])
    _loaded(steps, tmp_path, entries=entries, concessions=given_up)

    assert [type(each) for each in steps] == [list, str, list, list]
    assert (steps[0], steps[2]) == ([1, 2, 3, 10], [1, 2, 3, 20])


def test_constraints_of_domains_alone_need_one_more_step(
    steps: list[Any], tmp_path: Path
) -> None:
    """Every entry is loaded in exactly one of them, but for how to read the archive."""
    entries = [*PLAIN, *DOMAIN]
    _loaded(steps, tmp_path, entries=entries)

    assert steps == [[1, 2, 3, 10, 20, 12], [1, 2, 3, 21, 22], [1, 2, 3, 13]]


@pytest.mark.parametrize(
    "late",
    [
        entry(30, "EVENT TRIGGER", "watch", schema=""),
        entry(30, "CHECK CONSTRAINT", "t positive", 20),
        entry(30, "FK CONSTRAINT", "t fkey", 20, definition="ADD c NOT VALID;\n"),
    ],
    ids=["event trigger", "check", "foreign key"],
)
def test_what_acts_on_the_rest_is_loaded_last(
    steps: list[Any], tmp_path: Path, late: TocEntry
) -> None:
    """Wherever it stands in the archive: rows and objects are there before it."""
    _loaded(steps, tmp_path, entries=[*PLAIN[:4], late, *PLAIN[4:]])

    assert steps == [[1, 2, 3, 10, 20], [1, 2, 3, 21, 22], [1, 2, 3, 30]]


def test_a_constraint_that_is_valid_needs_no_step(
    steps: list[Any], tmp_path: Path
) -> None:
    """pg_restore makes it after the rows by itself."""
    made = entry(30, "FK CONSTRAINT", "t fkey", 20, definition="ADD c;\n")
    _loaded(steps, tmp_path, entries=[*PLAIN, made])

    assert steps == [[1, 2, 3, 10, 20], [1, 2, 3, 21, 22, 30]]


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch, steps: list[Any]) -> list[Any]:
    """What a whole fill does, and its script for the database itself."""

    def made_bare(url: str, found: Inventory) -> None:
        steps.append(("bare", parse(url)["dbname"], found.locale.provider))

    monkeypatch.setattr(
        "opskit.postgres.database.create_like",
        lambda _c, name, _inventory, **_how: steps.append(("create", name)),
    )
    monkeypatch.setattr("opskit.postgres.database.make_bare", made_bare)
    monkeypatch.setattr(survey, "is_superuser", lambda _c: False)
    monkeypatch.setattr(survey, "has_locale", lambda _c, _name: True)
    monkeypatch.setattr(restore_job, "server_major", lambda _c: 16)
    return steps


def test_a_new_database_is_bare_before_anything_is_loaded(
    filled: list[Any], tmp_path: Path
) -> None:
    """What the source has no more would be in the way of what it has."""
    make.make(_job(archive=tmp_path / "dump.pgdump"))

    assert filled == [("create", "copy"), ("bare", "copy", "icu"), [1, 2, 3, 10, 20]]


def test_settings_of_a_role_that_is_missing_are_left_out(
    filled: list[Any], tmp_path: Path
) -> None:
    """The server would refuse them; those of others come."""
    own = entry(
        30,
        "DATABASE PROPERTIES",
        "shop",
        schema="",
        definition="ALTER ROLE app IN DATABASE shop SET a TO 'b';\n"
        "ALTER ROLE ops IN DATABASE shop SET a TO 'b';\n",
    )
    job = _job(
        archive=tmp_path / "dump.pgdump",
        entries=[*PLAIN, own],
        concessions=_without(("role", "app")),
    )
    fill.fill(job)

    assert filled[-1] == "ALTER ROLE ops IN DATABASE \"copy\" SET a TO 'b'"


def test_what_extensions_configure_is_loaded_before_other_rows(
    steps: list[Any], tmp_path: Path
) -> None:
    """A type's input function may read it for every value of another table."""
    configuration = [
        entry(18, "TABLE DATA", "formats", schema="ext"),
        entry(19, "SEQUENCE SET", "s"),
    ]
    table = {"schema": "ext", "name": "formats", "rows": 1, "digest": "0" * 32}
    table |= {"extension": "pointcloud"}
    manifest = builders.manifest(inventory=inventory(), tables=(table,))
    _loaded(steps, tmp_path, entries=[*PLAIN, *configuration], manifest=manifest)

    assert steps[1:] == [[1, 2, 3, 18], [1, 2, 3, 21, 22], [1, 2, 3, 19]]
