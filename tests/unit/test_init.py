"""What `init` writes into a repository, and what it leaves alone."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from development.tasks import workflow_checks
from opskit import __version__, config
from opskit.errors import UsageError
from opskit.operations import repository
from opskit.operations.init import Initialised, init, outcome, plan
from opskit.operations.repository import DEPLOYERS, RUNNERS, Answers, read_answers

ROOT = Path(__file__).resolve().parents[2]
SHOP = "shop=postgresql://ops@db.example/shop"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("OPSKIT_")]:
        monkeypatch.delenv(name)


def answered(folder: Path, **given: Any) -> Answers:
    """Return the answers of a call with a database and a store in a bucket."""
    usual: dict[str, Any] = {
        "databases": [SHOP],
        "folders": [],
        "store": "s3://acme-backups/prod",
        "endpoint": "",
        "deployer": "none",
        "run": "both",
    }
    return read_answers(folder, **usual | given)


def run(
    folder: Path, *, force: bool = False, diff: bool = False, **given: Any
) -> Initialised:
    """Initialise a folder, and return what became of it."""
    planned = plan(answered(folder, **given), folder, force=force)
    done = (outcome if diff else init)(planned).result
    assert done is not None
    return done


def tree(folder: Path) -> Mapping[str, bytes]:
    """Return every file below a folder, and its content."""
    return {
        str(each.relative_to(folder)): each.read_bytes()
        for each in sorted(folder.rglob("*"))
        if each.is_file()
    }


def states(done: Initialised) -> dict[str, str]:
    """Return what became of each file."""
    return {each.path: each.state for each in done.files}


def uncommented(text: str) -> str:
    """Return a configuration with what is left to fill in."""
    return re.sub(r"(?m)^# (?=\w+ = |\[)", "", text)


@pytest.mark.parametrize("deployer", DEPLOYERS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_the_configuration_loads_as_it_is_and_filled_in(
    deployer: str, runner: str, tmp_path: Path
) -> None:
    """Each key is real, also one that is left to fill in."""
    given = answered(
        tmp_path,
        databases=[SHOP, "crm_2=postgresql:///crm"],
        folders=[] if runner == "github" else ["state=/var/lib/app"],
        endpoint="https://s3.example.net",
        deployer=deployer,
        run=runner,
    )
    text = repository.configuration(given)
    path = tmp_path / "opskit.toml"
    path.write_text(text)

    settings = config.load(path)
    filled = config.validated(tomllib.loads(uncommented(text)), path)

    assert list(settings.databases) == ["shop", "crm_2"]
    assert settings.databases["shop"].resolve_url() == SHOP.removeprefix("shop=")
    assert settings.stores["offsite"].endpoint_url == "https://s3.example.net"
    assert bool(settings.databases["shop"].schedule) == (runner != "github")
    assert settings.release.deployer == ("" if deployer == "none" else deployer)
    if deployer != "none":
        assert filled.smoke.url
        assert filled.release.migrations.database == "shop"


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """The same answers make the same files."""
    run(tmp_path)
    before = tree(tmp_path)

    again = run(tmp_path, force=True)

    assert set(states(again).values()) == {"unchanged"}
    assert tree(tmp_path) == before


def test_what_differs_is_kept_and_with_force_overwritten(tmp_path: Path) -> None:
    """A file of the user is overwritten only if that was asked for."""
    (tmp_path / "tasks.py").write_text("# mine\n")

    done = run(tmp_path)

    assert states(done)["tasks.py"] == "kept"
    assert (tmp_path / "tasks.py").read_text() == "# mine\n"
    assert states(run(tmp_path, force=True))["tasks.py"] == "overwritten"
    assert "from opskit.tasks import namespace" in (tmp_path / "tasks.py").read_text()


def test_a_password_is_refused_and_not_shown(tmp_path: Path) -> None:
    """Neither the configuration nor the message holds it."""
    for url in (
        "postgresql://ops:secret99@db/shop",
        "postgresql:///a?sslpassword=secret99",
    ):
        with pytest.raises(UsageError) as caught:
            answered(tmp_path, databases=[f"shop={url}"])

        assert "secret99" not in caught.value.message + caught.value.hint
        assert "OPSKIT_DATABASES__SHOP__URL" in caught.value.hint


def test_the_environment_file_lists_every_secret_and_sets_none(tmp_path: Path) -> None:
    """It can be read by a shell as it is; its variables are those of the settings."""
    given = answered(tmp_path, databases=[SHOP, "no-variable=postgresql:///x"])

    text = repository.environment(given)

    assert [
        line for line in text.splitlines() if line and not line.startswith("#")
    ] == []
    assert set(re.findall(r"(?m)^#(\w+)=''$", text)) == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
        "OPSKIT_DATABASES__SHOP__URL",
        "OPSKIT_DATABASES__SHOP__RESTORE_URL",
        "OPSKIT_ENCRYPTION__IDENTITY_PASSPHRASE",
        "OPSKIT_SIGNING__KEY_PASSPHRASE",
        "OPSKIT_DRILL__EXISTING_URL",
        "OPSKIT_FLEET__URL",
        "OPSKIT_NOTIFY__URLS",
        "OPSKIT_NOTIFY__HEARTBEATS",
        "OPSKIT_NOTIFY__DRILL_HEARTBEATS",
        "OPSKIT_NOTIFY__SENTRY_DSN",
        "OPSKIT_RELEASE__RAILWAY__TOKEN",
    }


def test_one_more_database_is_what_the_diff_shows(tmp_path: Path) -> None:
    """Git makes of the diff what --force writes; the diff itself writes nothing."""
    run(tmp_path, deployer="railway")
    (tmp_path / "tasks.py").write_bytes(b"def test(c): ...\r\n\x0cno end of line")
    (tmp_path / "runbooks" / "keys-lost.md").unlink()
    patched = tmp_path.parent / "patched"
    shutil.copytree(tmp_path, patched)
    before = tree(tmp_path)
    more: dict[str, Any] = {
        "databases": [SHOP, "crm=postgresql:///crm"],
        "deployer": "railway",
    }

    shown = run(tmp_path, diff=True, **more)

    assert tree(tmp_path) == before
    kept = {path for path, state in states(shown).items() if state == "kept"}
    assert kept == {
        "opskit.toml",
        "tasks.py",
        ".env.example",
        ".github/workflows/backup.yml",
    }
    matrix = [line for line in shown.diff if re.match(r"[+-] +source:", line)]
    assert matrix == ["-        source: [shop]", "+        source: [shop, crm]"]
    run(tmp_path, force=True, **more)
    subprocess.run(
        ["git", "apply", "--whitespace=nowarn"],
        cwd=patched,
        input="".join(f"{line}\n" for line in shown.diff).encode(),
        check=True,
    )
    assert tree(patched) == tree(tmp_path)


def test_workflows_for_several_databases_pass_the_gates(tmp_path: Path) -> None:
    """Names stay texts in YAML; a job that would run a missing task is left out."""
    names = ["shop", "on", "7", "null", "a-b_c"]
    releases = ["staging", "production"]
    for own_tasks, jobs in (
        ("", ["test", *releases]),
        ("def test(c): ...\n", ["test", *releases]),
        ("def build(c): ...\n", releases),
    ):
        folder = tmp_path / str(len(own_tasks))
        folder.mkdir()
        if own_tasks:
            (folder / "tasks.py").write_text(own_tasks)

        run(
            folder,
            databases=[f"{each}=postgresql:///x" for each in names],
            deployer="railway",
        )

        workflows = folder / ".github" / "workflows"
        backup, release = (
            yaml.safe_load((workflows / f"{each}.yml").read_text())["jobs"]
            for each in ("backup", "release")
        )
        assert backup["backup"]["strategy"]["matrix"] == {"source": names}
        assert list(release) == jobs
        needed = [f"{job.get('needs', '')}" for job in release.values()]
        assert [each for each in release if any(each in e for e in needed)] == jobs[:-1]
        assert ("test" in "".join(needed)) == ("test" in jobs)
    written = list(tmp_path.rglob("*.yml"))
    assert len(written) == 12
    for command, *words in workflow_checks(written):
        program = Path(sys.executable).parent / command
        judged = subprocess.run([program, *words], capture_output=True, text=True)
        assert judged.returncode == 0, judged.stdout + judged.stderr


def _link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


_FILES = ("opskit.toml", "tasks.py", ".gitignore")
_FOLDERS = (".github", "runbooks", "store")


@pytest.mark.parametrize(
    ("place", "make"),
    [
        *((each, Path.mkdir) for each in _FILES),
        *((each, make) for each in _FILES + _FOLDERS for make in (os.mkfifo, _link)),
    ],
)
def test_what_is_no_file_is_in_the_way_before_anything_is_written(
    place: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    """Neither a folder nor a device nor a link is followed or replaced."""
    make(tmp_path / place)

    for force in (False, True):
        with pytest.raises(UsageError, match=re.escape(place)):
            run(tmp_path, force=force, store="store")

    assert os.listdir(tmp_path) == [place]


def test_a_link_to_a_file_is_read_and_never_written_through(tmp_path: Path) -> None:
    """What it leads to stays as it is, also with --force, which replaces the link."""
    for name in ("tasks.py", ".gitignore"):
        (tmp_path / f"real{name}").write_text("mine\n")
        (tmp_path / name).symlink_to(f"real{name}")

    done = states(run(tmp_path))

    assert (done["tasks.py"], done[".gitignore"]) == ("kept", "kept")
    run(tmp_path, force=True)
    assert (tmp_path / "realtasks.py").read_text() == "mine\n"
    assert (tmp_path / "real.gitignore").read_text() == "mine\n"
    assert not (tmp_path / "tasks.py").is_symlink()


def test_interrupted_at_any_file_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is there whole or not at all; the next run writes the others."""
    whole = tmp_path / "whole"
    whole.mkdir()
    run(whole)
    number = len(tree(whole))
    write = os.fsync

    for last in range(0, number, 5):
        folder = tmp_path / str(last)
        folder.mkdir()
        left = iter(range(2 * last + 1))

        def interrupted(descriptor: int, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            write(descriptor)

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
        monkeypatch.setattr(os, "fsync", write)
        written = tree(folder)
        assert len(written) in (last, last + 1)
        assert written.items() <= tree(whole).items()
        run(folder)
        assert tree(folder) == tree(whole)


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system's refusal is no fault of opskit."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "temporary")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)

    with pytest.raises(UsageError, match=r"opskit\.toml cannot be written: Permission"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"databases": []}, "missing: --database or --files"),
        ({"store": ""}, "missing: --store"),
        ({"databases": ["Shop=postgresql:///x"]}, "NAME=URL"),
        ({"databases": ["a]b=postgresql:///x"]}, "NAME=URL"),
        ({"databases": ["postgresql:///x?a=secret99"]}, "NAME=URL"),
        ({"databases": ["shop="]}, "NAME=URL"),
        ({"databases": ["shop=mysql://db/x"]}, "connection URL|postgresql://"),
        ({"databases": [SHOP, "shop=postgresql:///other"]}, "given twice"),
        ({"folders": ["shop=/var/lib/app"]}, "share the name"),
        ({"folders": ["state=var/lib/app"]}, "absolute path"),
        ({"folders": ["state=/var/\udcfflib"]}, "cannot be printed"),
        (
            {"databases": [], "folders": ["s=/x"], "run": "both"},
            "cannot back up your folders",
        ),
        ({"folders": ["s=/x"], "run": "github"}, "cannot back up your folders"),
        ({"store": "s3://key:secret99@bucket"}, "must not hold @"),
        ({"store": "ftp://host/x"}, "must be file:///absolute/folder or s3://"),
        (
            {"store": "/x", "endpoint": "https://s3.example.net"},
            "only a store at s3://",
        ),
        ({"store": "."}, "the repository itself"),
        ({"deployer": "heroku"}, "deployer cannot be 'heroku'"),
        ({"run": "cron"}, "run cannot be 'cron'"),
    ],
)
def test_answers_that_make_no_configuration_are_refused(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Before anything is written, and without a secret in the message."""
    with pytest.raises(UsageError, match=message) as caught:
        run(tmp_path, **given)

    assert "secret99" not in caught.value.message + caught.value.hint
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, ".opskit/\n.env\n/sets/\n"),
        ("*.pyc", "*.pyc\n.opskit/\n.env\n/sets/\n"),
        ("/.opskit\n.env\nsets/\n", "/.opskit\n.env\nsets/\n"),
    ],
)
def test_git_ignores_state_secrets_and_a_store_in_the_repository(
    before: str | None, after: str, tmp_path: Path
) -> None:
    """Entries that are there are not doubled, and what is there stays."""
    if before is not None:
        (tmp_path / ".gitignore").write_text(before)

    run(tmp_path, store="sets")

    assert (tmp_path / ".gitignore").read_text() == after


def test_a_folder_for_the_store_is_made_for_this_user_alone(tmp_path: Path) -> None:
    """One that exists stays as it is, with all that it holds."""
    store = tmp_path / "far" / "off with blanks"
    folder = tmp_path / "service"
    folder.mkdir()

    assert run(folder, store="../far/off with blanks").new_store == store

    assert store.stat().st_mode & 0o777 == 0o700
    (store / "other").write_text("mine")
    store.chmod(0o750)
    run(folder, store="elsewhere", diff=True)
    assert not (folder / "elsewhere").exists()
    assert run(folder, store=str(store)).new_store is None
    assert (store.stat().st_mode & 0o777, os.listdir(store)) == (0o750, ["other"])
    settings = config.load(folder / "opskit.toml")
    assert settings.stores["local"].url == f"file://{store}"


def test_tasks_in_a_package_are_left_alone_even_with_force(tmp_path: Path) -> None:
    """Python takes the package, so a tasks.py beside it would have no effect."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("# mine\n")

    done = run(tmp_path, force=True)

    assert not (tmp_path / "tasks.py").exists()
    assert any("tasks/__init__.py is yours" in each for each in done.steps())


def test_what_is_left_to_do_is_said(tmp_path: Path) -> None:
    """The environments and secrets are those of the workflows that were written."""
    (tmp_path / ".git").mkdir()
    folder = tmp_path / "service"
    folder.mkdir()

    steps = "\n".join(run(folder, store="sets", deployer="local").steps())

    for words in (
        "environments backup, production, restore-drill, smoke, staging.",
        "PGPASSFILE",
        "name a bucket",
        "must run on the machine of the service",
        "write that, or set `if: false`",
        "first runs the task `test`",
        f"GitHub reads workflows only in {tmp_path}:",
        "complete [smoke] and [release]",
        "do the same work",
        "inv scheduler",
    ):
        assert words in steps
    assert ("is not released" in steps) == ("dev" in __version__)
    (folder / "tasks.py").write_text("from opskit.tasks import namespace\n")
    (folder / ".github" / "workflows" / "release.yml").unlink()
    steps = "\n".join(run(folder, store="sets", deployer="command").steps())
    assert "release.yml runs no tests" in steps
    steps = "\n".join(run(tmp_path, run="scheduler").steps())
    assert "GitHub" not in steps
    assert "complete" not in steps


def test_a_workflow_of_ones_own_is_not_spoken_of_as_that_of_opskit(
    tmp_path: Path,
) -> None:
    """It is left alone, and what it lacks is not left to do."""
    release = tmp_path / ".github" / "workflows" / "release.yml"
    release.parent.mkdir(parents=True)
    release.write_text("name: Ours\non: push\njobs: {}\n")

    steps = "\n".join(run(tmp_path, deployer="local").steps())

    assert ".github/workflows/release.yml is yours and is left alone" in steps
    assert "environments backup, restore-drill, smoke." in steps
    for words in ("opskit.staging.toml", "task `test`", "must run on", "production"):
        assert words not in steps
    steps = "\n".join(run(tmp_path, deployer="local", force=True).steps())
    assert "is yours" not in steps.replace("tasks.py is yours", "")
    assert "opskit.staging.toml" in steps


def test_an_empty_workflow_of_ones_own_is_left_alone_too(tmp_path: Path) -> None:
    """What is left to do is said of the empty file, not of the one of opskit."""
    release = tmp_path / ".github" / "workflows" / "release.yml"
    release.parent.mkdir(parents=True)
    release.touch()

    steps = "\n".join(run(tmp_path, deployer="railway").steps())

    assert ".github/workflows/release.yml is yours and is left alone" in steps
    assert "environments backup, restore-drill, smoke." in steps
    assert "opskit.staging.toml" not in steps
    assert release.read_text() == ""


def test_the_folder_of_opskit_itself_stays_as_it_is() -> None:
    """A clone is no repository of a user."""
    with pytest.raises(UsageError, match="the folder of opskit itself"):
        run(ROOT, diff=True)


def test_the_runbooks_are_copied_without_the_game_days_of_this_project(
    tmp_path: Path,
) -> None:
    """Those that hints and pages name are there, and a list of them."""
    run(tmp_path)

    copied = {each.name: each.read_text() for each in (tmp_path / "runbooks").iterdir()}
    there = {each.name: each.read_text() for each in (ROOT / "runbooks").glob("*.md")}
    listed, written = copied.pop("README.md"), there.pop("README.md")
    assert copied == there
    assert len(copied) == 8
    assert written.startswith(listed)
    assert all(f"({name})" in listed for name in copied)
    assert "gamedays" not in listed
