"""Bad input, each with its exit code and its hint, and nothing lost."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path

import pytest

from opskit.postgres.connect import connect
from opskit.postgres.parameters import parse
from tests.acceptance.conftest import Project
from tests.support import execute, value


def test_no_configuration(project: Project) -> None:
    """Without a file every task says where it looked."""
    (project.folder / "opskit.toml").unlink()

    for task in ("backup", "backups", "verify", "restore-drill", "prune", "ledger"):
        document = project.json(task, code=2)

        assert "opskit.toml does not exist" in document["error"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[retention]\nkeep_lats = 3", "keep_lats (did you mean keep_last?)"),
        ("[retention]\nkeep_last = 'seven'", "retention.keep_last = 'seven'"),
        ("[retention]\nmin_keep = 0", "retention.min_keep = 0"),
        ("[retention]\nkeep_within = '3 moons'", "retention.keep_within = '3 moons'"),
        ("[nonsense]\na = 1", "unknown key nonsense"),
        ("[encryption]\nrecipients = ['age1x']", "encryption.recipients"),
        ("[stores.other]\nurl = 'ftp://x'", "stores.other.url"),
        ("[drill", "cannot be read as TOML"),
    ],
)  # fmt: skip
def test_bad_configuration(more: str, words: str, project: Project) -> None:
    """The key, the value and what is allowed are named; nothing is touched."""
    project.configure(more)

    document = project.json("backup", code=2)

    assert words in document["error"]
    assert project.files() == []


def test_a_secret_in_a_bad_configuration_is_masked(project: Project) -> None:
    """An error about a URL does not show its password."""
    project.configure(url="mysql://ops:geheim-123@db/shop")

    output = json.dumps(project.json("backup", code=2)) + project.errors

    assert "postgresql://" in output
    assert "geheim-123" not in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("backup", "--database", "nonsense"),
        ("restore-drill", "--database", "nonsense"),
        ("backups", "--database", "nonsense"),
        ("backup", "--no-such-flag"),
        ("no-such-task",),
        ("backup", "--database", "shop", "--all"),
        ("verify", "--backup", "shop-20200101T000000Z-abcdef"),
        ("restore-drill", "--backup", "shop-20200101T000000Z-abcdef"),
        ("restore", "--backup", "shop-20200101T000000Z-abcdef", "--to", "x"),
        ("restore", "--backup", "shop-20200101T000000Z-abcdef"),
        ("restore-drill",),
    ],
    ids=" ".join,
)
def test_wrong_calls(arguments: tuple[str, ...], project: Project) -> None:
    """Unknown names, flags, tasks and sets are usage errors."""
    project.json(*arguments, code=2)


def test_server_faults(project: Project, tmp_path: Path) -> None:
    """Unreachable, refused or unknown: a database error each."""
    for url, words in (
        ("postgresql://ops@127.0.0.1:1/shop", "reachable"),
        (project.url.replace("opskit_throwaway@", "nobody_here@"), "nobody_here"),
        (project.url.replace("test%20", "absent%20"), "does not exist"),
    ):
        project.configure(url=url)

        document = project.json("backup", code=30)

        assert words in document["error"] + document["hint"]
        assert project.files() == []


def test_no_rights_on_a_table(project: Project) -> None:
    """The backup fails as a whole, and the table is named."""
    execute(
        project.url,
        "DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN;"
        "GRANT USAGE ON SCHEMA other TO weak",
    )
    project.configure(url=project.url.replace("opskit_throwaway@", "weak@"))

    document = project.json("backup", code=40)

    assert "permission denied for table" in document["error"]
    assert project.files() == []
    assert project.json("ledger")["entries"][0]["outcome"] == "failed"


def test_store_faults(project: Project) -> None:
    """A missing folder is not made, a file is no folder."""
    project.store.rmdir()

    for task in ("backup", "backups", "verify", "restore-drill", "prune"):
        document = project.json(task, code=10)

        assert "does not exist" in document["error"]
    assert not project.store.exists()


def test_a_target_that_holds_data_is_refused(project: Project) -> None:
    """The live database is not touched without --replace."""
    (backup,) = project.json("backup")["backups"]
    name = parse(project.url)["dbname"]

    document = project.json(
        "restore", "--backup", backup["backup_id"], "--to", name, code=2
    )

    assert "not empty" in document["error"]
    assert value(project.url, "SELECT count(*) FROM public.orders") == 500


DAMAGES = {
    "not JSON": lambda text: text[: len(text) // 2],
    "a newer format": lambda text: text.replace(
        '"format_version": 1', '"format_version": 3'
    ),
    "of another set": lambda text: text.replace('"source": "shop"', '"source": "shot"'),
    "not complete": lambda text: text.replace('"tables"', '"taboret"'),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_manifest_that_cannot_be_used(what: str, project: Project) -> None:
    """It is told, never listed as a set, never deleted; the other sets stay usable."""
    (good,) = project.json("backup")["backups"]
    (bad,) = project.json("backup")["backups"]
    (path,) = project.store.rglob(f"{bad['backup_id']}/manifest.json")
    path.write_text(DAMAGES[what](path.read_text()))
    before = project.files()

    listed = project.json("backups")

    assert [good["backup_id"]] == [each["backup_id"] for each in listed["backups"]]
    assert bad["backup_id"] in listed["unreadable"][0]["key"]
    for task in ("verify", "restore-drill"):
        document = project.json(task, "--backup", bad["backup_id"], code=20)
        assert bad["backup_id"] in document["error"]
    verified = project.json("verify", code=20)
    assert verified["status"] == "failed"
    assert path.name in verified["bad"][0]["key"]
    project.run("prune")
    assert set(before) <= set(project.files())


@pytest.mark.parametrize(
    ("damage", "code"), [("bit", 20), ("short", 20), ("missing", 10)]
)
def test_a_damaged_object(damage: str, code: int, project: Project) -> None:
    """`verify` names the object and why; the set's proof is then failed."""
    project.run("backup")
    (path,) = project.store.rglob("dump.pgdump.zst")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-5] if damage == "short" else content)

    document = project.json("verify", code=code)

    (bad,) = document["bad"]
    assert str(path.relative_to(project.store)) == bad["key"]
    assert bad["reason"]
    assert project.json("backups")["backups"][0]["proof"] == "failed"
    assert project.json("restore-drill", code=50)["status"] == "failed"


