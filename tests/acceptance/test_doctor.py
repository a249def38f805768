"""`doctor` and the drill's own flags, as processes."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pyrage  # type: ignore[import-untyped]

from tests.acceptance.conftest import ROOT, Project
from tests.support import execute


def statuses(document: dict[str, Any]) -> dict[str, str]:
    """Return the status of each check by its name."""
    return {each["name"]: each["status"] for each in document["checks"]}


def test_a_healthy_setup_is_called_healthy(project: Project) -> None:
    """Every part is looked at, and nothing is left behind."""
    document = project.json("doctor")

    found = statuses(document)
    assert document["status"] == "healthy"
    assert set(found.values()) == {"healthy"}
    assert {
        "state folder",
        "database shop: connection",
        "database shop: pg_dump",
        "store local",
        "space for drills",
        "drill shop: server",
    } <= found.keys()
    assert project.files() == []


def test_what_would_fail_tonight_is_said_today(project: Project) -> None:
    """A role that may not read, a missing store, a locale that no drill could have."""
    execute(
        project.url,
        """DO $$ BEGIN CREATE ROLE test_weak LOGIN;
        EXCEPTION WHEN duplicate_object THEN NULL; END $$""",
    )
    weak = project.url.replace("opskit_throwaway@", "test_weak@")
    assert weak != project.url
    project.configure(
        f'[stores.gone]\nurl = "{project.folder.as_uri()}/gone"', url=weak
    )

    document = project.json("doctor", code=4)

    found = statuses(document)
    assert document["status"] == "unhealthy"
    assert found["database shop: relations that the role may not read"] == "unhealthy"
    assert found["database shop: passwords of roles"] == "degraded"
    assert found["store gone"] == "unhealthy"
    assert found["store local"] == "healthy"
    hints = [each["hint"] for each in document["checks"] if each["hint"]]
    assert any("pg_read_all_data" in hint for hint in hints)


def test_a_server_that_cannot_be_reached_is_unhealthy(project: Project) -> None:
    """The others are looked at all the same."""
    project.configure(url="postgresql://nobody@127.0.0.1:1/none")

    document = project.json("doctor", code=4)

    found = statuses(document)
    assert found["database shop: connection"] == "unhealthy"
    assert found["store local"] == "healthy"


def test_no_passwords_alone_is_degraded(project: Project) -> None:
    """Who reads all but passwords backs up, and hears what is lacking."""
    execute(
        project.url,
        """DO $$ BEGIN CREATE ROLE test_reader LOGIN BYPASSRLS;
        EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT USAGE ON SCHEMA public, other TO test_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA public, other TO test_reader;
        GRANT SELECT ON ALL SEQUENCES IN SCHEMA public, other TO test_reader""",
    )
    project.configure(url=project.url.replace("opskit_throwaway@", "test_reader@"))

    blind = project.json("doctor", code=4)
    execute(
        project.url,
        """DO $$ DECLARE each oid; BEGIN
        FOR each IN SELECT oid FROM pg_largeobject_metadata LOOP
            EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO test_reader', each);
        END LOOP; END $$""",
    )
    alone = project.json("doctor", code=3)
    project.environment["OPSKIT_DATABASES__SHOP__RESTORE_URL"] = project.url
    document = project.json("doctor", code=3)
    project.run("backup")

    assert statuses(alone)["database shop: restore here"] == "degraded"
    bad = [name for name, each in statuses(document).items() if each != "healthy"]
    assert document["status"] == "degraded"
    assert bad == ["database shop: passwords of roles"]
    name = "database shop: large objects that the role may not read"
    assert statuses(blind)[name] == "unhealthy"


def test_the_number_of_mutants_can_be_chosen(project: Project) -> None:
    """More, none (and said so), or a number that is none."""
    project.run("backup")

    many = project.json("restore-drill", "--mutants", "40")
    none = project.json("restore-drill", "--mutants", "0")
    project.json("restore-drill", "--mutants", "-2", code=2)

    assert many["mutants"]["planted"] == 40
    assert many["mutants"]["kill_rate"] == 1
    assert none["mutants"] is None
    assert [each["name"] for each in none["not_checked"]] == ["mutants"]
    assert "NOT CHECKED mutants" in project.run("restore-drill", "--mutants", "0")


def test_a_reader_that_goes_away_gets_no_traceback(project: Project) -> None:
    """`inv --list | head -1` is an everyday thing."""
    reading, writing = os.pipe()
    os.close(reading)

    finished = subprocess.run(
        [ROOT / "inv", "--list"],
        cwd=project.folder,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)

    assert finished.returncode == 141
    assert finished.stderr == ""


def test_a_number_that_is_none_is_wrong_usage(project: Project) -> None:
    """Invoke's own refusal of a flag becomes exit code 2, and one JSON document."""
    for value in ("x", "1.5"):
        document = project.json("restore-drill", "--mutants", value, code=2)

        assert document["status"] == "error"


def test_folders_keys_and_room_are_looked_at(project: Project) -> None:
    """A folder that is gone, an identity for nobody, a store too small for a set."""
    (project.folder / "mine.key").write_text(str(pyrage.x25519.Identity.generate()))
    (project.folder / "mine.key").chmod(0o600)
    (project.folder / "state").mkdir()
    (project.folder / "state" / "sparse").touch()
    os.truncate(project.folder / "state" / "sparse", 2**43)
    other = pyrage.x25519.Identity.generate().to_public()
    project.configure(
        f'[files.state]\npath = "{project.folder}/state"\nlock = "/nowhere/lock"\n'
        f'[files.gone]\npath = "{project.folder}/gone"\n'
        f'[encryption]\nrecipients = ["{other}"]\nidentity_file = "mine.key"\n'
    )

    found = statuses(project.json("doctor", code=4))

    assert found["files state: folder"] == "healthy"
    assert found["files state: lock"] == "unhealthy"
    assert found["files gone: folder"] == "unhealthy"
    assert found["encryption: recipients"] == "healthy"
    assert found["encryption: identity"] == "healthy"
    assert found["encryption: identity and recipients"] == "degraded"
    assert found["store local: room"] == "degraded"
