"""Migrations: applied one at a time under a lock, and rehearsed on a drilled set."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from opskit import config
from opskit.operations import migration_lock
from opskit.operations.migrate import MigrateRequest, migrate
from opskit.operations.run import begin
from opskit.postgres.snapshot import database_lock
from tests.acceptance.conftest import ROOT, Project
from tests.support import execute, value

GOOD = "ALTER TABLE public.orders ADD note text;"
DOWN = "ALTER TABLE public.orders DROP note;"
REWRITE = "ALTER TABLE public.lines ALTER n TYPE int8;"
# What a slow machine needs. Where locks are the subject, a test configures its own.
PATIENT = "budgets = { reads_blocked = '60s', writes_blocked = '60s' }"


def settings(lock_timeout: str = "60s", budgets: str = PATIENT) -> str:
    """Return the settings of a release with migrations in SQL files."""
    return (
        '[release]\nmigrations = { tool = "sql", database = "shop", '
        f'lock_timeout = "{lock_timeout}", lock_attempts = 2 }}\n{budgets}'
    )


@pytest.fixture
def migrated(drilled_project: Project) -> Project:
    """A project with a folder of SQL files."""
    folder = drilled_project.folder / "migrations"
    folder.mkdir()
    (folder / "0001_note.sql").write_text(GOOD)
    (folder / "0001_note.down.sql").write_text(DOWN)
    drilled_project.configure(settings())
    return drilled_project


def write(project: Project, name: str, text: str) -> Path:
    path = project.folder / "migrations" / name
    path.write_text(text)
    return path


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {each["id"]: each["status"] for each in document["revisions"]}


def test_migrations_are_applied_once_and_in_order(migrated: Project) -> None:
    """A dry run lists them; what was applied is recorded, and nothing runs twice."""
    write(
        migrated,
        "0002_more.sql",
        "CREATE TABLE public.more AS SELECT note FROM public.orders;",
    )

    assert set(statuses(migrated.json("migrate", "--dry-run")).values()) == {"pending"}
    assert statuses(migrated.json("migrate", "--to", "0001")) == {
        "0001_note": "applied"
    }
    assert statuses(migrated.json("migrate")) == {"0002_more": "applied"}
    assert migrated.json("migrate")["revisions"] == []

    assert (
        value(
            migrated.url,
            "SELECT string_agg(id, ' ' ORDER BY id) FROM opskit.migrations",
        )
        == "0001_note 0002_more"
    )
    records = [
        e for e in migrated.json("ledger")["entries"] if e["operation"] == "migrate"
    ]
    assert [each["outcome"] for each in records] == ["ok", "ok"]


def test_a_migration_that_fails_leaves_nothing(migrated: Project) -> None:
    """Its transaction is rolled back; those before it stay, and are recorded."""
    write(migrated, "0002_broken.sql", "CREATE TABLE public.half (i int); SELECT 1/0;")

    document = migrated.json("migrate", code=30)

    assert "0002_broken" in document["error"]
    assert statuses(document) == {"0001_note": "applied", "0002_broken": "pending"}
    assert value(migrated.url, "SELECT to_regclass('public.half')") is None


def test_a_file_that_was_changed_afterwards_is_refused(migrated: Project) -> None:
    """Even if only a comment was: nobody knows what the database has."""
    migrated.run("migrate")
    write(migrated, "0001_note.sql", GOOD + " -- better")

    assert "0001_note was changed" in migrated.json("migrate", code=62)["error"]


def test_a_migration_in_the_past_is_refused(migrated: Project) -> None:
    """One that comes before others that were applied would run in another order."""
    migrated.run("migrate")
    write(migrated, "0000_late.sql", "SELECT 1;")

    assert "0000_late comes before" in migrated.json("migrate", code=62)["error"]


def test_locks_are_waited_for_as_long_as_allowed(migrated: Project) -> None:
    """A table that somebody holds is given up soon, and tried again; it says who."""
    migrated.configure(settings(lock_timeout="1s"))
    lock = "LOCK TABLE public.orders IN ACCESS SHARE MODE"
    with psycopg.connect(migrated.url, application_name="report") as holder:
        holder.execute(lock)
        document = migrated.json("migrate", code=30)
        pid = holder.info.backend_pid

    assert "lock timeout" in document["error"]
    assert f"server process {pid}" in document["error"]
    assert "report" in document["error"]
    assert "holds public.orders" in document["error"]
    assert f"pg_terminate_backend({pid})" in document["hint"]

    with psycopg.connect(migrated.url, application_name="pg_dump") as holder:
        holder.execute(lock)
        document = migrated.json("migrate", code=62)
        (blocker,) = migrated.json("migrate", "--dry-run")["blockers"]
    assert "a running pg_dump" in document["error"]
    assert (blocker["application"], blocker["tables"]) == ("pg_dump", ["public.orders"])
    # A server ends a session a moment after its client.
    migrated.configure(settings())
    assert statuses(migrated.json("migrate")) == {"0001_note": "applied"}


def test_a_release_waits_for_no_dump_and_for_no_other_host(migrated: Project) -> None:
    """Another host has its own folder and locks: they meet in the database."""
    migrated.configure(
        '[release]\ndeployer = "local"\nlocal = { restart = ["true"] }\n'
        'migrations = { tool = "sql", database = "shop" }'
    )
    (migrated.folder / "releases" / "2").mkdir(parents=True)
    with database_lock(
        migrated.url, name="release", run_id="beef", lock_wait=timedelta(seconds=60)
    ):
        document = migrated.json("release", "--version", "2", code=11)
        assert "opskit release run beef" in document["error"]
        migrated.json("rollback", code=11)

    with psycopg.connect(migrated.url, application_name="pg_dump") as dump:
        dump.execute("LOCK TABLE public.orders IN ACCESS SHARE MODE")
        document = migrated.json("release", "--version", "2", code=62)
    assert "a running pg_dump" in document["error"]
    (step,) = document["steps"]
    assert (step["name"], step["status"]) == ("preflight", "failed")


def test_a_migration_that_outlives_its_run_is_waited_for(
    migrated: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who killed the run did not kill the statement: its end decides what is there."""
    monkeypatch.chdir(migrated.folder)
    loaded = config.load()
    with psycopg.connect(migrated.url, application_name="opskit-migration") as left:
        monkeypatch.setattr(migration_lock, "_OTHERS_SECONDS_MAX", 0.0)
        refused = migrate(begin(loaded), MigrateRequest())

        assert refused.exit_code == 11
        assert f"process {left.info.backend_pid} still" in refused.errors[0].message
    monkeypatch.setattr(migration_lock, "_OTHERS_SECONDS_MAX", 60.0)
    assert migrate(begin(loaded), MigrateRequest()).exit_code == 0


