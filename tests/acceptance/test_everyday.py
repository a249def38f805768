"""The everyday commands as a person or a script runs them, and their JSON results."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opskit import locks
from opskit.postgres import database
from opskit.postgres.connect import connect
from opskit.postgres.parameters import parse
from tests.acceptance.conftest import Project
from tests.support import execute, value


def test_backup_drill_list_verify_and_ledger(project: Project) -> None:
    """The way from a database to a proved set, field by field."""
    (backup,) = project.json("backup")["backups"]

    assert re.fullmatch(r"shop-\d{8}T\d{6}Z-[0-9a-f]{4,}", backup["backup_id"])
    assert tuple(
        backup[key] for key in ("source", "tables", "rows", "stores", "encrypted")
    ) == ("shop", 5, 2102, ["local"], False)
    assert backup["dump_bytes"] > backup["size_bytes"] > 0
    assert backup["duration_seconds"] > 0

    (listed,) = project.json("backups")["backups"]
    assert (backup["backup_id"], "unproven", ["local"]) == tuple(
        listed[key] for key in ("backup_id", "proof", "stores")
    )
    assert 0 <= listed["age_seconds"] < 300

    verified = project.json("verify")
    assert ("ok", 4, backup["size_bytes"], []) == tuple(
        verified[key] for key in ("status", "objects", "bytes", "bad")
    )
    assert project.json("backups")["backups"][0]["proof"] == "verified"

    drill = project.json("restore-drill")
    assert ("passed", True, backup["backup_id"]) == tuple(
        drill[key] for key in ("status", "passed", "backup_id")
    )
    keys = {"name", "passed", "expected", "observed", "detail"}
    assert all(keys == check.keys() for check in drill["checks"])
    assert "table public.orders" in [check["name"] for check in drill["checks"]]
    assert drill["rto_seconds"] > 0
    assert drill["rpo_seconds"] > 0
    assert list(drill["phases"]) == [
        "fetch",
        "server",
        "surroundings",
        "restore",
        "compare",
        "mutants",
    ]
    assert drill["mutants"]["killed"] == drill["mutants"]["planted"] == 12
    assert drill["not_checked"] == []
    report = Path(drill["report"]).read_text()
    assert "PASSED" in report
    assert "table public.orders" in report
    assert project.json("backups")["backups"][0]["proof"] == "drilled"

    entries = project.json("ledger", "--verify")["entries"]
    assert [(entry["operation"], entry["outcome"]) for entry in entries] == [
        ("backup", "ok"),
        ("verify", "ok"),
        ("restore-drill", "ok"),
    ]
    # The sets may be gone when somebody asks how sizes and times have changed.
    on_record = entries[0]["details"], entries[2]["details"]
    assert [each["size_bytes"] for each in on_record] == [backup["size_bytes"]] * 2
    for figure in ("rto_seconds", "rpo_seconds", "phases"):
        assert on_record[1][figure] == drill[figure]


def test_the_manifest_holds_what_the_contract_says(project: Project) -> None:
    """Other programs read it: names, times and types are fixed."""
    (backup,) = project.json("backup")["backups"]
    (path,) = project.store.rglob("manifest.json")
    day = backup["backup_id"].split("-")[1][:8]

    manifest = json.loads(path.read_text())

    assert path.parent == (
        project.store / "shop" / f"{day[:4]}-{day[4:6]}-{day[6:]}" / backup["backup_id"]
    )
    assert (path.parent / "RESTORE.md").is_file()
    for key in (
        "format_version", "backup_id", "source", "kind", "started_at", "finished_at",
        "snapshot", "server_version", "client_version", "tool_version", "encryption",
        "objects", "tables", "sequences", "large_objects", "inventory",
    ):  # fmt: skip
        assert key in manifest
    assert manifest["kind"] == "postgres"
    assert manifest["started_at"].endswith("Z")
    for stored in manifest["objects"]:
        assert stored["size_bytes"] == (project.store / stored["key"]).stat().st_size
    assert {"schema", "name", "rows", "digest"} <= manifest["tables"][0].keys()
    assert {"roles", "extensions", "locale", "encoding", "settings"} <= (
        manifest["inventory"].keys()
    )


def test_people_get_lines_and_no_json(project: Project) -> None:
    """Without --json the same commands speak to a person."""
    assert "5 tables, 2102 rows" in project.run("backup", "--database", "shop")
    assert "unproven" in project.run("backups", "--database", "shop")
    output = project.run("restore-drill", "--database", "shop")
    assert "5 tables, 2102 rows equal exactly what was dumped" in output
    assert "(RTO)" in output
    assert "ok: shop-" in project.run("verify")
    assert "keep shop-" in project.run("prune", "--dry-run")
    assert "the chain is whole" in project.run("ledger", "--verify")


def test_drill_all(project: Project) -> None:
    """`--all` wraps the drills of every source."""
    project.run("backup", "--all")

    (drill,) = project.json("restore-drill", "--all")["drills"]

    assert drill["status"] == "passed"


def test_restore_and_replace(project: Project) -> None:
    """Into a new database, then over the live one, which is kept."""
    (backup,) = project.json("backup")["backups"]
    name = parse(project.url)["dbname"]
    execute(project.url, "DELETE FROM other.orders")
    target = f"{name} restored"

    first = project.json("restore", "--backup", backup["backup_id"], "--to", target)
    second = project.json(
        "restore", "--backup", backup["backup_id"], "--to", project.url, "--replace"
    )

    assert ("ok", backup["backup_id"], target, None, 5, 2102) == tuple(
        first[key]
        for key in ("status", "backup_id", "target", "replaced", "tables", "rows")
    )
    assert value(project.url, "SELECT count(*) FROM other.orders") == 100
    with connect(project.url, purpose="test", database="postgres") as connection:
        assert database.exists(connection, second["replaced"])
        database.drop(connection, target)
        database.drop(connection, second["replaced"])


def test_restore_of_one_table(project: Project) -> None:
    """`--table` may be given several times; what is accepted and does not fail is told."""
    (backup,) = project.json("backup")["backups"]
    target = f"{parse(project.url)['dbname']} tables"

    result = project.json(
        "restore", "--backup", backup["backup_id"], "--to", target,
        "--table", "other.orders", "--table", "public.lines",
        "--accept-failures", "INDEX public.none",
    )  # fmt: skip

    assert (result["tables"], result["rows"]) == (2, 1600)
    assert (result["without"], result["not_failed"]) == ([], ["INDEX public.none"])
    with connect(project.url, purpose="test", database="postgres") as connection:
        database.drop(connection, target)


def age(project: Project, days: float) -> str:
    """Make the newest set an older one, as if it had been taken then."""
    path = max(project.store.glob("shop/*/shop-*"), key=lambda each: each.name)
    newest = path.name
    text = (path / "manifest.json").read_text()
    manifest = json.loads(text)
    started = datetime.now(UTC) - timedelta(days=days)
    backup_id = f"shop-{started:%Y%m%dT%H%M%SZ}-{newest[-6:]}"
    place = f"shop/{started:%Y-%m-%d}/{backup_id}"
    text = text.replace(f"shop/{path.parent.name}/{newest}", place)
    text = text.replace(newest, backup_id)
    text = text.replace(manifest["started_at"], f"{started:%Y-%m-%dT%H:%M:%SZ}")
    (project.store / place).parent.mkdir(exist_ok=True, parents=True)
    path.rename(project.store / place)
    (project.store / place / "manifest.json").write_text(text)
    return backup_id


def test_prune_deletes_what_no_rule_keeps(project: Project) -> None:
    """The plan is printed first, then carried out; what stays still drills."""
    project.configure(
        "[retention]\nkeep_last = 2\nkeep_within = '0s'\nkeep_daily = 0\n"
        "keep_weekly = 0\nkeep_monthly = 0\nmin_keep = 1\n"
    )
    ids = []
    for days in (400, 30, 2, 1):
        project.run("backup")
        ids.append(age(project, days))
    project.run("restore-drill", "--backup", ids[1])

    planned = project.json("prune", "--dry-run")
    before = len(project.json("backups")["backups"])
    done = project.json("prune")

    assert before == 4
    assert planned | {"run_id": ""} == done | {"run_id": ""}
    assert None is done["refused"]
    assert {
        ids[3]: ["keep_last 1", "min_keep 1"],
        ids[2]: ["keep_last 2"],
        ids[1]: ["newest that passed a drill"],
    } == {each["backup_id"]: each["reasons"] for each in done["keep"]}
    assert [ids[0]] == [each["backup_id"] for each in done["delete"]]
    assert ids[:0:-1] == [e["backup_id"] for e in project.json("backups")["backups"]]
    assert not [file for file in project.files() if ids[0] in file]
    assert project.json("prune")["delete"] == []


def test_prune_keeps_what_is_being_read(project: Project) -> None:
    """A drill that runs does not lose its set; when it has ended, prune takes it."""
    project.configure(
        "[retention]\nkeep_last = 1\nkeep_within = '0s'\nkeep_daily = 0\n"
        "keep_weekly = 0\nkeep_monthly = 0\nmin_keep = 1\n"
    )
    project.run("backup")
    old = age(project, 30)
    project.run("backup")

    with locks.in_use(project.folder / ".opskit" / "locks", f"set-{old}.reading"):
        busy = project.json("prune")
    free = project.json("prune")

    assert busy["delete"] == []
    reasons = {each["backup_id"]: each["reasons"] for each in busy["keep"]}
    assert reasons[old] == ["a drill, a restore or a verification is reading it"]
    assert [each["backup_id"] for each in free["delete"]] == [old]


def test_a_drill_marks_its_set_as_being_read(project: Project) -> None:
    """That is what prune looks for."""
    (backup,) = project.json("backup")["backups"]
    mark = project.folder / ".opskit" / "locks" / f"set-{backup['backup_id']}.reading"
    seen = False

    drill = project.start("restore-drill")
    while drill.poll() is None:
        if mark.exists():
            with mark.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    seen = True
        time.sleep(0.01)
    drill.communicate()

    assert drill.returncode == 0
    assert seen


def test_prune_without_a_rule_is_refused(project: Project) -> None:
    """A policy that keeps nothing is a mistake, and deletes nothing."""
    project.configure(
        "[retention]\nkeep_last = 0\nkeep_within = '0s'\nkeep_daily = 0\n"
        "keep_weekly = 0\nkeep_monthly = 0\n"
    )
    project.run("backup")

    document = project.json("prune", code=41)

    assert "no rule" in document["refused"]
    assert len(project.json("backups")["backups"]) == 1


def test_a_newer_failed_set_does_not_push_out_the_good_one(project: Project) -> None:
    """Retention counts good sets; one whose drill failed is not one of them."""
    project.configure(
        "[retention]\nkeep_last = 1\nkeep_within = '0s'\nkeep_daily = 0\n"
        "keep_weekly = 0\nkeep_monthly = 0\nmin_keep = 1\n"
    )
    project.run("backup")
    good = age(project, 3)
    project.run("backup")
    bad = age(project, 1)
    (dump,) = project.store.rglob(f"{bad}/dump.pgdump.zst")
    content = bytearray(dump.read_bytes())
    content[100] ^= 1
    dump.write_bytes(content)

    drill = project.json("restore-drill", code=50)

    assert (drill["status"], drill["passed"]) == ("failed", False)
    assert "dump.pgdump.zst" in drill["checks"][0]["detail"]
    assert "DID NOT PASS" in Path(drill["report"]).read_text()
    assert {bad: "failed", good: "unproven"} == {
        e["backup_id"]: e["proof"] for e in project.json("backups")["backups"]
    }
    done = project.json("prune")
    assert [good] == [each["backup_id"] for each in done["keep"]]
    assert [bad] == [each["backup_id"] for each in done["delete"]]


def test_a_damaged_copy_is_not_hidden_by_a_whole_one(project: Project) -> None:
    """One of two stores holds a damaged copy: the set is failed, also after a drill."""
    other = project.folder / "other"
    other.mkdir()
    project.configure(f'[stores.other]\nurl = "{other.as_uri()}"')
    project.run("backup")
    (path,) = other.rglob("roles.sql")
    path.write_bytes(path.read_bytes() + b"x")

    verified = project.json("verify", code=20)

    assert len(verified["bad"]) == 1
    assert project.json("backups")["backups"][0]["proof"] == "failed"
    assert project.json("restore-drill")["status"] == "passed"
    assert project.json("backups")["backups"][0]["proof"] == "failed"


def test_a_store_that_is_away_hides_no_set(project: Project) -> None:
    """Listing, drill and restore work with the other store; backup and prune say 10."""
    away = project.folder / "away"
    away.mkdir()
    project.configure(f'[stores.away]\nurl = "{away.as_uri()}"')
    (first,) = project.json("backup")["backups"]
    shutil.rmtree(away)

    listed = project.json("backups")

    assert [each["stores"] for each in listed["backups"]] == [["local"]]
    assert "away" in listed["unreachable"][0]
    assert project.json("restore-drill")["passed"]
    failed = project.json("backup", code=10)
    assert [each["stores"] for each in failed["backups"]] == [["local"]]
    assert "away" in failed["error"]
    project.json("prune", code=10)
    ids = [each["backup_id"] for each in project.json("backups")["backups"]]
    assert [failed["backups"][0]["backup_id"], first["backup_id"]] == ids


def test_inv_is_called_from_anywhere(project: Project) -> None:
    """The configuration is that of the working directory, or the one named."""
    project.run("backup")
    project.environment["OPSKIT_CONFIG"] = str(project.folder / "opskit.toml")
    project.folder = project.folder.parent

    (listed,) = project.json("backups")["backups"]

    assert listed["source"] == "shop"


def test_every_task_has_help_with_an_example(project: Project) -> None:
    """`--help` of each task shows how it is called."""
    names = re.findall(r"^  ([a-z-]+) ", project.run("--list"), re.M)

    assert {"backup", "restore-drill", "restore", "prune", "quickstart"} <= set(names)
    for name in names:
        assert f"inv {name}" in project.run(name, "--help")


def test_a_report_of_what_was_done(project: Project) -> None:
    """A document for programs, two for people, in the state folder and in the store."""
    project.run("backup")

    document = project.json("report", "--month")
    words = project.run("report", "--week")

    assert (document["status"], document["period"]) == ("ok", "month")
    (shop,) = document["sources"]
    assert shop["backups"] == {"ok": 1, "failed": 0, "missed": 0}
    assert shop["rpo"]["met"] is True
    assert "Reviewed by" in Path(document["html"]).read_text()
    markdown = Path(document["report"]).read_text()
    assert "| shop | 1 | 0 | 0 | 0 of 0 |" in markdown
    assert len([*project.store.glob("_reports/*/*.md")]) == 2
    assert "shop: 1 backup, 0 failed, 0 missed; 0 drills passed, 0 did not" in words
    assert len(project.json("backups")["backups"]) == 1
    for wrong in ((), ("--week", "--month")):
        refused = project.json("report", *wrong, code=2)
        assert "--week or --month" in refused["hint"]
