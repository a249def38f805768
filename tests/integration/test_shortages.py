"""What a server lacks for a set's definitions: named, allowed, no verdict on the set."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opskit.catalog.sets import BackupSet
from opskit.checks import Health
from opskit.config import DrillSettings
from opskit.doctor import databases
from opskit.doctor.databases import Trial
from opskit.errors import DatabaseError
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.programs import Installation
from opskit.postgres.servers.throwaway import Server
from tests import initialised
from tests.conftest import MajorServer, MakeDatabase
from tests.integration.test_restore import run_restore
from tests.support import back_up, execute, failed, run_drill, sets, value

OTHERS = "CREATE TABLE public.plain AS SELECT generate_series(1, 100) i"
# Made on a PostgreSQL that has all of it, drilled on one that was built without.
LACKING = {
    "compression": (
        "CREATE TABLE public.packed (a text COMPRESSION lz4);"
        "INSERT INTO public.packed VALUES ('a');"
        "CREATE VIEW public.unpacked AS SELECT a FROM public.packed",
        "TABLE public.packed",
    ),
    "library": (
        "CREATE FUNCTION public.numbered() RETURNS trigger LANGUAGE c "
        "AS '$libdir/autoinc', 'autoinc'",
        "FUNCTION public.numbered()",
    ),
    "xml": (
        "CREATE TABLE public.documents (a xml);"
        "INSERT INTO public.documents VALUES ('<a/>')",
        "feature xml",
    ),
}


def newer() -> list[Installation]:
    """The programs that were built without what the source uses."""
    return [each for each in programs.installations() if each.major == 16]


@pytest.mark.parametrize("what", LACKING)
def test_what_the_drills_server_was_built_without_is_a_shortage(
    what: str, make_database: MakeDatabase, store_dir: Path
) -> None:
    """It is said by name and leaves the set alone; allowed, the rest is proved."""
    script, name = LACKING[what]
    back_up(make_database(15, script=f"{OTHERS}; {script}"), store_dir)
    where: dict[str, Any] = {"installations": newer(), "accept_newer_major": True}

    with pytest.raises(DatabaseError, match="lacks what the set needs") as caught:
        run_drill(sets(store_dir)[0], **where)
    evidence = run_drill(sets(store_dir)[0], allowed=[name], mutants=3, **where)

    assert name in caught.value.hint
    assert caught.value.exit_code == 30
    assert [each["name"] for each in caught.value.details["missing"]] == [name]  # type: ignore[attr-defined]
    assert [each.name for each in failed(evidence)] == []
    assert evidence.figures.tables >= 1
    assert any(name in each.name or what in each.name for each in evidence.not_checked)


@pytest.fixture
def with_words() -> Iterator[Server]:
    """A server with a file of stop words that no other has."""
    folder = Path(tempfile.mkdtemp(prefix="opskit-words-"))
    folder.chmod(0o755)
    found = programs.find_server(programs.installations(), major=16, kind="embedded")
    bin_dir = programs.copy_programs(found.bin_dir, folder)
    (share,) = {path.parent for path in bin_dir.parent.rglob("english.stop")}
    (share / "mine.stop").write_text("a\n")
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o055)
    mine = Installation(
        bin_dir=bin_dir, version=found.version, major=16, embedded=False
    )
    with initialised.copied(), throwaway.throwaway(mine) as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture
def worded(with_words: Server, store_dir: Path) -> BackupSet:
    """A set with a dictionary of words that another server does not know."""
    execute(with_words.url(), "CREATE DATABASE worded")
    url = with_words.url("worded")
    execute(
        url,
        f"{OTHERS}; CREATE TEXT SEARCH DICTIONARY public.words "
        "(TEMPLATE = simple, STOPWORDS = 'mine');"
        "CREATE TEXT SEARCH CONFIGURATION public.ours (COPY = simple);"
        "ALTER TEXT SEARCH CONFIGURATION public.ours "
        "ALTER MAPPING FOR word WITH public.words",
    )
    back_up(url, store_dir)
    return sets(store_dir)[0]


def test_a_dictionarys_file_is_a_shortage_of_the_server(worded: BackupSet) -> None:
    """And what needs the dictionary is not named as well."""
    name = "TEXT SEARCH DICTIONARY public.words"

    with pytest.raises(DatabaseError, match=r"mine\.stop") as caught:
        run_drill(worded)
    evidence = run_drill(worded, allowed=[name])

    assert [each["name"] for each in caught.value.details["missing"]] == [name]  # type: ignore[attr-defined]
    assert [each.name for each in failed(evidence)] == []


def test_a_restore_says_it_before_any_row(
    worded: BackupSet, server_of: MajorServer
) -> None:
    """The copy is dropped; accepted by name, the rest is restored."""
    name = "TEXT SEARCH DICTIONARY public.words"

    with pytest.raises(DatabaseError, match=r"before the rows.*mine\.stop") as caught:
        run_restore(worded, server_of(16), "unworded")
    result = run_restore(worded, server_of(16), "unworded", accepted=[name])
    rows = value(server_of(16).url("unworded"), "SELECT count(*) FROM public.plain")
    execute(server_of(16).url(), "DROP DATABASE unworded")

    assert f"--accept-failures '{name}'" in caught.value.hint
    assert name in result.without
    assert rows == 100


def test_a_broken_definition_is_the_sets_fault(
    make_database: MakeDatabase, store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server could make it: a failed drill, not a shortage."""
    url = make_database(16, script=OTHERS)
    execute(url, "CREATE VIEW public.doubled AS SELECT 2 * i AS n FROM public.plain")
    back_up(url, store_dir)

    evidence = run_drill(
        sets(store_dir)[0],
        sql_before=["CREATE VIEW public.doubled AS SELECT 1 AS other"],
    )

    (check,) = failed(evidence)
    assert check.name == "restore"
    assert "doubled" in check.detail


@pytest.mark.parametrize("what", LACKING)
def test_doctor_names_it_before_the_drill(
    what: str, make_database: MakeDatabase
) -> None:
    """By the same name, from the live database's definitions."""
    script, name = LACKING[what]
    url = make_database(15, script=f"{OTHERS}; {script}")
    examined = databases.examine("shop", url, programs.installations())
    assert examined.inventory is not None
    trial = Trial(
        url=url,
        inventory=examined.inventory,
        installations=programs.installations(),
        settings=DrillSettings(accept_newer_major=True),
        run_id="abc123",
    )
    at_newer = replace(trial, installations=newer())

    with initialised.copied():
        own = [*databases.examine_drill("shop", trial)]
        found = [*databases.examine_drill("shop", at_newer)]

    assert [(e.name, e.observed) for e in own[1:]] == []
    assert [each.name for each in found] == [
        "drill shop: server",
        f"drill shop: {name}",
    ]
    assert found[1].status is Health.UNHEALTHY
