"""The README's first command in a fresh clone, a bare environment, an empty HOME."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opskit import __version__
from tests.acceptance.conftest import ROOT

_SECONDS_MAX = 600


def clone(target: Path) -> None:
    """Copy what git would clone: the files it tracks, and nothing else."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    for name in listed.decode().rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def ordinary() -> dict[str, Any]:
    """Return what makes a process that of an ordinary user, where this is root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def give_to_ordinary(*paths: Path) -> None:
    """Make the ordinary user the owner, where this is root."""
    if user := ordinary():
        for path in paths:
            give(path, user["user"], user["group"])


def call(
    program: Path, *words: str, folder: Path, home: Path, **options: Any
) -> subprocess.Popen[str]:
    """Start `./inv` in a folder, with nothing in the environment but HOME."""
    return subprocess.Popen(
        [program, *words],
        cwd=folder,
        env={"HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a clone; pytest keeps its own folders from other users.

    Its environment was made by two first runs at once, of an ordinary user.
    """
    with tempfile.TemporaryDirectory(prefix="fresh-clone-") as made:
        path = Path(made)
        path.chmod(0o755)
        target, home = path / "clone", path / "home"
        for each in (target, home):
            each.mkdir()
        clone(target)
        give_to_ordinary(target, home)
        runs = [
            call(target / "inv", "--version", folder=target, home=home, **ordinary())
            for _ in range(2)
        ]
        told = [run.communicate(timeout=_SECONDS_MAX) for run in runs]
        assert [run.returncode for run in runs] == [0, 0], told
        assert [out for out, _error in told] == [f"opskit {__version__}\n"] * 2
        assert sum("making the environment" in error for _out, error in told) == 1
        yield path


def test_the_environment_is_that_of_a_server(folder: Path) -> None:
    """It holds no development tool, and what it holds is no more than is needed."""
    environment = folder / "clone" / ".venv"
    programs = {path.name for path in (environment / "bin").iterdir()}
    size = sum(path.lstat().st_size for path in environment.rglob("*"))

    assert programs.isdisjoint({"pytest", "mypy", "ruff", "weed", "rclone"})
    assert size < 300 * 1024 * 1024


def test_a_lock_for_development_goes_beyond_that_of_a_server() -> None:
    """Every package has the same version and digests in both; no index is named."""
    packages, more = (
        (ROOT / name).read_text().replace("\\\n", "").splitlines()
        for name in ("requirements.lock", "requirements-dev.lock")
    )

    # But for the marker: more packages may need one on more platforms.
    assert {_without_marker(e) for e in packages} < {_without_marker(e) for e in more}
    assert not any("://" in line for line in more)


def _without_marker(line: str) -> str:
    return re.sub(r" ;.*?(?= --hash)", "", re.sub(r"\s+", " ", line))


def _package(name: str, lock: str) -> str:
    found = re.search(rf"^{name}==(.*\\\n)*.*\n", lock, re.MULTILINE)
    assert found
    return found[0]


def test_a_clone_that_is_not_the_users(tmp_path: Path) -> None:
    """Who may not write to the clone gets an environment in the cache folder."""
    if os.geteuid() != 0:
        pytest.skip("only root can own what another user calls")
    with tempfile.TemporaryDirectory(prefix="clone-of-root-") as made:
        path = Path(made)
        path.chmod(0o755)
        target, home = path / "clone", path / "home"
        for each in (target, home):
            each.mkdir()
        clone(target)
        # What `-V` needs: that of all commands was made for the other clone.
        lock = target / "requirements.lock"
        lock.write_text(_package("invoke", lock.read_text()))
        give_to_ordinary(home)

        for _ in range(2):
            run = call(target / "inv", "-V", folder=home, home=home, **ordinary())
            out, error = run.communicate(timeout=_SECONDS_MAX)

            assert out == f"opskit {__version__}\n", error
        assert error == ""
        assert not (target / ".venv").exists()
        assert list((home / ".cache" / "opskit").glob("venv-*/bin/python"))


