"""No part of a password is told, recorded or stored, whoever repeats it."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.postgres.parameters import parse
from tests.acceptance.conftest import Project
from tests.support import execute, value

CANARY = "hunter"
URLS = [
    "postgresql://ops:Zk9 hunter@h/db",
    "postgresql://ops:hunter%00@h/db",
    "postgresql://ops:Zk9/hunter@h/db",
    "postgresql://ops:123/hunter@h/db",
    "postgresql://ops:Zk9@hunter@h/db",
    "postgresql://ops@h:hunter/db",
]


def _traces(project: Project, shown: str) -> list[str]:
    """Return where the canary is found: in what was shown, or in a file."""
    found = ["shown"] if CANARY in shown else []
    for path in project.folder.rglob("*"):
        if path.is_file() and CANARY.encode() in path.read_bytes():
            found.append(str(path.relative_to(project.folder)))
    return found


@pytest.mark.parametrize("url", URLS)
def test_a_bad_url_in_a_file_is_not_shown(url: str, project: Project) -> None:
    """Not on a terminal, in the ledger, in its copies: exit 2 without a word of it."""
    secret = project.folder / "url"
    secret.write_text(url)
    project.environment["OPSKIT_DATABASES__OTHER__URL_FILE"] = str(secret)

    shown = project.run("backup", "--database", "other", code=2) + project.errors
    shown += project.run("ledger")

    assert _traces(project, shown) == ["url"]
    assert "percent-encoded" in shown
    assert "failed" in shown


@pytest.mark.parametrize("url", URLS[:3])
def test_a_bad_url_in_the_configuration_is_named_by_its_key(
    url: str, project: Project
) -> None:
    """The key is told, nothing of the value."""
    project.environment["OPSKIT_DATABASES__OTHER__URL"] = url

    document = project.json("backup", code=2)

    assert document["error"].startswith("databases.other.url: ")
    assert _traces(project, str(document) + project.errors) == []


def test_a_refused_statement_is_shown_without_its_options(project: Project) -> None:
    """pg_restore quotes the whole statement that the drill's server refused."""
    execute(
        project.url,
        """
        CREATE FOREIGN DATA WRAPPER awkward;
        CREATE SERVER far FOREIGN DATA WRAPPER awkward OPTIONS (key 'hunter-0');
        CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (password 'hunter-1');
        """,
    )
    project.run("backup")
    refused = (
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'refused'; END $$",
        "CREATE EVENT TRIGGER t ON ddl_command_end WHEN TAG IN ('CREATE USER MAPPING') "
        "EXECUTE FUNCTION refuse()",
        "ALTER EVENT TRIGGER t ENABLE ALWAYS",
    )
    project.configure(f"[drill]\nsql_before = {list(refused)!r}")

    shown = project.run("restore-drill", code=50) + project.errors
    shown += str(project.json("restore-drill", code=50)) + project.errors

    assert "could not be made" in shown
    assert "USER MAPPING" in shown
    kept = [Path(each).name for each in _traces(project, shown)]
    # The set itself holds what the database holds; nothing else does.
    assert all(each.endswith(".zst") for each in kept)


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ("host={host} user=opskit_throwaway password=hunter-2 dbname='by string'", 0),
        ("host={host} pasword=hunter-2 dbname=q", 2),
        ("host={host} password=hunter-2", 2),
        ("postgresql://ops:Zk9 hunter@h/db", 2),
        ("mysql://ops:hunter@h/db", 2),
    ],
)
def test_a_target_with_a_password_is_a_connection_or_refused(
    to: str, code: int, project: Project
) -> None:
    """It never becomes the name of a database, nor a line of a record."""
    project.run("backup")
    before = _databases(project.url)
    target = to.format(host=parse(project.url)["host"])

    arguments = ("restore", "--backup", _newest(project), "--to", target)
    shown = project.run(*arguments, code=code) + project.errors
    shown += project.run("ledger")
    made = _databases(project.url) - before
    for name in made:
        execute(project.url, f'DROP DATABASE "{name}"')

    assert made == ({"by string"} if code == 0 else set())
    assert _traces(project, shown) == []


def _newest(project: Project) -> str:
    return str(project.json("backups")["backups"][0]["backup_id"])


def _databases(url: str) -> set[str]:
    return set(value(url, "SELECT array_agg(datname::text) FROM pg_database"))
