"""Sets as a person finds them: listed, shown, compared, chosen by time, pinned."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest

from opskit import locks
from tests.acceptance.conftest import Project
from tests.support import execute, value


@pytest.fixture
def two_sets(project: Project) -> tuple[Project, str, str]:
    """A project with two sets, between which a table grew and another came."""
    older = project.json("backup")["backups"][0]["backup_id"]
    time.sleep(1.1)  # so that the times between them can be written in seconds
    execute(project.url, "CREATE TABLE public.came (a int)")
    execute(project.url, "INSERT INTO public.came VALUES (1), (2)")
    newer = project.json("backup")["backups"][0]["backup_id"]
    return project, older, newer


def test_a_set_is_shown_and_two_are_compared(
    two_sets: tuple[Project, str, str],
) -> None:
    """What is in it, and what changed, in words and as one document."""
    project, older, newer = two_sets
    project.json("restore-drill", "--backup", newer, "--mutants", "0")

    shown = project.json("backups", "--backup", "latest")
    text = project.run("backups", "--backup", newer[:-3])
    compared = project.json("backups", "--compare", newer, older)
    words = project.run("backups", "--compare", older, newer)

    assert (shown["status"], shown["backup_id"], shown["proof"]) == (
        "ok",
        newer,
        "drilled",
    )
    assert (shown["tables"], shown["rows"]) == (6, 2104)
    assert {"schema": "public", "name": "came", "rows": 2} in shown["contents"]
    (drilled,) = shown["drills"]
    assert (drilled["passed"], drilled["store"]) == (True, "local")
    assert datetime.fromisoformat(drilled["time"]).tzinfo is not None
    assert shown["objects"] == len(shown["stored"])
    assert "public.came" in text
    assert (compared["older"], compared["newer"]) == (older, newer)
    assert compared["equal"] is False
    assert compared["tables_added"] == [{"schema": "public", "name": "came", "rows": 2}]
    assert (compared["tables_removed"], compared["tables_changed"]) == ([], [])
    assert compared["definitions_added"] == ["table public.came"]
    assert "added   table public.came: 2 rows" in words
    assert project.json("backups", "--compare", newer, newer)["equal"] is True
    assert shown["finished_at"][:10] in project.run("backups")


def test_wrong_calls_name_what_is_meant(two_sets: tuple[Project, str, str]) -> None:
    """Exit code 2; an ambiguous beginning names the candidates."""
    project, older, newer = two_sets

    refused = project.json("verify", "--backup", "shop-", code=2)
    assert refused["candidates"] == [older, newer]
    assert newer in refused["hint"]
    for call in (
        ("backups", "--compare", older),
        ("backups", "--backup", older, "--compare", older, newer),
        ("restore", "--to", "elsewhere"),
        ("restore", "--to", "elsewhere", "--backup", older, "--at", "2026-01-01"),
        ("restore", "--to", "elsewhere", "--at", "yesterday"),
        ("restore", "--to", "elsewhere", "--at", "2001-01-01"),
        ("pin", "--backup", "nothing"),
    ):
        project.json(*call, code=2)


def test_a_dry_run_of_a_restore_touches_nothing(
    two_sets: tuple[Project, str, str],
) -> None:
    """It says which set of a time goes where, and what a restore would refuse."""
    project, older, newer = two_sets
    path = next(project.store.glob(f"shop/*/{newer}/manifest.json"))
    taken = json.loads(path.read_text())["snapshot_at"][:19]
    before = value(project.url, "SELECT count(*) FROM pg_database")
    files = project.files()

    plan = project.json("restore", "--at", taken, "--to", "new_one", "--dry-run")
    replacing = project.json(
        "restore", "--backup", "latest", "--to", project.url, "--replace", "--dry-run"
    )
    project.json("restore", "--backup", older, "--to", project.url, "--dry-run", code=2)

    assert (plan["status"], plan["backup_id"]) == ("ok", older)
    assert (plan["target"], plan["target_exists"]) == ("new_one", False)
    assert (plan["tables"], plan["rows"], plan["missing"]) == (5, 2102, [])
    assert plan["store"] == "local"
    assert (replacing["backup_id"], replacing["replaces"]) == (newer, True)
    assert value(project.url, "SELECT count(*) FROM pg_database") == before
    assert project.files() == files


def test_a_pinned_set_outlives_retention(two_sets: tuple[Project, str, str]) -> None:
    """Prune says why it stays, until the pin is removed."""
    project, older, _newer = two_sets
    project.configure("[retention]\nkeep_last = 1\nmin_keep = 1\n")

    pinned = project.json("pin", "--backup", older)
    kept = project.json("prune")
    listed = {e["backup_id"]: e["pinned"] for e in project.json("backups")["backups"]}
    project.json("pin", "--backup", older, "--remove")
    gone = project.json("prune")

    assert (pinned["status"], pinned["pinned"]) == ("ok", True)
    reasons = {each["backup_id"]: each["reasons"] for each in kept["keep"]}
    assert reasons[older] == ["pinned"]
    assert kept["delete"] == []
    assert listed[older] is True
    assert [each["backup_id"] for each in gone["delete"]] == [older]


def test_a_dry_run_of_prune_waits_for_nobody(
    two_sets: tuple[Project, str, str],
) -> None:
    """While a backup holds the lock of the source, the plan can be read."""
    project, older, _newer = two_sets
    project.configure("[retention]\nkeep_last = 1\nmin_keep = 1\n")

    with locks.exclusive(
        project.folder / ".opskit" / "locks",
        "source-shop",
        operation="backup shop",
        run_id="abc123",
        now=datetime.now(UTC),
    ):
        plan = project.json("prune", "--dry-run")
        project.json("prune", code=11)

    assert [each["backup_id"] for each in plan["delete"]] == [older]