def make_it_last(project: Project) -> None:
    """Give the database so much to dump that a backup writes for over a second."""
    execute(
        project.url,
        "CREATE TABLE public.bulk AS SELECT i, md5(i::text) || md5((-i)::text) AS t "
        "FROM generate_series(1, 200000) i",
    )
    project.configure('bandwidth_limit = "2m"')


def contents(project: Project) -> dict[str, str]:
    """Return the digest of each file of the store."""
    return {
        name: hashlib.sha256((project.store / name).read_bytes()).hexdigest()
        for name in project.files()
    }


def test_a_backup_killed_at_any_instant(project: Project) -> None:
    """SIGKILL: no set is listed, the earlier one drills, the next run cleans up."""
    (first,) = project.json("backup")["backups"]
    make_it_last(project)
    left_behind = 0
    earlier = contents(project)

    # Before anything is written, then at instants counted from the first byte on.
    for writing, delay in ((False, 0.3), (True, 0.0), (True, 0.5), (True, 1.0)):
        before = set(project.files())
        process = project.start("backup")
        deadline = time.monotonic() + 60
        while writing and process.poll() is None and before == set(project.files()):
            assert time.monotonic() < deadline
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        listed = [each["backup_id"] for each in project.json("backups")["backups"]]
        if listed == [first["backup_id"]]:
            left_behind += before < set(project.files())
        else:
            # The kill came after the manifest: then the set is there, and whole.
            project.run("verify", "--backup", listed[0])
            break
        assert earlier.items() <= contents(project).items()

    assert left_behind, "no kill came while a set was being written"
    project.configure()
    drill = project.json("restore-drill", "--backup", first["backup_id"])
    assert drill["passed"]
    project.run("backup")
    listed = [each["backup_id"] for each in project.json("backups")["backups"]]
    for file in project.files():
        assert any(f"/{backup_id}/" in file for backup_id in listed), file
    assert project.json("restore-drill")["passed"]
    assert project.json("verify")["status"] == "ok"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_backup(number: signal.Signals, project: Project) -> None:
    """Ctrl-C and a polite kill: 130, nothing half-done, no program left running."""
    with connect(project.url, purpose="test", autocommit=False) as holder:
        holder.execute("LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE")
        process = project.start("backup", "--json")
        wait_for_pg_dump(project, present=True)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        wait_for_pg_dump(project, present=False)

    assert process.returncode == 130, errors
    assert json.loads(output)["code"] == 130
    assert project.files() == []
    assert project.json("ledger")["entries"][-1]["outcome"] == "interrupted"
    project.run("backup")