def test_an_invalid_index_is_taken_away(migrated: Project) -> None:
    """What a failed CREATE INDEX CONCURRENTLY leaves would be taken for whole."""
    execute(
        migrated.url,
        "CREATE TABLE public.twice AS SELECT 1 AS i FROM generate_series(1, 2)",
    )
    write(
        migrated,
        "0002_index.sql",
        "-- opskit: no-transaction\n"
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS twice_i ON public.twice (i);",
    )

    assert "twice_i" in migrated.json("migrate", code=30)["error"]
    assert value(migrated.url, "SELECT to_regclass('public.twice_i')") is None
    execute(migrated.url, "DELETE FROM public.twice WHERE ctid = '(0,1)'")
    # As a run that was killed leaves it.
    execute(
        migrated.url,
        "CREATE INDEX twice_i ON public.twice (i); UPDATE pg_index "
        "SET indisvalid = false WHERE indexrelid = 'public.twice_i'::regclass",
    )
    document = migrated.json("migrate", code=62)
    assert "DROP INDEX CONCURRENTLY public.twice_i;" in document["hint"]
    execute(migrated.url, "DROP INDEX public.twice_i")
    assert statuses(migrated.json("migrate")) == {"0002_index": "applied"}


def drill(project: Project) -> None:
    project.run("backup")
    project.run("restore-drill")