def test_a_link_to_it_from_a_folder_with_modules(folder: Path, tmp_path: Path) -> None:
    """It finds its clone, and takes none of the modules that lie about."""
    (tmp_path / "inv").symlink_to(folder / "clone" / "inv")
    for name in ("json.py", "opskit.py", "random.py"):
        (tmp_path / name).write_text("raise SystemExit(9)\n")

    run = call(tmp_path / "inv", "--version", folder=tmp_path, home=tmp_path)

    assert run.communicate(timeout=_SECONDS_MAX) == (f"opskit {__version__}\n", "")


@pytest.mark.parametrize("home", [None, "/nowhere/at/all", "locked"])
def test_a_home_that_cannot_be_used(
    home: str | None, folder: Path, tmp_path: Path
) -> None:
    """A run without a HOME, or with one that may not be entered, needs none."""
    if home == "locked":
        home = str(folder / "locked")
        Path(home).mkdir(0o700)
    environment = {} if home is None else {"HOME": home}

    finished = subprocess.run(
        [folder / "clone" / "inv", "doctor", "--json"],
        cwd="/",
        env=environment | {"OPSKIT_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=False,
        **ordinary(),
    )

    assert finished.returncode == 2
    assert "no configuration" in json.loads(finished.stdout)["error"]
    assert "Traceback" not in finished.stderr


def give(path: Path, user: int, group: int) -> None:
    """Make a user the owner of a folder and all that is in it."""
    for each in (path, *path.rglob("*")):
        os.chown(each, user, group, follow_symlinks=False)


def test_a_folder_of_the_path_that_may_not_be_entered(
    folder: Path, tmp_path: Path
) -> None:
    """It is passed over where programs are looked for, as a shell does."""
    closed = folder / "closed"
    closed.mkdir(0o700)
    (closed / "pg_dump").touch()
    (folder / "opskit.toml").write_text(
        f"state_dir = '{folder}/state'\n"
        "[databases.shop]\nurl = 'postgresql://nobody@127.0.0.1:1/shop'\n"
        f"[stores.local]\nurl = 'file://{folder}'\n"
    )
    (folder / "state").mkdir()
    give_to_ordinary(folder / "state")

    finished = subprocess.run(
        [folder / "clone" / "inv", "doctor", "--json"],
        cwd=folder,
        env={"PATH": f"{closed}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        **ordinary(),
    )

    assert finished.returncode == 4, finished.stderr
    assert "database shop" in finished.stdout


# Making an environment takes longer than all else: who comes second gets that of the
# first. That `./inv` makes one as root as well is shown where root runs `./inv test`.
@pytest.mark.parametrize("who", ["an ordinary user", "root"])
def test_quickstart_in_a_fresh_clone(who: str, folder: Path) -> None:
    """It passes twice, keeps the earlier backup, and leaves no server behind.

    An ordinary user also sees a release, and one that is taken back. For root the clone lies where nobody else may look, as in root's own HOME.
    """
    if who == "root" and os.geteuid() != 0:
        pytest.skip("only root can be root")
    target, home = folder / "clone", folder / f"home of {who}"
    home.mkdir()
    shutil.rmtree(target / ".opskit", ignore_errors=True)
    folder.chmod(0o700 if who == "root" else 0o755)
    options: dict[str, Any] = {}
    if who == "root":
        give(target, 0, 0)
    else:
        give_to_ordinary(target, home)
        options = ordinary()

    results = []
    more = ["--release"] if who != "root" else []
    for flags in ([], [*more, "--json"]):
        run = call(
            target / "inv", "quickstart", *flags, folder=target, home=home, **options
        )
        results.append((run, *run.communicate(timeout=_SECONDS_MAX)))

    for run, _out, error in results:
        assert run.returncode == 0, error
    assert "proved: every row came back" in results[0][1]
    assert "opskit.toml scheduler`, then open http://127.0.0.1:8321/" in results[0][1]
    document = json.loads(results[1][1])
    assert document["drill"]["passed"]
    ended = [
        (e["version"], e["previous"], e["verdict"])
        for e in document.get("releases", ())
    ]
    assert [each[:2] for each in ended] == [("2", "1"), ("3", "2")] * bool(more)
    assert not more or (ended[0][2], ended[1][2][:10]) == ("", "image-safe")
    assert Path(document["drill"]["report"]).is_file()
    store = target / ".opskit" / "quickstart" / "store"
    assert len(list(store.rglob("manifest.json"))) == 2