def wait_for_pg_dump(project: Project, *, present: bool) -> None:
    """Wait until a session of pg_dump waits for a lock, or until there is none.

    One that is cancelled before it waits may wait all the same, until its own limit.
    """
    deadline = time.monotonic() + 60
    statement = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump' "
        "AND datname = current_database()"
    )
    if present:
        statement += " AND wait_event_type = 'Lock'"
    while bool(value(project.url, statement)) is not present:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_backups_at_once(project: Project) -> None:
    """The second is refused with who holds the lock and since when."""
    with connect(project.url, purpose="test", autocommit=False) as holder:
        holder.execute("LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE")
        first = project.start("backup")
        wait_for_pg_dump(project, present=True)

        document = project.json("backup", code=11)

        assert f"process {document['holder']['pid']}" in document["error"]
        assert document["holder"]["started_at"] in document["error"]
        assert "prune" not in document["error"]
        assert project.json("prune", code=11)["code"] == 11
    first.communicate(timeout=60)
    assert first.returncode == 0


def test_nothing_to_verify_is_no_pass(project: Project) -> None:
    """A check that looked at nothing does not exit with 0."""
    assert "no backup set" in project.json("verify", code=2)["error"]


def test_a_state_folder_that_cannot_be_made(project: Project) -> None:
    """The key is named; the database and the store are not touched."""
    (project.folder / "taken").write_text("a file")
    text = (project.folder / "opskit.toml").read_text()
    (project.folder / "opskit.toml").write_text(f'state_dir = "taken/state"\n{text}')

    document = project.json("backup", code=2)

    assert "state_dir" in document["hint"]
    assert project.files() == []


def test_a_missing_work_folder(project: Project) -> None:
    """The configuration names a folder that is not there."""
    project.run("backup")
    project.configure('[drill]\nwork_dir = "/no/such/folder"')

    document = project.json("restore-drill", code=2)

    assert "/no/such/folder does not exist" in document["error"]


def test_no_client_tools_at_all(project: Project, tmp_path: Path) -> None:
    """A machine without PostgreSQL's programs and without the wheel."""
    # The wheel's package is hidden by a module of the same name that holds nothing.
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import opskit.postgres.servers.programs as p\n"
        "import opskit.postgres.servers.programs as e\n"
        "p._DISTRIBUTION_FOLDERS = ()\n"
        "e._PACKAGE = 'no_such_package'\n"
    )
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname", "cmp", "ps"):
        (tools / name).symlink_to(Path("/usr/bin") / name)
    project.environment |= {"PYTHONPATH": str(hidden), "PATH": str(tools)}

    document = project.json("backup", code=30)

    assert "no PostgreSQL client programs" in document["error"]
    assert "postgresql-client-16" in document["hint"]


def test_an_unexpected_error_is_no_traceback(project: Project, tmp_path: Path) -> None:
    """A fault in opskit itself: exit 1, and how to report it."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import opskit.operations.sources as s\ns.of_sets = None\n"
    )
    project.environment["PYTHONPATH"] = str(hidden)

    document = project.json("backups", code=1)

    assert "unexpected TypeError" in document["error"]
    assert "report" in document["hint"]