def test_a_good_migration_is_a_yes(migrated: Project) -> None:
    """Its lock is measured, nothing is rewritten, it goes back and forth again."""
    document = migrated.json("rehearse")

    assert document["status"] == "passed"
    assert [each["id"] for each in document["revisions"]] == ["0001_note"]
    locks = {(e["table"], e["mode"]): e for e in document["locks"]}
    assert locks["public.orders", "AccessExclusiveLock"]["statement"] == GOOD.rstrip()
    assert document["rewrites"] == []
    passed = {each["name"]: each["passed"] for each in document["checks"]}
    assert passed["untouched tables"]
    assert passed["down and up again"]
    assert document["waits_for_writers"] == [GOOD]
    assert all(each["passed"] for each in document["budgets"])
    report = Path(document["report"]).read_text()
    assert "YES" in report
    assert "AccessExclusiveLock" in report
    assert value(migrated.url, "SELECT to_regclass('opskit.migrations')") is None
    assert list(migrated.store.glob("_reports/*/rehearsal-*.json"))


def test_a_way_back_that_leaves_something_is_a_no(migrated: Project) -> None:
    """It says so by what the copy holds afterwards, not by whether it ran."""
    write(
        migrated, "0001_note.sql", "ALTER TABLE public.orders ADD IF NOT EXISTS n text;"
    )
    write(migrated, "0001_note.down.sql", "SELECT 1;")

    document = migrated.json("rehearse", code=62)

    (failed,) = [each for each in document["checks"] if each["passed"] is False]
    assert failed["name"] == "down and up again"
    assert "public.orders.n text" in failed["detail"]


def test_a_rewrite_is_a_no(migrated: Project) -> None:
    """It is refused before anything changed; a budget may allow it."""
    write(migrated, "0002_rewrite.sql", REWRITE)

    document = migrated.json("rehearse", code=62)

    assert document["status"] == "failed"
    (found,) = [e for e in document["rewrites"] if e["table"] == "public.lines"]
    assert "type of a column" in found["reason"]
    migrated.configure(
        settings(budgets=PATIENT.replace("{", "{ rewrites = true,")) + "\n"
        'accept = [{ warning = "changing-column-type", reason = "it only widens" }]'
    )
    assert migrated.json("rehearse")["status"] == "passed"


def test_a_long_lock_is_a_no(migrated: Project) -> None:
    """What counts is how long it is held, not how long its statement runs."""
    migrated.configure(settings(budgets="budgets = { writes_blocked = '60s' }"))
    write(
        migrated,
        "0002_slow.sql",
        "ALTER TABLE public.lines ADD x int; SELECT pg_sleep(2);",
    )

    document = migrated.json("rehearse", code=62)

    failed = [each["name"] for each in document["budgets"] if not each["passed"]]
    assert failed == ["budget reads blocked"]
    (lock,) = [
        e
        for e in document["locks"]
        if (e["table"], e["mode"]) == ("public.lines", "AccessExclusiveLock")
    ]
    assert lock["seconds"] >= 2


# Writes, sorts on disk, blocks, and changes rows without their being counted.
COSTLY = """
SET LOCAL maintenance_work_mem = '1MB';
CREATE TABLE public.grown AS
  SELECT i, repeat(md5(i::text), 4) AS t FROM generate_series(1, 100000) i;
CREATE INDEX ON public.grown (t);
CREATE INDEX ON public.lines (n);
SET LOCAL track_counts = off;
UPDATE other.orders SET x = x + 1;
"""


def test_each_figure_and_each_budget(migrated: Project) -> None:
    """What it cost, what would wait, how the machine differs; and an untouched table."""
    execute(
        migrated.url,
        "CREATE MATERIALIZED VIEW public.seen AS SELECT count(*) FROM public.lines",
    )
    write(migrated, "0001_note.sql", COSTLY)
    (migrated.folder / "migrations" / "0001_note.down.sql").unlink()
    write(
        migrated,
        "0002_more.sql",
        "ALTER TABLE public.lines ADD x int; REFRESH MATERIALIZED VIEW public.seen;",
    )
    migrated.configure(
        '[release]\nmigrations = { tool = "sql", database = "shop" }\n'
        'budgets = { writes_blocked = "0s", reads_blocked = "0s", duration = "0s", '
        "wal_bytes = 1, disk_bytes = 1 }",
        url=f"{migrated.url}&options=-c%20work_mem%3D7MB",
    )
    migrated.run("backup")
    document = migrated.json("rehearse", "--backup", "latest", code=62)

    failed = {e["name"]: e for e in document["checks"] if e["passed"] is False}
    assert {*failed} == {
        "budget reads blocked", "budget writes blocked", "budget duration",
        "budget rewrites", "budget WAL", "budget disk", "untouched tables",
    }  # fmt: skip
    assert "other.orders" in failed["untouched tables"]["detail"]
    assert document["wal_bytes"] > 10 * 2**20
    assert document["temporary_bytes"] > 2**20
    assert document["disk_bytes"] > 10 * 2**20
    assert document["seconds_per_gib"] > document["seconds"]
    waits = " ".join(document["waits_for_writers"])
    assert "CREATE INDEX ON public.lines" in waits
    assert "ALTER TABLE public.lines" in waits
    differs = {each["name"]: each for each in document["differences"]}
    assert differs["work_mem"]["production"] == "7MB"
    report = Path(document["report"]).read_text()
    assert (
        "| work_mem | 4096kB | 7MB |" in report or "| work_mem | 4MB | 7MB |" in report
    )
    assert "s per GiB" in report
    assert report.endswith("**NO**\n")


