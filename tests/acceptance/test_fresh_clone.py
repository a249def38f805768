"""The README's first command in a fresh clone, a bare environment, an empty HOME."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a clone; pytest keeps its own folders from other users."""
    with tempfile.TemporaryDirectory(prefix="fresh-clone-") as made:
        path = Path(made)
        (path / "clone").mkdir()
        clone(path / "clone")
        yield path


def give(path: Path, user: int, group: int) -> None:
    """Make a user the owner of a folder and all that is in it."""
    for each in (path, *path.rglob("*")):
        os.chown(each, user, group, follow_symlinks=False)


# Making an environment takes longer than all else: who comes second gets that of the
# first. That `./inv` makes one as root as well is shown where root runs `./inv test`.
@pytest.mark.parametrize("who", ["an ordinary user", "root"])
def test_quickstart_in_a_fresh_clone(who: str, folder: Path) -> None:
    """It passes twice, keeps the earlier backup, and leaves no server behind.

    For root the clone lies where nobody else may look, as in root's own HOME.
    """
    if who == "root" and os.geteuid() != 0:
        pytest.skip("only root can be root")
    target, home = folder / "clone", folder / f"home of {who}"
    home.mkdir()
    shutil.rmtree(target / ".opskit", ignore_errors=True)
    folder.chmod(0o700 if who == "root" else 0o755)
    options: dict[str, object] = {}
    if who == "root":
        give(target, 0, 0)
    elif os.geteuid() == 0:
        account = pwd.getpwnam("nobody")
        for path in (target, home):
            give(path, account.pw_uid, account.pw_gid)
        options = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    results = [
        subprocess.run(  # type: ignore[call-overload]
            [target / "inv", "quickstart", *flags],
            cwd=target,
            env={"HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS_MAX,
            check=False,
            **options,
        )
        for flags in ([], ["--json"])
    ]

    for result in results:
        assert result.returncode == 0, result.stderr
    assert "proved: every row came back" in results[0].stdout
    document = json.loads(results[1].stdout)
    assert document["drill"]["passed"]
    assert Path(document["drill"]["report"]).is_file()
    store = target / ".opskit" / "quickstart" / "store"
    assert len(list(store.rglob("manifest.json"))) == 2