def test_a_migration_that_fails_in_a_rehearsal_is_a_no(migrated: Project) -> None:
    """The data of last night refuses it, which production would have done too."""
    write(migrated, "0002_broken.sql", "ALTER TABLE public.orders ADD CHECK (false);")
    # The verdict comes before the store that does not take the report.
    shutil.rmtree(migrated.store / "_reports", ignore_errors=True)
    (migrated.store / "_reports").write_text("")

    document = migrated.json("rehearse", code=62)

    assert "0002_broken" in document["error"]
    assert json.dumps(document["checks"]).count("violated") == 1


def test_what_breaks_the_code_before_it_is_a_no(migrated: Project) -> None:
    """Unless somebody accepts it by name, with a reason that goes on record."""
    write(migrated, "0002_drop.sql", "ALTER TABLE public.lines DROP n;")

    document = migrated.json("rehearse", code=62)

    kinds = {each["id"]: each["class"] for each in document["revisions"]}
    assert kinds == {"0001_note": "additive", "0002_drop": "destructive"}
    assert [each["warning"] for each in document["warnings"]] == ["ban-drop-column"]
    migrated.configure(
        f"{settings()}\n"
        'accept = [{ warning = "ban-drop-column", reason = "no code reads it" }]'
    )
    document = migrated.json("rehearse")
    (check,) = [e for e in document["checks"] if e["name"].startswith("warning")]
    assert "no code reads it" in check["detail"]
    assert "no code reads it" in Path(document["report"]).read_text()


def test_dropping_is_for_the_contract_phase(migrated: Project) -> None:
    """The code that used the column is gone by then."""
    write(
        migrated,
        "0002_drop.sql",
        "-- opskit: phase = contract\nALTER TABLE public.lines DROP n;",
    )

    assert migrated.json("rehearse")["revisions"][1]["class"] == "destructive"


def test_without_a_drilled_set_nothing_is_rehearsed(migrated: Project) -> None:
    """Only a set that was proved to come back stands for production."""
    shutil.rmtree(migrated.store / "shop")
    migrated.run("backup")

    assert "no drilled set" in migrated.json("rehearse", code=62)["error"]


def test_a_rehearsal_without_pending_migrations_is_refused(migrated: Project) -> None:
    """A yes about nothing would be worth nothing."""
    migrated.run("migrate")
    drill(migrated)

    assert "lacks no migration" in migrated.json("rehearse", code=62)["error"]


def test_data_from_json_files_is_counted_and_compared(migrated: Project) -> None:
    """With what the file holds, read by the server; a migration that loses a row is a no."""
    (migrated.folder / "migrations" / "limits.json").write_text(
        json.dumps(
            [
                {"name": "a", "since": "2026-01-01T00:00:00Z", "most": 1.50},
                {"name": "ä", "since": None, "most": 2},
            ]
        )
    )
    head = (
        "-- opskit: fills public.limits from limits.json\n"
        "CREATE TABLE public.limits (id int GENERATED ALWAYS AS IDENTITY, name text,"
        " since timestamptz, most numeric(5, 2));\n"
        "INSERT INTO public.limits (name, since, most) VALUES ('ä', NULL, 2.0)"
    )
    write(migrated, "0002_limits.sql", head + ";")
    migrated.run("backup")
    check = next(
        each
        for each in migrated.json("rehearse", "--backup", "latest", code=62)["checks"]
        if each["name"] == "rows of public.limits"
    )
    assert check["expected"].startswith("2 rows, SHA-256 ")
    assert check["observed"].startswith("1 row, SHA-256 ")

    # Production is judged as well, without a rehearsal.
    document = migrated.json("migrate", code=30)
    assert "filled a table wrongly" in document["error"]
    assert document["revisions"][1]["filled"] == [check]
    execute(migrated.url, "DROP TABLE public.limits; DELETE FROM opskit.migrations"
            " WHERE id = '0002_limits'")  # fmt: skip
    write(migrated, "0002_limits.sql", head + ", ('a', '2026-01-01 01:00+01', 1.5);")
    (filled,) = migrated.json("migrate")["revisions"][0]["filled"]
    assert (filled["passed"], filled["observed"]) == (True, check["expected"])

    # Values in the server's words are shown, and not kept in the ledger.
    (migrated.folder / "migrations" / "bad.json").write_text('[{"most": "value-4711"}]')
    write(migrated, "0003_bad.sql", "-- opskit: fills public.limits from bad.json\n"
          "SELECT 1;")  # fmt: skip
    assert "value-4711" in migrated.json("migrate", code=30)["error"]
    ledger = (migrated.folder / ".opskit" / "ledger.jsonl").read_text()
    assert "rows of public.limits: not compared" in ledger
    assert "value-4711" not in ledger


# Any other tool: it applies the files of a folder, and counts them in a table.
TOOL = """
import os, pathlib, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS public.done (name text)")
    done = {name for name, in connection.execute("SELECT name FROM public.done")}
    for path in sorted(pathlib.Path("ddl").glob("*.sql")):
        if path.name not in done:
            connection.execute(path.read_text())
            connection.execute("INSERT INTO public.done VALUES (%s)", [path.name])
"""


@pytest.fixture
def with_tool(drilled_project: Project) -> Project:
    """A project whose database is migrated by a command that opskit does not know."""
    (drilled_project.folder / "ddl").mkdir()
    (drilled_project.folder / "tool.py").write_text(TOOL)
    (drilled_project.folder / "ddl" / "1.sql").write_text(GOOD)
    command = json.dumps([sys.executable, "tool.py"])
    drilled_project.configure(
        "[release.migrations]\n"
        'tool = "command"\nfolder = "ddl"\ndatabase = "shop"\n'
        f"command = {command}\n"
        f"[release]\n{PATIENT}"
    )
    return drilled_project


def test_any_tool_is_judged_by_the_schema_that_it_leaves(with_tool: Project) -> None:
    """What it did in its rehearsal it must do again, however it ends."""
    output = with_tool.run("migrate")
    assert "NOT CHECKED changes of command-" in output
    assert "no rehearsal of it has passed on this host" in output
    execute(with_tool.url, "DROP TABLE public.done; DROP SCHEMA opskit CASCADE;"
            "ALTER TABLE public.orders DROP note")  # fmt: skip

    document = with_tool.json("rehearse")

    (revision,) = document["revisions"]
    assert revision["class"] == "additive"
    assert any("note text" in e for e in revision["changes"] if e[0] == "+")
    locks = {(e["table"], e["mode"]): e for e in document["locks"]}
    assert locks["public.orders", "AccessExclusiveLock"]["statement"] == GOOD.rstrip()

    execute(with_tool.url, "CREATE TABLE public.done AS SELECT '1.sql' AS name")
    document = with_tool.json("migrate", code=30)
    assert "another schema than in its rehearsal" in document["error"]
    assert "missing: + table public.done" in document["error"]

    execute(with_tool.url, "DROP TABLE public.done; DELETE FROM opskit.migrations")
    (applied,) = with_tool.json("migrate")["revisions"]
    assert applied["status"] == "applied"
    assert applied["changes"] == revision["changes"]
    assert with_tool.json("migrate")["revisions"] == []

    # It ends well, and not one statement reaches the copy.
    (with_tool.folder / "tool.py").write_text("")
    document = with_tool.json("rehearse", code=62)
    failed = [e["name"] for e in document["checks"] if e["passed"] is False]
    assert failed == [f"statements of {revision['id']}"]


@pytest.fixture
def with_alembic(drilled_project: Project) -> Project:
    """A project whose database is migrated by the example service's Alembic."""
    example = ROOT / "examples" / "service"
    shutil.copytree(
        example,
        drilled_project.folder / "app",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    drilled_project.configure(
        "[release.migrations]\n"
        'tool = "alembic"\nconfig = "app/alembic.ini"\ndatabase = "shop"\n'
        'url_variable = "SERVICE_DATABASE_URL"\n'
        "[release.budgets]\nrewrites = true\n"
        "reads_blocked = '60s'\nwrites_blocked = '60s'"
    )
    return drilled_project


REVISION = """
from alembic import op
revision, down_revision = "{id}", {below}
phase = "contract"
def upgrade():
    op.execute("ALTER TABLE public.orders ADD {id} int")
def downgrade():
    op.execute("ALTER TABLE public.orders DROP {id}")
"""


# Alembic ends its transaction for it; the lock of migrations has its own session.
CONCURRENTLY = """
from alembic import op
revision, down_revision = "cc02", "cc01"
def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY cc02 ON public.orders (customer)")
def downgrade():
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY public.cc02")
"""


def add_revision(project: Project, name: str, below: str) -> None:
    folder = project.folder / "app" / "migrations" / "versions"
    (folder / f"{name}.py").write_text(REVISION.format(id=name, below=repr(below)))


def test_alembic_is_rehearsed_and_applied(with_alembic: Project) -> None:
    """Each revision alone; its phase, and the locks that it takes, are known."""
    newest = with_alembic.json("migrate")["revisions"][-1]["id"]
    add_revision(with_alembic, "cc01", newest)
    (with_alembic.folder / "app" / "migrations" / "versions" / "cc02.py").write_text(
        CONCURRENTLY
    )

    drill(with_alembic)
    document = with_alembic.json("rehearse")

    revision, _index = document["revisions"]
    assert (revision["id"], revision["phase"]) == ("cc01", "contract")
    assert revision["class"] == "additive"
    locks = {(e["table"], e["mode"]): e for e in document["locks"]}
    assert "ADD cc01" in locks["public.orders", "AccessExclusiveLock"]["statement"]
    assert locks["public.orders", "ShareUpdateExclusiveLock"]
    applied = {"cc01": "applied", "cc02": "applied"}
    assert statuses(with_alembic.json("migrate")) == applied
    assert (
        value(with_alembic.url, "SELECT version_num FROM public.alembic_version")
        == "cc02"
    )
    assert with_alembic.json("migrate")["revisions"] == []


def test_several_heads_are_refused(with_alembic: Project) -> None:
    """Nobody knows which one comes first."""
    newest = with_alembic.json("migrate")["revisions"][-1]["id"]
    add_revision(with_alembic, "cc01", newest)
    add_revision(with_alembic, "cc02", newest)

    assert "several heads" in with_alembic.json("migrate", code=62)["error"]


def test_a_version_that_is_not_known_is_refused(with_alembic: Project) -> None:
    """The database comes from a newer version of the service."""
    with_alembic.json("migrate")
    execute(with_alembic.url, "UPDATE public.alembic_version SET version_num = 'ffff'")

    assert (
        "migration ffff, which is not known"
        in with_alembic.json("migrate", code=62)["error"]
    )


def test_an_address_of_its_own_is_refused(with_alembic: Project) -> None:
    """A rehearsal must never migrate what env.py names by itself."""
    env = with_alembic.folder / "app" / "migrations" / "env.py"
    env.write_text(
        "import psycopg\nfrom alembic import context\nfrom sqlalchemy import create_engine\n"
        f"engine = create_engine('postgresql+psycopg://', creator=lambda: psycopg.connect({with_alembic.url!r}))\n"
        "with engine.connect() as connection:\n"
        "    context.configure(connection=connection)\n"
        "    with context.begin_transaction():\n"
        "        context.run_migrations()\n"
    )

    document = with_alembic.json("migrate", code=62)

    assert "does not take its address from" in document["error"]
    assert value(with_alembic.url, "SELECT to_regclass('public.tasks')") is None
